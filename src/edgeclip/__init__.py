"""edgeclip: CLIP made smaller, faster and as accurate on CPU-only devices.

    clip = edgeclip.load("builtin:tabletop")             # or a bundle's folder, or a hub id
    clip.classify(["photo.jpg"], ["cat", "dog"])
    edgeclip.export("openai/clip-vit-base-patch32", "clip-b32")

`load` and what it returns need the base install alone. `compress`, `export`, `evaluate` and `distill` are imported when
they are called, and say which extra they need.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgeclip.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    EdgeclipError,
    HubError,
    ImageError,
    InputError,
    TokenizerError,
    TrainingError,
)
from edgeclip.telemetry import switch_off
from edgeclip.version import __version__

if TYPE_CHECKING:
    from edgeclip.makers import compress, distill, evaluate, export
    from edgeclip.runtime import Classifier, ClipRuntime, Label, load

__all__ = [
    "BundleError",
    "CheckpointError",
    "Classifier",
    "ClipRuntime",
    "ConfigError",
    "DataError",
    "EdgeclipError",
    "HubError",
    "ImageError",
    "InputError",
    "Label",
    "TokenizerError",
    "TrainingError",
    "__version__",
    "compress",
    "distill",
    "evaluate",
    "export",
    "load",
]

RUNTIME = ("Classifier", "ClipRuntime", "Label", "load")
MAKERS = ("compress", "distill", "evaluate", "export")

switch_off()
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import what was asked for, so that `import edgeclip` stays instant."""
    if name in RUNTIME:
        return getattr(import_module("edgeclip.runtime"), name)
    if name in MAKERS:
        return import_module(f"edgeclip.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Room(ModuleType):
    """A room of the package that is called like what is made in it: `edgeclip.export(...)` is `makers.export`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module("edgeclip.makers"), self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """This package, which makes those rooms callable as they are imported, by whomever."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in MAKERS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
