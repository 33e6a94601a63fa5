"""Read tensors from safetensors, or from pickles that can hold only tensors."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from edgeclip.bundle import MANIFEST
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import read_json, section

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What the readers of safetensors and pickles raise for damaged files."""


def read_weights(folder: Path, stem: str, pickle_stem: str) -> tuple[dict[str, Tensor], str]:
    """Read a folder's weights: one safetensors file, shards with an index, or a pickle; in this order.

    Args:
        folder: where they are.
        stem: name of the safetensors file without its ending.
        pickle_stem: name of the pickle without ".bin".

    Returns:
        The tensors by name, and which kind of file they came from.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
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
    raise CheckpointError(
        f"{folder} without weights",
        expected=f"{stem}.safetensors, its shards, or {pickle_stem}.bin",
        fix="download the weights too",
    )


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    weight_map = section(read_json(index), "weight_map", index)
    state: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{index} naming the shard {name!r}", expected="a file beside it", fix="download the index again"
            )
        state.update(read_tensors(folder / name))
    absent = sorted(set(weight_map) - set(state))
    if absent:
        raise CheckpointError(
            f"{index}, whose shards lack {', '.join(absent[:8])}", expected="all of its tensors", fix="download again"
        )
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read one file of tensors. Pickles are read with PyTorch's restricted unpickler, never executed.

    Raises:
        CheckpointError: it is missing, truncated, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason})", expected="an intact file of tensors", fix="download it again"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(
            f"{path} holding {type(state).__name__}", expected="tensors by name", fix="export them first"
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _is_torchscript(path: Path) -> bool:
    """OpenAI's archives are TorchScript: a zip with a constants file, whose loader runs no Python."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
