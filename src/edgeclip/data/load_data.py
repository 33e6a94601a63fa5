"""From the name of a data set to a caption set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeclip.data.coco import find_annotations, load_coco
from edgeclip.data.data_settings import DataOptions
from edgeclip.data.folder import find_table, load_table
from edgeclip.data.hub_data import load_hub
from edgeclip.data.karpathy import is_karpathy, load_karpathy
from edgeclip.data.pictures import load_pictures
from edgeclip.data.records import CaptionSet, TabletopRecords
from edgeclip.data.shards import load_shards
from edgeclip.data.sidecars import load_sidecars
from edgeclip.errors import DataError
from edgeclip.names import BUILTIN, is_hub_id
from edgeclip.text_files import read_bytes

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
    without_captions: bool = False,
) -> CaptionSet:
    """Find an image-caption set.

    Args:
        source: `builtin:tabletop`; a folder with a table of captions, COCO annotations, tar shards, parquet files,
            Karpathy's splits or a .txt beside each image; such a file itself; or a hub id.
        samples: how many scenes the built-in world is to have; other sets are returned whole.
        seed: which scenes of the built-in world.
        options: columns and split.
        training: the part to train on, of sets that have several: the built-in world, a hub data set, COCO. By default
            it is the part to evaluate on.
        without_captions: take a folder of pictures too, see `pictures`.

    Raises:
        DataError: there is no such set, or it is empty or malformed; or a split is named of one that has none.
        HubError: a hub id that can't be downloaded.
    """
    captions = _load(source, samples, seed, options or DataOptions(), training, without_captions)
    if options and options.split and not captions.has_splits:
        raise DataError(
            f"`split` {options.split} of {source}",
            expected="a data set of the hub, parquet files, or Karpathy's splits",
            fix="leave it out",
        )
    return captions


def _load(
    source: str, samples: int, seed: int, options: DataOptions, training: bool, without_captions: bool
) -> CaptionSet:
    if source == BUILTIN:
        return CaptionSet(BUILTIN, TabletopRecords(TRAINING_WORLD if training else EVALUATION_WORLD, seed, samples))
    path = Path(source)
    if path.is_dir():
        if captions := _load_folder(path, options, training):
            return captions
        if len(tables := sorted(path.glob("*.csv"))) > 1:
            raise DataError(
                f"{path} with {len(tables)} tables",
                expected="one, or one that is named captions.csv",
                fix=f"give `data` {tables[0]}, or that which has the captions",
            )
        if without_captions and (pictures := load_pictures(path, seed)):
            return pictures
        raise DataError(
            f"{path} without captions" if any(path.iterdir()) else f"{path}, an empty folder",
            expected="captions.csv, COCO annotations, .tar shards, .parquet files, or a .txt beside each image"
            + (", or pictures" if without_captions else ""),
            fix="put a captions.csv with the columns image,caption into it",
        )
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
        return _load_json(path, options, training)
    if path.suffix == ".parquet":
        return load_hub(str(path), options.split, options.image_column, options.caption_column, training=training)
    if path.suffix == ".tar":
        return load_shards([path], options.caption_column)
    return load_table(path, options.image_column, options.caption_column)


def _load_json(path: Path, options: DataOptions, training: bool) -> CaptionSet:
    data = read_bytes(path)
    return load_karpathy(path, data, options.split, training=training) if is_karpathy(data) else load_coco(path, data)


def _load_folder(folder: Path, options: DataOptions, training: bool) -> CaptionSet | None:
    """None where it has no captions."""
    if table := find_table(folder):
        return load_table(table, options.image_column, options.caption_column)
    if annotations := find_annotations(folder, training=training):
        captions = _load_json(annotations, options, training)
        return replace(captions, has_training_part=annotations != find_annotations(folder, training=True))
    if shards := sorted(folder.glob("*.tar")):
        return load_shards(shards, options.caption_column)
    if any(folder.rglob("*.parquet")):
        return load_hub(str(folder), options.split, options.image_column, options.caption_column, training=training)
    if len(splits := sorted(folder.glob("dataset*.json"))) == 1:
        return _load_json(splits[0], options, training)
    return load_sidecars(folder)
