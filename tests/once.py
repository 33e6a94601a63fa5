"""What takes long to make is made once, by whichever of the test processes needs it first."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from filelock import FileLock
from torch import Tensor

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def made_once(factory: pytest.TempPathFactory) -> MadeOnce:
    """Give a function that fills a folder of this name, unless it was filled before; nobody may change it then."""
    base = factory.getbasetemp()
    return made_once_in((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once")


def made_once_in(shared: Path) -> MadeOnce:
    """The same for a folder of one's own."""
    shared.mkdir(exist_ok=True)

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder, complete = shared / name, shared / f"{name}.complete"
        with FileLock(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
                folder.mkdir()
                fill(folder)
                complete.touch()
        return folder

    return folder_of


class _ByContent(pickle.Pickler):
    """Tensors are what is in them, wherever they lie."""

    def persistent_id(self, value: object) -> object:
        return (value.dtype, value.shape, value.detach().numpy().tobytes()) if isinstance(value, Tensor) else None


def digest(*values: object) -> str:
    """Of what is in them."""
    content = io.BytesIO()
    _ByContent(content).dump(values)
    return hashlib.sha256(content.getvalue()).hexdigest()


def exported_once(export: Callable[..., Any], once: MadeOnce) -> Callable[..., Any]:
    """`torch.onnx.export` that takes seconds for a tower, however small it is, and no time when it comes again."""

    def export_once(tower: Any, examples: Any, **options: Any) -> SimpleNamespace:
        def fill(folder: Path) -> None:
            tracer = sys.gettrace()
            sys.settrace(None)  # coverage's would look at every line of the exporter
            try:
                program = export(tower, examples, **options)
            finally:
                sys.settrace(tracer)
            program.save(folder / "graph.onnx")

        folder = once(f"graph-{digest(tower, examples, repr(options))}", fill)
        return SimpleNamespace(model_proto=onnx.load(folder / "graph.onnx"))

    return export_once
