"""`edgeclip distill` that trains as ever, and exports and times nothing: `... BUNDLE ARGUMENTS`."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeclip.cli.main import main


class Untimed:
    """Stands for a process that measures a model, and starts none."""

    def __init__(self, *job: object, **options: object) -> None:
        pass

    def measure(self) -> dict[str, Any]:
        return {"times": {call: [1.0] for call in ("image", "text", "i2t", "t2i")}, "peak_rss_mb": 100.0}

    def __enter__(self) -> "Untimed":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def ready_made(bundle: Path) -> Callable[..., None]:
    """What stands for `export_bundle`."""

    def export(checkpoint: object, out: Path, *samples: object, **options: object) -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(bundle, out)

    return export


def train_alone(patch: pytest.MonkeyPatch, bundle: Path) -> None:
    """Let bundles be copies of this one, and rows have no times."""
    patch.setattr("edgeclip.compress.experiment.export_bundle", ready_made(bundle))
    patch.setattr("edgeclip.measure.rows.FreshProcess", Untimed)


if __name__ == "__main__":
    train_alone(pytest.MonkeyPatch(), Path(sys.argv.pop(1)))
    main()
