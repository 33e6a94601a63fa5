from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.runtime import ClipRuntime, load
from edgeclip.search import Index


@pytest.fixture(scope="session")
def clip() -> ClipRuntime:
    return load("builtin:tabletop", threads=1)


@pytest.fixture
def encoded(clip: ClipRuntime, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every picture that goes through the image tower."""
    calls: list[int] = []
    encode = clip.encode_image

    def counted(*arguments: object, **options: object) -> object:
        calls.append(1)
        return encode(*arguments, **options)

    monkeypatch.setattr(clip, "encode_image", counted)
    return calls


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of the built-in world, in two folders; not to be written to."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(24):
        path = folder / ("odd" if number % 2 else "even") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        draw(path, number)
    return folder


@pytest.fixture
def index(tmp_path: Path, clip: ClipRuntime) -> Iterator[Index]:
    with Index.open(tmp_path / "photos.db", clip) as opened:
        yield opened


def draw(path: Path, number: int) -> Path:
    """Scene `number` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(sample_scene("search", 0, number))).save(path)
    return path


def caption(number: int) -> str:
    """Of scene `number`, the plain one."""
    return describe(sample_scene("search", 0, number))[0]


def paths(index: Index) -> list[str]:
    """All that the index finds, by name."""
    return sorted(result.path for result in index.search("a red mug", k=1000, collapse=False).results)
