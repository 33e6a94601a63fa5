"""COCO's captions JSON: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.errors import DataError

SPLIT = re.compile(r"(train|val|test)\d{4}")


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: int
    caption: str


class _Captions(msgspec.Struct):
    """The parts that are read; COCO files carry more."""

    images: list[_Image]
    annotations: list[_Annotation]


def find_annotations(folder: Path, *, training: bool) -> Path | None:
    """The captions file of a COCO folder; of several one with its images, and the part to train or validate on."""
    found = sorted([*folder.glob("annotations/captions*.json"), *folder.glob("*captions*.json")])
    wanted = "train" if training else "val"

    def misfits(path: Path) -> tuple[bool, bool]:
        split, part = SPLIT.search(path.name), re.search("train|val", path.name)
        folders = [folder / split.group(0), folder / "images" / split.group(0)] if split else []
        return not any(map(Path.is_dir, folders)), part is None or part.group(0) != wanted

    return min(found, key=misfits, default=None)


def load_coco(annotations: Path) -> CaptionSet:
    """Read a captions file; images are looked for beside it and in the folder of its split (such as val2017).

    Raises:
        DataError: it can't be read, is no captions file, or has no captions.
    """
    try:
        parsed = msgspec.json.decode(annotations.read_bytes(), type=_Captions)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise DataError(
            f"{annotations} ({error})",
            expected='COCO captions with "images" and "annotations"',
            fix="give annotations/captions_val2017.json or another captions file",
        ) from error
    captions: dict[int, list[str]] = {}
    for annotation in parsed.annotations:
        captions.setdefault(annotation.image_id, []).append(annotation.caption.strip())
    by_id = {image.id: image for image in parsed.images}
    captioned = [image for image in by_id.values() if image.id in captions]
    if not captioned:
        raise DataError(f"{annotations} without captions", expected="at least one", fix="give a captions file")
    base = _image_folder(annotations, captioned[0].file_name)
    records = [
        Record(image.file_name, FileImage(base / image.file_name), tuple(captions[image.id])) for image in captioned
    ]
    return CaptionSet(annotations.stem, records)


def _image_folder(annotations: Path, example: str) -> Path:
    split = SPLIT.search(annotations.name)
    names = [split.group(0)] if split else []
    for parent in (annotations.parent, annotations.parent.parent):
        for name in (*names, "images", *(f"images/{name}" for name in names), ""):
            if (parent / name / example).is_file():
                return parent / name
    return annotations.parent
