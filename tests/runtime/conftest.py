from __future__ import annotations

from pathlib import Path

import pytest

import edgeclip
from edgeclip.checkpoint import Loaded, load_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from edgeclip.runtime import ClipRuntime


@pytest.fixture(scope="session")
def loaded(mini_checkpoint: Path) -> Loaded:
    return load_checkpoint(mini_checkpoint)


@pytest.fixture(scope="session")
def bundles(loaded: Loaded, few_pairs: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for precision in ("fp32", "int8"):
        export_bundle(loaded, folder / precision, few_pairs, precision=precision, threads=1)
    return {precision: folder / precision for precision in ("fp32", "int8")}


@pytest.fixture
def clip(bundles: dict[str, Path]) -> ClipRuntime:
    return edgeclip.load(bundles["fp32"], threads=1)
