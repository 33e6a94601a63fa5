"""Photographs to time with: real detail at every size, from a folder of small ones or from the built-in world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FULL_HD, LARGE = (1920, 1080), (4032, 3024)
SMALL = 64
QUALITY = 90


@dataclass(frozen=True)
class Photos:
    """Files: one of each large size, and many small ones."""

    full_hd: Path
    large: Path
    small: list[Path]


def photographs(folder: Path) -> list[Image.Image]:
    """Small pictures: photographs where there are some, scenes of the built-in world elsewhere."""
    files = sorted(folder.rglob("*.jpg"))[:SMALL]
    if files:
        return [Image.open(path).convert("RGB") for path in files]
    from edgeclip.data.tabletop import render, sample_scene

    scenes = (render(sample_scene("benchmark", 0, index)) for index in range(SMALL))
    return [Image.fromarray(scene).resize((500, 500), Image.Resampling.BICUBIC) for scene in scenes]


def write_photos(folder: Path, pictures: list[Image.Image]) -> Photos:
    """Write JPEG files, quality 90 with halved colour as cameras do, each where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    small = [folder / f"{index:03d}.jpg" for index in range(len(pictures))]
    for path, picture in zip(small, pictures, strict=True):
        if not path.is_file():
            picture.save(path, quality=QUALITY, subsampling="4:2:0")
    photos = Photos(folder / "1920x1080.jpg", folder / "4032x3024.jpg", small)
    for path, size in ((photos.full_hd, FULL_HD), (photos.large, LARGE)):
        if not path.is_file():
            _mosaic(size, iter(pictures)).save(path, quality=QUALITY, subsampling="4:2:0")
    return photos


def _mosaic(size: tuple[int, int], pictures: Iterator[Image.Image]) -> Image.Image:
    """Pictures at twice their size side by side: about the detail that a camera records at each pixel."""
    canvas = Image.new("RGB", size)
    x = y = row = 0
    for picture in pictures:
        tile = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
        canvas.paste(tile, (x, y))
        x, row = x + tile.width, max(row, tile.height)
        if x >= size[0]:
            x, y, row = 0, y + row, 0
        if y >= size[1]:
            break
    noise = np.random.default_rng(0).normal(0, 2, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(canvas) + noise, 0, 255).astype(np.uint8))
