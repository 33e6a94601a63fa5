"""Read tensors by name from safetensors, or from PyTorch's files without running anything in them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edgeclip.checkpoint.pickled import RefusedError
from edgeclip.checkpoint.torch_file import TensorFile, read_torch_file
from edgeclip.errors import DAMAGED, CheckpointError
from edgeclip.hf_json import read_json, section, shown
from edgeclip.manifest import MANIFEST

UNREADABLE = (*DAMAGED, SafetensorError, zipfile.BadZipFile)
"""What the readers of safetensors and of PyTorch's files raise for damaged ones."""
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Of files that may hold weights, and are read whatever they are called where they are given by name."""
PREFIXES = ("module.", "model.")
"""What DataParallel and training frameworks put before every name."""


def read_weights(folder: Path, names: Sequence[tuple[str, str]]) -> tuple[TensorFile, str]:
    """Read a folder's weights: one safetensors file, shards with an index, or a pickle; in this order.

    Args:
        folder: where they are.
        names: what they may be called, without endings: of each pair the first is safetensors, the second a pickle.

    Returns:
        The tensors by name, and which kind of file they came from.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    for stem, pickle_stem in names:
        if (folder / f"{stem}.safetensors").is_file():
            return read_tensors(folder / f"{stem}.safetensors"), "safetensors"
        if (folder / f"{stem}.safetensors.index.json").is_file():
            return _read_shards(folder, folder / f"{stem}.safetensors.index.json"), "safetensors shards"
        if (folder / f"{pickle_stem}.bin").is_file():
            return read_tensors(folder / f"{pickle_stem}.bin"), "pickle"
        if (folder / f"{pickle_stem}.bin.index.json").is_file():
            return _read_shards(folder, folder / f"{pickle_stem}.bin.index.json"), "pickle shards"
    if (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder}, which is a bundle", expected="a checkpoint", fix="give the one that it was made from"
        )
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS_SUFFIXES)
    stem, pickle_stem = names[0]
    raise CheckpointError(
        f"{folder} without weights",
        expected=f"{stem}.safetensors, its shards, or {pickle_stem}.bin",
        fix=f"give {others[0]} if it holds them" if others else "download the weights too",
    )


def _read_shards(folder: Path, index: Path) -> TensorFile:
    weight_map = section(read_json(index), "weight_map", index)
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{index} naming the shard {shown(name)}", expected="a file beside it", fix="download the index again"
            )
    state: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        state.update(_read_file(folder / name).tensors)
    absent = sorted(set(weight_map) - set(state))
    if absent:
        raise CheckpointError(
            f"{index}, whose shards lack {', '.join(absent[:8])}", expected="all of its tensors", fix="download again"
        )
    return TensorFile(_without_prefixes(state, index))


def read_tensors(path: Path) -> TensorFile:
    """Read one file of tensors by name; what training scripts put around the names or the weights is taken off.

    Raises:
        CheckpointError: it is missing or damaged, or holds anything but tensors and plain data.
    """
    found = _read_file(path)
    return TensorFile(_without_prefixes(found.tensors, path), found.classes)


def _read_file(path: Path) -> TensorFile:
    try:
        return TensorFile(load_file(path)) if _is_safetensors(path) else read_torch_file(path)
    except RefusedError as error:
        raise CheckpointError(
            f"{path} holding {error}",
            expected="tensors by name",
            fix="save the weights alone, with torch.save(model.state_dict(), file)",
        ) from error
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason})", expected="an intact file of tensors", fix="download it again"
        ) from error


def _is_safetensors(path: Path) -> bool:
    """Whether it begins as they do: the length of a JSON object, and that."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _without_prefixes(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take off what wrappers put before every name, and torch.compile before those of the parts that it compiled."""
    names = [name.replace("_orig_mod.", "") for name in state]
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(prefix) for name in names]
    if len(set(names)) < len(names):
        raise CheckpointError(
            f"{path} with tensors of the same name, compiled and not",
            expected="each once",
            fix="save the weights alone, with torch.save(model.state_dict(), file)",
        )
    return dict(zip(names, state.values(), strict=True))
