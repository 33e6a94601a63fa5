"""webdataset shards: tar files in which members of the same name but different ending belong together."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgeclip.bulk.listing import image_suffixes
from edgeclip.data.folder import CAPTION_COLUMNS
from edgeclip.data.records import CaptionSet, Record, same_pictures, texts_in
from edgeclip.data.row_count import RowCount
from edgeclip.errors import MALFORMED, DataError
from edgeclip.files import printable
from edgeclip.text_files import encoding_of

MAX_IMAGE_BYTES = 200_000_000
MAX_CAPTION_BYTES = 1_000_000
"""Larger members are left out: nothing else limits what a shard may have read into memory."""


@dataclass(frozen=True)
class TarMember:
    """A member of an uncompressed tar file, found by its offset."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class _Limited(io.FileIO):
    """A file of which nothing large is read at once: a header of a tar file may say that it has gigabytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
            OSError: more than `MAX_CAPTION_BYTES` are asked for.
        """
        if size is None or not 0 <= size <= MAX_CAPTION_BYTES:
            raise OSError("a header of more than 1 MB")
        return super().read(size)


@dataclass
class Sample:
    """What a shard has under one key: its image, its captions by ending, and what keeps it from being a pair."""

    key: str
    image: TarMember | None = None
    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    trouble: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The captions: those of .txt, or else those of .json."""
        return self.captions.get("txt") or self.captions.get("json") or ()


def load_shards(paths: Sequence[Path], caption_column: str | None) -> CaptionSet:
    """Index tar shards once, so that any sample can be read later without unpacking.

    Samples with the same picture, such as one for each of its captions, are one record; only pictures of equal size are
    read to find them.

    Captions are read from `.txt` (one a line) and else from `.json` (`caption_column`, or a usual name; a string or a
    list). A sample is what has the same name up to its first dot, as in webdataset.

    Raises:
        DataError: a shard is damaged, or no sample has both an image and a caption.
    """
    count = RowCount(str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)")
    pairs: list[tuple[str, TarMember, tuple[str, ...]]] = []
    for path in paths:
        for sample in _index(path, caption_column):
            count.read += 1
            if sample.trouble or not sample.image or not sample.texts:
                lacking = "without a caption" if sample.image else "without an image"
                count.leave_out(sample.trouble or lacking, printable(f"{sample.key} in {path.name}"))
            else:
                pairs.append((printable(sample.key), sample.image, sample.texts))
    if not pairs:
        raise DataError(
            f"{count.source} without an image that has a caption ({count})",
            expected="members such as 0001.jpg with 0001.txt or 0001.json",
            fix="put a 0001.txt beside 0001.jpg in the shard",
        )
    count.tell()
    sizes = Counter(image.size for _, image, _ in pairs)
    groups = same_pictures(
        (number, hashlib.sha256(image.read()).digest() if sizes[image.size] > 1 else image.size)
        for number, (_, image, _) in enumerate(pairs)
    )
    records = [
        Record(*pairs[numbers[0]][:2], tuple(text for number in numbers for text in pairs[number][2]))
        for numbers in groups
    ]
    return CaptionSet(paths[0].stem if len(paths) == 1 else paths[0].parent.name, records, rows=count)


def _index(path: Path, caption_column: str | None) -> list[Sample]:
    samples: list[Sample] = []
    latest: dict[str, Sample] = {}
    try:
        with _Limited(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in _members(archive):
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
                is_image = f".{ending}" in image_suffixes()
                if key not in latest or (is_image and latest[key].image and latest[key].texts):
                    latest[key] = Sample(key)
                    samples.append(latest[key])
                if is_image or ending in ("txt", "json"):
                    _add(latest[key], path, member, ending, caption_column)
            file.seek(archive.offset)
            if file.read(MAX_CAPTION_BYTES).strip(b"\0"):  # where `tarfile` takes whatever it can't read for the end
                raise tarfile.ReadError(f"what follows byte {archive.offset} is no member")
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"{path} ({error})", expected="one uncompressed tar shard", fix="download it again") from error
    return samples


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    end = 0
    for member in archive:
        if member.offset_data <= end:  # a negative size leads back to where it was read
            raise tarfile.ReadError("a member of negative size")
        end = member.offset_data
        if not member.isdir():
            yield member


def _add(sample: Sample, path: Path, member: tarfile.TarInfo, ending: str, caption_column: str | None) -> None:
    """Note what an image or a file of captions adds to its sample."""
    content = TarMember(path, member.offset_data, member.size)
    is_image = ending not in ("txt", "json")
    largest = MAX_IMAGE_BYTES if is_image else MAX_CAPTION_BYTES
    if not member.isreg() or member.issparse():
        sample.trouble = "with a link or another special member"
    elif member.size > largest:
        sample.trouble = f"with a member of more than {largest // 10**6} MB"
    elif not is_image:
        try:
            sample.captions[ending] = _captions(content.read(), ending, caption_column)
        except MALFORMED:
            sample.trouble = f"with a .{ending} that can't be read"
    elif sample.image:
        sample.trouble = "with several images"
    else:
        sample.image = content


def _captions(data: bytes, ending: str, caption_column: str | None) -> tuple[str, ...]:
    if ending == "txt":
        lines = data.decode(encoding_of(data)).split("\n")
        return tuple(line.strip() for line in lines if line.strip())
    content = msgspec.json.decode(data)
    if not isinstance(content, dict):
        return ()
    usual = (caption_column,) if caption_column else CAPTION_COLUMNS
    return next((texts for name in usual if (texts := texts_in(content.get(name)))), ())
