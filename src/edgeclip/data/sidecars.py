"""A folder in which each image has its captions beside it: 0001.jpg and 0001.txt."""

from __future__ import annotations

import os
from pathlib import Path

from edgeclip.bulk.listing import image_suffixes
from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.data.row_count import RowCount
from edgeclip.errors import DataError
from edgeclip.text_files import decoded, read_bytes

MAX_CAPTION_BYTES = 1_000_000


def load_sidecars(folder: Path) -> CaptionSet | None:
    """The images of a folder, and of those in it, that have a .txt of the same name with a caption a line.

    Returns:
        None where no image has one.
    """
    records: list[Record] = []
    count = RowCount(str(folder))
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        texts = {Path(name).stem for name in names if name.endswith(".txt")}
        images = sorted(name for name in names if Path(name).suffix.lower() in image_suffixes())
        for name in images:
            path = Path(place, name)
            where = str(path.relative_to(folder))
            count.read += 1
            if path.stem not in texts:
                count.leave_out("without a .txt", where)
                continue
            try:
                lines = decoded(read_bytes(path.with_suffix(".txt"), MAX_CAPTION_BYTES), where).split("\n")
            except DataError:
                count.leave_out("with a .txt that can't be read", where)
                continue
            if captions := tuple(line.strip() for line in lines if line.strip()):
                records.append(Record(where, FileImage(path), captions))
            else:
                count.leave_out("without a caption", where)
        for stem in sorted(texts - {Path(name).stem for name in images}):
            count.read += 1
            count.leave_out("without an image", str(Path(place, f"{stem}.txt").relative_to(folder)))
    if not records:
        return None
    count.tell()
    return CaptionSet(folder.name, records, rows=count)
