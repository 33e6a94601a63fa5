"""A folder of pictures without captions, each beside a text of the built-in list, which need not fit it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from edgeclip.bulk.listing import image_suffixes
from edgeclip.data.records import CaptionSet, FileImage, Record, same_pictures
from edgeclip.data.row_count import RowCount

TEXTS = "texts.txt"
"""In `edgeclip.assets`: what people and their cameras have to do with, a text a line, no two alike."""


def built_in_texts() -> list[str]:
    """The list, in its order."""
    return files("edgeclip.assets").joinpath(TEXTS).read_text(encoding="utf-8").splitlines()


def load_pictures(folder: Path, seed: int) -> CaptionSet | None:
    """As many pictures of a folder, and of those in it, as there are texts, chosen by the seed; copies count once.

    Returns:
        None where there is no picture.
    """
    paths = [
        Path(place, name)
        for place, subfolders, names in _walk(folder)
        for name in sorted(names)
        if Path(name).suffix.lower() in image_suffixes()
    ]
    if not paths:
        return None
    rng = np.random.default_rng(seed)
    texts = rng.permutation(built_in_texts()).tolist()
    taken = [paths[number] for number in rng.permutation(len(paths))[: len(texts)]]
    alike = same_pictures(enumerate(_content(taken)))
    different = [taken[numbers[0]] for numbers in alike]
    count = RowCount(str(folder), read=len(taken))
    for copies in alike:
        for number in copies[1:]:
            count.leave_out("copies of others", str(taken[number].relative_to(folder)))
    count.tell()
    records = [
        Record(str(path.relative_to(folder)), FileImage(path), (text,))
        for path, text in zip(different, texts, strict=False)
    ]
    return CaptionSet(folder.name, records, rows=count, captioned=False)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield place, subfolders, names


def _content(paths: list[Path]) -> list[Hashable]:
    """What tells pictures apart: their sizes, and of those of one size what is in them."""
    sizes = [path.stat().st_size for path in paths]
    often = Counter(sizes)
    return [
        hashlib.sha256(path.read_bytes()).digest() if often[size] > 1 else size
        for path, size in zip(paths, sizes, strict=True)
    ]
