"""webdataset shards: tar files in which members of the same name but different ending belong together."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgeclip.data.folder import CAPTION_COLUMNS
from edgeclip.data.records import CaptionSet, Record, same_pictures
from edgeclip.errors import DataError

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm")


@dataclass(frozen=True)
class TarImage:
    """An image inside an uncompressed tar file, found by its offset."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Sample(NamedTuple):
    """What a shard has under one key."""

    key: str
    image: TarImage
    captions: tuple[str, ...]


def load_shards(paths: Sequence[Path], caption_column: str | None) -> CaptionSet:
    """Index tar shards once, so that any sample can be read later without unpacking.

    Samples with the same picture, such as one for each of its captions, are one record; only pictures of equal size are
    read to find them.

    Captions are read from `.txt` (one a line) and from `.json` (`caption_column`, or a usual name; a string or a list).

    Raises:
        DataError: a shard is damaged, or no sample has both an image and a caption.
    """
    samples = [sample for path in paths for sample in _index(path, caption_column)]
    if not samples:
        raise DataError(
            f"{paths[0]}{' and more' if len(paths) > 1 else ''} without an image that has a caption",
            expected="members such as 0001.jpg with 0001.txt or 0001.json",
            fix="put a 0001.txt beside 0001.jpg in the shard",
        )
    sizes = Counter(sample.image.size for sample in samples)
    groups = same_pictures(
        (number, hashlib.sha256(image.read()).digest() if sizes[image.size] > 1 else image.size)
        for number, (_, image, _) in enumerate(samples)
    )
    records = [_merged([samples[number] for number in numbers]) for numbers in groups]
    return CaptionSet(paths[0].stem if len(paths) == 1 else paths[0].parent.name, records)


def _merged(samples: Sequence[Sample]) -> Record:
    """One record, called like the first, with the captions of all."""
    name, image, _ = samples[0]
    return Record(name, image, tuple(caption for sample in samples for caption in sample.captions))


def _index(path: Path, caption_column: str | None) -> list[Sample]:
    images: dict[str, TarImage] = {}
    captions: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if ending.lower() in IMAGE_ENDINGS:
                    images[key] = TarImage(path, member.offset_data, member.size)
                elif ending.lower() in ("txt", "json") and (file := archive.extractfile(member)) is not None:
                    captions.setdefault(key, _captions(file.read(), ending.lower(), caption_column))
    except (OSError, tarfile.TarError, ValueError, RecursionError) as error:
        raise DataError(f"{path} ({error})", expected="an uncompressed tar shard", fix="download it again") from error
    return [Sample(key, image, captions[key]) for key, image in images.items() if captions.get(key)]


def _captions(data: bytes, ending: str, caption_column: str | None) -> tuple[str, ...]:
    if ending == "txt":
        return tuple(line.strip() for line in data.decode("utf-8", "replace").split("\n") if line.strip())
    content = json.loads(data)
    if not isinstance(content, dict):
        return ()
    for name in (caption_column,) if caption_column else CAPTION_COLUMNS:
        value = content.get(name)
        texts = value if isinstance(value, list) else [value]
        if texts and all(isinstance(text, str) for text in texts):
            return tuple(texts)
    return ()
