"""Karpathy's splits of COCO, Flickr8k and Flickr30k: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeclip.data.folder import IMAGE_FOLDERS
from edgeclip.data.hub_data import EVALUATION_SPLITS, TRAINING_SPLITS, choose_split
from edgeclip.data.image_folders import ImageFolders
from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.data.row_count import RowCount
from edgeclip.errors import MALFORMED, DataError

MERGED = {"restval": "train"}
"""What COCO has left of its validation part is trained on."""


class _Sentence(msgspec.Struct):
    raw: str


class _Image(msgspec.Struct):
    filename: str
    sentences: list[_Sentence]
    split: str
    filepath: str = ""


class _Splits(msgspec.Struct):
    """The parts that are read; the files carry tokens too."""

    images: list[_Image]


def is_karpathy(data: bytes) -> bool:
    """Whether a JSON file is such a one and not COCO's own."""
    return b'"sentences"' in data and b'"annotations"' not in data


def load_karpathy(path: Path, data: bytes, split: str | None, *, training: bool) -> CaptionSet:
    """One split; where none is named, the usual one to train on, or to evaluate on. Each sentence is a row.

    Raises:
        DataError: it can't be read, or has no such split or no captions in it.
    """
    try:
        parsed = msgspec.json.decode(data, type=_Splits)
    except MALFORMED as error:
        raise DataError(f"{path} ({error})", expected="Karpathy's splits", fix="download it again") from error
    splits: dict[str, list[_Image]] = {}
    for image in parsed.images:
        splits.setdefault(MERGED.get(image.split, image.split), []).append(image)
    images = choose_split(splits, split, TRAINING_SPLITS if training else EVALUATION_SPLITS, str(path))
    captions: dict[tuple[str, str], list[str]] = {}
    count = RowCount(str(path))
    for image in images:
        texts = [sentence.raw.strip() for sentence in image.sentences]
        count.read += len(texts) or 1
        for _ in range(texts.count("") or not texts):
            count.leave_out("without a caption", image.filename)
        captions.setdefault((image.filepath, image.filename), []).extend(filter(None, texts))
    if not any(captions.values()):
        raise DataError(f"{path} without captions ({count})", expected="at least one", fix="download it again")
    count.tell()
    folders = [parent / name for parent in (path.parent, path.parent.parent) for name in IMAGE_FOLDERS]
    finder = ImageFolders([folder for folder in folders if folder.is_dir()])
    records = [
        Record(name, FileImage(finder.find(name, f"{folder}/{name}")), tuple(texts))
        for (folder, name), texts in captions.items()
        if texts
    ]
    finder.tell_missing(str(path))
    has_training_part = (
        not split and not training and len(splits) > 1 and any(name in splits for name in TRAINING_SPLITS)
    )
    return CaptionSet(path.stem, records, has_training_part, rows=count, has_splits=True)
