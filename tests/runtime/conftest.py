from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import edgeclip
from edgeclip.runtime import ClipRuntime


@pytest.fixture
def clip(bundles: dict[str, Path]) -> ClipRuntime:
    return edgeclip.load(bundles["fp32"], threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for index, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (50 + index, 40), color).save(tmp_path / f"{color}.png")
        paths.append(tmp_path / f"{color}.png")
    return paths
