"""Tensors from files of `torch.save`, in both of its formats, and of TorchScript; no code in them is run."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from edgeclip.checkpoint.pickled import (
    MAX_NAME,
    MAX_STEPS,
    BoundedFile,
    Contents,
    Other,
    RefusedError,
    ScriptObject,
    Storage,
    StoredTensor,
    read_pickle,
)

MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of a file in the format from before PyTorch 1.6."""
PROTO, ZIP, GIT_LFS = b"\x80", b"PK\x03\x04", b"version https://git-lfs"
"""How files begin: of that format, of the later one, and a pointer to a file that was not fetched."""
LOCAL_HEADER = 30
"""Bytes before the name of a member, in a zip."""
UTF_8 = 1 << 11
"""The flag of a member whose name is in UTF-8."""
MAX_DIRECTORY = 8 << 20
"""Bytes of a zip's directory: over 50,000 tensors."""
MAX_NAMES = 50_000
MAX_SHARING = 2
"""How many times the file's size its tensors may have, where some share their memory."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""What training scripts keep the weights under, one inside another."""

Locate = Callable[[Storage], int]
"""Where in the file a storage begins."""


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name, and the classes of a TorchScript archive's modules, such as "QuickGELU".

    `is_apples` is whether the names were those of Apple's MobileCLIP, before they became open_clip's.
    """

    tensors: dict[str, Tensor]
    classes: frozenset[str] = frozenset()
    is_apples: bool = False

    @property
    def is_hugging_face(self) -> bool:
        """Whether the names are those of transformers, or our own for what it has not."""
        return any(name.startswith(("vision_model.", "text_model.", "vision.")) for name in self.tensors)


def read_torch_file(path: Path) -> TensorFile:
    """Read the tensors by name that a file holds, alone or beside what else a training script keeps.

    Raises:
        RefusedError: it holds what is neither a tensor nor data, or no tensors by name.
        OSError, ValueError, zipfile.BadZipFile: it cannot be read or is damaged.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(GIT_LFS))
        file.seek(0)
        if start == GIT_LFS:
            raise ValueError("what git-lfs leaves in a file's place")
        if start[:1] != PROTO and start[:4] != ZIP:
            raise ValueError("neither safetensors nor one of PyTorch's formats")
        contents, locate = _read_zip(file) if start[:4] == ZIP else _read_legacy(file)
        value = contents.value
        found = _flat(value) if isinstance(value, ScriptObject) else _unwrapped(value)
        unusable = [name for name, value in found.items() if not isinstance(value, StoredTensor)]
        if unusable or not found:
            raise RefusedError(_described(found, unusable))
        if sum(_bytes(t.storage.dtype, math.prod(t.size)) for t in found.values()) > MAX_SHARING * size:
            raise ValueError("tensors of more than its size")
        return TensorFile(_tensors(file, found, locate, size), contents.classes)


def _read_zip(file: BinaryIO) -> tuple[Contents, Locate]:
    """The object in a zip, which holds each storage uncompressed as a member of its own."""
    with zipfile.ZipFile(_Directory(file)) as archive:
        members = {info.filename: info for info in archive.infolist()}
    root = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
    if root is None:
        raise ValueError("a zip without data.pkl")

    def begin(name: str, length: int) -> int:
        info = members.get(root + name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < length:
            raise ValueError(f"a zip whose {name} is missing, compressed or too short")
        file.seek(info.header_offset)
        called = info.orig_filename.encode("utf-8" if info.flag_bits & UTF_8 else "cp437")
        header = file.read(LOCAL_HEADER + len(called))
        named, further = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != ZIP or header[LOCAL_HEADER:] != called or named != len(called):
            raise ValueError(f"a zip whose {name} is elsewhere")
        return info.header_offset + LOCAL_HEADER + named + further

    if "byteorder" in (name.removeprefix(root) for name in members):
        file.seek(begin("byteorder", 3))
        if file.read(3) == b"big":
            raise RefusedError("numbers in big-endian order")
    file.seek(begin("data.pkl", 0))
    contents = read_pickle(BoundedFile(file))
    return contents, lambda storage: begin(f"data/{storage.key}", _bytes(storage.dtype, storage.numel))


class _Directory:
    """A zip as the reader of its directory sees it: at most `MAX_DIRECTORY` bytes are read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise RefusedError(f"a zip whose directory has more than {MAX_DIRECTORY >> 20} MB")
        return self._read(size if size >= 0 else MAX_DIRECTORY)


def _read_legacy(file: BinaryIO) -> tuple[Contents, Locate]:
    """Five pickles, the fourth the object and the fifth the order of the storages that follow."""
    bounded = BoundedFile(file)
    if read_pickle(bounded).value != MAGIC:
        raise ValueError("neither of PyTorch's formats")
    _version, written_by = read_pickle(bounded).value, read_pickle(bounded).value
    if not isinstance(written_by, dict) or written_by.get("little_endian") is not True:
        raise RefusedError("numbers in big-endian order")
    contents, keys = read_pickle(bounded), read_pickle(bounded).value
    storages = contents.storages
    if not isinstance(keys, list) or set(map(type, keys)) - {str} or sorted(keys) != sorted(storages):
        raise ValueError("a list of other storages than its tensors have")
    begins: dict[str, int] = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        if length != storages[key].numel:
            raise ValueError(f"the storage {key} of {length} elements, not {storages[key].numel}")
        begins[key] = file.tell()
        file.seek(_bytes(storages[key].dtype, length), os.SEEK_CUR)
    return contents, lambda storage: begins[storage.key]


def _bytes(dtype: str, numel: int) -> int:
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size() * numel


def _unwrapped(contents: Any) -> dict[str, Any]:
    """The innermost dict under `WRAPPERS`."""
    for _ in WRAPPERS:
        inner = [
            contents[name] for name in WRAPPERS if isinstance(contents, dict) and isinstance(contents.get(name), dict)
        ]
        contents = inner[0] if inner else contents
    if not isinstance(contents, dict):
        raise RefusedError(f"{type(contents).__name__}, not tensors by name")
    return contents


def _flat(script: ScriptObject) -> dict[str, StoredTensor]:
    """The tensors of a TorchScript module and of the modules in it, by dotted name."""
    found: dict[str, StoredTensor] = {}
    modules, steps = [("", script)], 0
    for prefix, module in modules:  # which grows meanwhile
        steps += len(module.attributes)
        for attribute, value in module.attributes.items():
            name = prefix + attribute
            if isinstance(value, StoredTensor):
                found[name] = value
            elif isinstance(value, ScriptObject):
                modules.append((f"{name}.", value))
            if len(name) > MAX_NAME or len(modules) + len(found) > MAX_NAMES or steps > MAX_STEPS:
                raise RefusedError("modules within modules without an end")
    return found


def _described(found: dict[str, Any], unusable: list[str]) -> str:
    """Why these are not tensors by name."""
    if not found:
        return "no tensors by name"
    value = found[unusable[0]]
    what = value.what if isinstance(value, Other) else type(value).__name__
    return f"{what} under {unusable[0]!r}, not a tensor"


def _tensors(file: BinaryIO, found: dict[str, StoredTensor], locate: Locate, size: int) -> dict[str, Tensor]:
    """Read the storages of these tensors, each once."""
    storages: dict[str, Tensor] = {}
    for stored in found.values():
        storage = stored.storage
        if storage.key not in storages:
            begin, length = locate(storage), _bytes(storage.dtype, storage.numel)
            if begin + length > size:
                raise ValueError(f"the storage {storage.key} beyond its end")
            file.seek(begin)
            memory = torch.empty(length, dtype=torch.uint8)
            if file.readinto(memory.numpy()) != length:  # type: ignore[attr-defined]
                raise ValueError(f"the storage {storage.key} cut off")
            storages[storage.key] = memory.view(getattr(torch, storage.dtype))
    return {
        name: storages[stored.storage.key].as_strided(stored.size, stored.stride, stored.offset)
        for name, stored in found.items()
    }
