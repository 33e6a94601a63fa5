"""From the name of a data set to a caption set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeclip.data.coco import find_annotations, load_coco
from edgeclip.data.data_settings import DataOptions
from edgeclip.data.folder import find_table, load_table
from edgeclip.data.hub_data import HubRecords, load_hub
from edgeclip.data.records import CaptionSet, TabletopRecords
from edgeclip.data.shards import load_shards
from edgeclip.errors import DataError
from edgeclip.names import BUILTIN, is_hub_id

EVALUATION_WORLD = "evaluation"
TRAINING_WORLD = "train"
"""The built-in teacher is trained on this world only; its scenes never appear in the other."""


def load_data(
    source: str,
    *,
    samples: int,
    seed: int,
    options: DataOptions | None = None,
    training: bool = False,
) -> CaptionSet:
    """Find an image-caption set.

    Args:
        source: `builtin:tabletop`; a folder with a table of captions, COCO annotations, tar shards or parquet files;
            such a file itself; or a hub id.
        samples: how many scenes the built-in world is to have; other sets are returned whole.
        seed: which scenes of the built-in world.
        options: columns and split.
        training: the part to train on, of sets that have several: the built-in world, a hub data set, COCO. By default
            it is the part to evaluate on.

    Raises:
        DataError: there is no such set, or it is empty or malformed; or a split is named of one that has none.
        HubError: a hub id that can't be downloaded.
    """
    captions = _load(source, samples, seed, options or DataOptions(), training)
    if options and options.split and not isinstance(captions.records, HubRecords):
        raise DataError(
            f"`split` {options.split} of {source}",
            expected="a data set of the hub, or parquet files",
            fix="leave it out",
        )
    return captions


def _load(source: str, samples: int, seed: int, options: DataOptions, training: bool) -> CaptionSet:
    if source == BUILTIN:
        return CaptionSet(BUILTIN, TabletopRecords(TRAINING_WORLD if training else EVALUATION_WORLD, seed, samples))
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, options, training)
    if path.is_file():
        return _load_file(path, options, training)
    if is_hub_id(source):
        return load_hub(source, options.split, options.image_column, options.caption_column, training=training)
    raise DataError(
        f"unknown data set {source!r}",
        expected=f"{BUILTIN}, a folder, a captions file, or a hub id",
        fix=f"give the path of one, or {BUILTIN}",
    )


def _load_file(path: Path, options: DataOptions, training: bool) -> CaptionSet:
    if path.suffix == ".json":
        return load_coco(path)
    if path.suffix == ".parquet":
        return load_hub(str(path), options.split, options.image_column, options.caption_column, training=training)
    if path.suffix == ".tar":
        return load_shards([path], options.caption_column)
    return load_table(path, options.image_column, options.caption_column)


def _load_folder(folder: Path, options: DataOptions, training: bool) -> CaptionSet:
    if table := find_table(folder):
        return load_table(table, options.image_column, options.caption_column)
    if annotations := find_annotations(folder, training=training):
        return replace(load_coco(annotations), has_training_part=annotations != find_annotations(folder, training=True))
    if shards := sorted(folder.glob("*.tar")):
        return load_shards(shards, options.caption_column)
    if any(folder.rglob("*.parquet")):
        return load_hub(str(folder), options.split, options.image_column, options.caption_column, training=training)
    raise DataError(
        f"{folder} without captions" if any(folder.iterdir()) else f"{folder}, an empty folder",
        expected="captions.csv, COCO annotations, .tar shards or .parquet files",
        fix="put a captions.csv with the columns image,caption into it",
    )
