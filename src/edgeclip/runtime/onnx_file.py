"""The structure of an ONNX file, read without the `onnx` package, and without its weights.

Only the fields that are asked about are followed; weights are views of the mapped file, and never read unless used.

Source: onnx/onnx.proto3, and protobuf's encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeclip.errors import BundleError
from edgeclip.files import printable

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16, DOUBLE = 1, 2, 3, 6, 7, 10, 11
DTYPES: dict[int, type[np.generic]] = {
    FLOAT: np.float32,
    UINT8: np.uint8,
    INT8: np.int8,
    INT32: np.int32,
    INT64: np.int64,
    FLOAT16: np.float16,
    DOUBLE: np.float64,
}
"""By ONNX's number; of other types only the number is known."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 2_000_000
"""Of one file: a ViT-B has 5,000."""
EXTERNAL = 1
Field = tuple[int, "int | memoryview"]


class Tensor(NamedTuple):
    """A constant: ONNX's number of its type, its shape, and its values where they lie in this file (else empty)."""

    dtype: int
    shape: tuple[int, ...]
    data: memoryview
    location: str | None
    """The file beside this one that holds the values."""
    end: int = 0
    """How long that file must be for it."""

    @property
    def size(self) -> int:
        """How many values."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    def array(self) -> NDArray[Any] | None:
        """The values, None where they are elsewhere, of another type or in another form."""
        dtype = DTYPES.get(self.dtype)
        if dtype is None or len(self.data) != self.size * np.dtype(dtype).itemsize:
            return None
        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<")).reshape(self.shape)


class Node(NamedTuple):
    """An operation; `numbers` are its attributes that are whole numbers."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, int]


class Port(NamedTuple):
    """An input or output: name, ONNX's number of its type, and sizes, None where they are free; None for any rank."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxFile:
    """What a file says; nodes and constants of inner graphs and functions are among its own."""

    path: Path
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    left: int = MOST_FIELDS

    @property
    def locations(self) -> dict[str, int]:
        """Names of the files beside this one that hold weights, and how long each must be."""
        ends: dict[str, int] = {}
        for tensor in self.tensors.values():
            if tensor.location is not None:
                ends[tensor.location] = max(tensor.end, ends.get(tensor.location, 0))
        return dict(sorted(ends.items()))


def read_onnx(path: Path) -> OnnxFile:
    """Read a file's structure.

    Raises:
        BundleError: it is missing or no ONNX graph.
    """
    try:
        with path.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = OnnxFile(path)
        for number, value in _fields(whole, found):
            if number == 7:
                _graph(_bytes(value), found, outer=True)
            elif number == 25:  # a function
                _graph(_bytes(value), found, outer=False, node=7)
        if not found.nodes or not found.outputs:
            raise ValueError("no graph in it")  # noqa: TRY301 - one line for all that is wrong with a file
    except (OSError, ValueError, IndexError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BundleError(
            f"{printable(str(path))} ({reason})", expected="an ONNX graph", fix="copy or download it again"
        ) from error
    constants = found.tensors.keys()
    found.inputs = [port for port in found.inputs if port.name not in constants]  # as graphs before IR 4 list them
    return found


def _fields(data: memoryview, found: OnnxFile) -> Iterator[Field]:
    """The fields of one message: number, and the value or its bytes."""
    at, end = 0, len(data)
    while at < end:
        found.left -= 1
        if found.left < 0:
            raise ValueError("more fields than any graph has")
        key, at = _varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError("not in protobuf's form")
        if at + size > end:
            raise ValueError("cut short")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("not in protobuf's form")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("not in ONNX's form")  # noqa: TRY004 - of the file, not of a caller
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("not in ONNX's form")  # noqa: TRY004 - of the file, not of a caller
    return value - (1 << 64) if value >= 1 << 63 else value


def _graph(data: memoryview, found: OnnxFile, *, outer: bool, node: int = 1) -> None:
    for number, value in _fields(data, found):
        if number == node:
            _node(_bytes(value), found)
        elif number == 5 and node == 1:
            name, tensor = _tensor(_bytes(value), found)
            found.tensors[name] = tensor
        elif number == 11 and outer:
            found.inputs.append(_port(_bytes(value), found))
        elif number == 12 and outer:
            found.outputs.append(_port(_bytes(value), found))


def _node(data: memoryview, found: OnnxFile) -> None:
    names: dict[int, list[str]] = {1: [], 2: [], 4: []}
    numbers: dict[str, int] = {}
    constants: list[Tensor] = []
    for number, value in _fields(data, found):
        if number in names:
            names[number].append(_text(value))
        elif number == 5:
            _attribute(_bytes(value), found, numbers, constants)
    op = names[4][0] if names[4] else ""
    if op == "Constant" and constants and names[2]:
        found.tensors[names[2][0]] = constants[0]
    else:
        found.nodes.append(Node(op, tuple(names[1]), tuple(names[2]), numbers))


def _attribute(data: memoryview, found: OnnxFile, numbers: dict[str, int], constants: list[Tensor]) -> None:
    name = ""
    for number, value in _fields(data, found):
        if number == 1:
            name = _text(value)
        elif number == 3:
            numbers[name] = _number(value)
        elif number == 5:
            constants.append(_tensor(_bytes(value), found)[1])
        elif number in (6, 11):  # an inner graph, or several
            _graph(_bytes(value), found, outer=False)


def _tensor(data: memoryview, found: OnnxFile) -> tuple[str, Tensor]:
    name, dtype, shape = "", 0, list[int]()
    values, told, is_external = memoryview(b""), dict[str, str](), False
    for number, value in _fields(data, found):
        if number == 1:
            shape += [_number(value)] if isinstance(value, int) else _packed(value)
        elif number == 2:
            dtype = _number(value)
        elif number == 8:
            name = _text(value)
        elif number in (4, 9):  # float32 in a row, or bytes of any type
            values = _bytes(value)
        elif number == 13:
            entry = {n: _text(v) for n, v in _fields(_bytes(value), found)}
            told[entry.get(1, "")] = entry.get(2, "")
        elif number == 14:
            is_external = value == EXTERNAL
    if any(length < 0 for length in shape):
        raise ValueError("a constant of a negative size")
    if not is_external:
        return name, Tensor(dtype, tuple(shape), values, None)
    place = [told.get(key, "0") for key in ("offset", "length")]
    if not all(number.isdecimal() for number in place):
        raise ValueError(f"weights at offset {place[0]}, {place[1]} bytes long")
    return name, Tensor(dtype, tuple(shape), values, told.get("location", ""), sum(map(int, place)))


def _packed(data: memoryview) -> list[int]:
    values, at = list[int](), 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _port(data: memoryview, found: OnnxFile) -> Port:
    name, dtype, shape = "", 0, None
    for number, value in _fields(data, found):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, tensor in _fields(_bytes(value), found):
                if kind == 1:
                    dtype, shape = _tensor_type(_bytes(tensor), found)
    return Port(name, dtype, shape)


def _tensor_type(data: memoryview, found: OnnxFile) -> tuple[int, tuple[int | None, ...] | None]:
    dtype, shape = 0, None
    for number, value in _fields(data, found):
        if number == 1:
            dtype = _number(value)
        elif number == 2:
            sizes = [_bytes(size) for kind, size in _fields(_bytes(value), found) if kind == 1]
            shape = tuple(_size(size, found) for size in sizes)
    return dtype, shape


def _size(data: memoryview, found: OnnxFile) -> int | None:
    """A size that is fixed; the others have a name, none, or -1."""
    value = dict(_fields(data, found)).get(1, 0)
    return max(_number(value), 0) or None
