"""What makes and measures models, as functions: the commands of the same names, from Python.

Each takes its settings by name; the structs `CompressSettings`, `ExportSettings`, `EvaluationSettings` and
`DistillSettings` list them with their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.errors import ConfigError
from edgeclip.export.export_settings import ExportSettings
from edgeclip.measure.evaluation_settings import EvaluationSettings
from edgeclip.settings import decode_settings

if TYPE_CHECKING:
    from edgeclip.export.immich import ImmichManifest
    from edgeclip.manifest import Card, Closeness, Manifest
    from edgeclip.results import Evaluation, Results
    from edgeclip.tune.record import Compressed

EXTRA = {
    **{"datasets": "data", "webdataset": "data"},
    **dict.fromkeys(("fastapi", "uvicorn", "starlette", "anyio", "prometheus_client", "python_multipart"), "serve"),
    **dict.fromkeys(("mcp", "mcp_types"), "mcp"),
    "qdrant_client": "scale",
}
"""The extra that brings a package; `compress` brings all others."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Turn a package that is missing into the extra that brings it.

    Raises:
        ConfigError: naming it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgeclip"):
            raise
        package = error.name.partition(".")[0]
        extra = EXTRA.get(package, "compress")
        raise ConfigError(
            f"the package {package} is missing",
            expected=f"the {extra} extra",
            fix=f"pip install 'edgeclip[{extra}]'",
        ) from error


def export(model: str | Path, out: str | Path, **settings: Any) -> tuple[Manifest | ImmichManifest, Card | Closeness]:
    """Write a bundle, whole or not at all; an earlier bundle in its place is replaced.

    Args:
        model: `builtin:tabletop`, a checkpoint's folder or file, or a hub id.
        out: the bundle's folder.
        settings: by name, see `export.export_settings.ExportSettings`, such as `data`, `samples`, `precision`.

    Returns:
        The manifest, and the release card measured against the checkpoint; for one tower alone how close its
        embeddings are to those in float.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used, or the `compress` extra is
            missing.
    """
    decoded = decode_settings({"model": str(model), **settings}, ExportSettings)
    with extras_named():
        from edgeclip.export.run import export as run

        return run(decoded, Path(out))


def compress(model: str | Path, out: str | Path, **settings: Any) -> Compressed:
    """Write the fastest bundle that keeps a budget and the accuracy on this device, or the one that comes closest.

    Args:
        model: as for `export`.
        out: the bundle's folder; an earlier bundle is replaced.
        settings: by name, see `tune.compress_settings.CompressSettings`, such as `data`, `max_image_ms`, `max_drop`.

    Returns:
        What was tried, what was chosen and why, and the proof; `fits` where the budget is met.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used, or the `compress` extra is
            missing.
    """
    with extras_named():
        from edgeclip.tune import compress as run

        return run(model, out, **settings)


def evaluate(model: str | Path, **settings: Any) -> Evaluation:
    """Recall at 1, 5 and 10 both ways, with 95 % intervals.

    Args:
        model: a bundle, a checkpoint, a student's folder, or a hub id.
        settings: by name, see `measure.evaluation_settings.EvaluationSettings`, such as `data`, `samples`.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used, or an extra is missing.
    """
    decoded = decode_settings({"model": str(model), **settings}, EvaluationSettings)
    with extras_named():
        from edgeclip.measure.evaluation import evaluate as run

        return run(decoded)


def distill(
    model: str | Path, recipe: str | Path, out: str | Path, *, resume: bool = False, **settings: Any
) -> Results | None:
    """Train a smaller student, or a better int8 model, and keep its checkpoint and its bundle in `out`.

    Args:
        model: the teacher.
        recipe: `qad`, `half`, `quarter`, `eighth`, or a TOML file.
        out: folder of the cache, the states, the checkpoint and the bundle.
        resume: go on from the state of an earlier run.
        settings: by name, see `compress.distill_settings.DistillSettings`, such as `data`, `pairs`.

    Returns:
        Rows of teacher, post-training int8 and distilled bundle; None in all but the first of several processes.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used, or the `compress` extra is
            missing.
    """
    decoded = decode_settings({"model": str(model), "recipe": str(recipe), **settings}, DistillSettings)
    with extras_named():
        from edgeclip.compress.experiment import distill as run
        from edgeclip.files import own_output_folder

        with own_output_folder(Path(out)):
            return run(decoded, Path(out), resume=resume)
