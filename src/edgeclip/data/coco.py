"""COCO's captions JSON: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edgeclip.data.image_folders import ImageFolders
from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.data.row_count import RowCount
from edgeclip.errors import MALFORMED, DataError

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


def load_coco(annotations: Path, data: bytes) -> CaptionSet:
    """Read a captions file of this content; its images are looked for beside it and in its split's folder (val2017).

    Each annotation is a row, and so is an image that has none.

    Raises:
        DataError: it is no captions file, has no captions, or has an id twice for different images.
    """
    try:
        parsed = msgspec.json.decode(data, type=_Captions)
    except MALFORMED as error:
        raise DataError(
            f"{annotations} ({error})",
            expected='COCO captions with "images" and "annotations"',
            fix="give annotations/captions_val2017.json or another captions file",
        ) from error
    names = _names(annotations, parsed.images)
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    count = RowCount(str(annotations), read=len(parsed.annotations))
    for number, annotation in enumerate(parsed.annotations):
        name, text = names.get(annotation.image_id), annotation.caption.strip()
        if name is None:
            count.leave_out("of an image that is not listed", f"image_id {annotation.image_id}")
        elif not text:
            count.leave_out("without a caption", f"annotations[{number}]")
        else:
            captions[name].append(text)
    annotated = {names.get(annotation.image_id) for annotation in parsed.annotations}
    for name in captions:
        if name not in annotated:
            count.read += 1
            count.leave_out("without a caption", name)
    if not any(captions.values()):
        raise DataError(
            f"{annotations} without captions ({count})", expected="at least one", fix="give a captions file"
        )
    count.tell()
    images = ImageFolders(_image_folders(annotations))
    records = [Record(name, FileImage(images.find(name)), tuple(texts)) for name, texts in captions.items() if texts]
    images.tell_missing(str(annotations))
    return CaptionSet(annotations.stem, records, rows=count)


def _names(annotations: Path, images: list[_Image]) -> dict[int, str]:
    names: dict[int, str] = {}
    for image in images:
        if names.setdefault(image.id, image.file_name) != image.file_name or not image.file_name:
            raise DataError(
                f"{annotations} with the image id {image.id} for {names[image.id]!r} and {image.file_name!r}",
                expected="one image for each id, with a file_name",
                fix="give each image an id of its own",
            )
    return names


def _image_folders(annotations: Path) -> list[Path]:
    split = SPLIT.search(annotations.name)
    names = [split.group(0)] if split else []
    folders = [
        parent / name
        for parent in (annotations.parent, annotations.parent.parent)
        for name in (*names, "images", *(f"images/{name}" for name in names), "")
    ]
    return [folder for folder in folders if folder.is_dir()]
