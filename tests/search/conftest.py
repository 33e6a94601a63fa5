from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.runtime import ClipRuntime, load


@pytest.fixture(scope="session")
def clip() -> ClipRuntime:
    return load("builtin:tabletop", threads=1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of the built-in world, in two folders; not to be written to."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(24):
        path = folder / ("odd" if number % 2 else "even") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render(sample_scene("search", 0, number))).save(path, compress_level=1)
    return folder


def caption(number: int) -> str:
    """Of scene `number` of those pictures, the plain one."""
    return describe(sample_scene("search", 0, number))[0]
