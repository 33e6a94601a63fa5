"""An interpreter of pickles that makes tensors' descriptions, containers and plain values, and can do nothing else.

`pickletools` parses; the opcodes that files of tensors use are carried out here. A name is looked up in a table and
never imported, so nothing in a file can run; time and memory are bounded by `MAX_STEPS` and `MAX_BYTES`. The formats:
PyTorch's `torch/serialization.py`, and `torch/csrc/jit/docs/serialization.md` for TorchScript.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_BYTES = 32 << 20
MAX_STEPS = 1_000_000
"""Twenty times what a training checkpoint of a ViT-H with its optimizer takes."""
MAX_DIMENSIONS = 8
MAX_ARGUMENTS = 7
"""Of the call that makes a tensor; a step with many more would take long."""
MAX_NUMBER = 1 << 62
"""Of elements; products of numbers of a million digits would take hours."""
MAX_NAME = 1_000
"""Letters in the name of a class or a tensor."""

SCRIPT = "__torch__"
"""The package of all classes in a TorchScript archive."""
PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes that push their argument."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
CONTAINERS = {"collections.OrderedDict", "collections.defaultdict"}
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
"""A tensor that a script has given attributes: the call that makes it, its class, that call's arguments, and they."""
WRAPPED = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.Size"}
"""Calls whose value is, for a reader of tensors, their first argument; as are TorchScript's (`torch.jit._pickle`)."""
PLAIN = (
    *("Ellipsis", "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long"),
    *("object", "range", "set", "slice", "str", "tuple", "unicode"),
)
DATA = {
    *("_codecs.encode", "argparse.Namespace", "re._compile", "types.SimpleNamespace", "uuid.UUID"),
    *("numpy.dtype", "numpy.ndarray", "torch.Generator", "torch._C.Generator", "torch.device"),
    *("torch.nn.parameter.Parameter", "torch.storage.UntypedStorage", "torch.serialization._get_layout"),
    *(f"pathlib.{path}" for path in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in PLAIN),
}
"""What training scripts keep beside the weights. None of it is imported or made: it becomes `Other`."""
NAMES = CONTAINERS | TENSORS | WRAPPED | DATA
DATA_PREFIXES = (
    *("collections.", "datetime.", "decimal.", "fractions.", "zoneinfo."),
    *("numpy.core.multiarray.", "numpy._core.multiarray.", "numpy._core.numeric.", "numpy.dtypes.", "numpy.ma."),
    *("numpy.random.", "torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.torch_version.", "typing."),
    *("omegaconf.", "lightning.", "lightning_fabric.", "pytorch_lightning."),
)
TYPES = (
    *("Storage", "Tensor", "float", "int", "uint", "bool", "bfloat16", "half", "double", "complex", "quint", "qint"),
    *("per_tensor", "per_channel"),
)
"""What names in `torch` and `numpy` of types of tensors and their numbers have in them."""


class RefusedError(ValueError):
    """What a file of tensors has no need of."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, `module.attribute`."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


@dataclass(frozen=True)
class Other:
    """What is neither a tensor nor a plain value, such as a NumPy scalar or a sparse tensor: only its name is kept."""

    what: str


@dataclass(frozen=True)
class Storage:
    """A tensor's memory: `numel` elements under `key`, beside or after the pickle."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class ScriptObject:
    """A TorchScript module: its attributes by name, which it may share with others."""

    attributes: dict[str, Any] = field(default_factory=dict)


class BoundedFile:
    """A file of which no more than `limit` bytes are read; further reads raise `RefusedError`."""

    def __init__(self, file: BinaryIO, limit: int = MAX_BYTES) -> None:
        self._file, self._left = file, limit

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        if size > self._left:
            raise RefusedError(f"more than {MAX_BYTES >> 20} MB beside the tensors")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        """Read a line."""
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


@dataclass(frozen=True)
class Contents:
    """The object of a pickle, the storages that it names by key, and the classes of TorchScript's objects in it."""

    value: Any
    storages: dict[str, Storage]
    classes: frozenset[str]


def read_pickle(file: BoundedFile) -> Contents:
    """Interpret the pickle that begins at the file's position.

    Of a dict, only items under strings are kept: names of tensors, and of what holds them.

    Raises:
        RefusedError: it holds what is neither a tensor nor data, or is too long.
        ValueError: it is damaged.
    """
    machine = _Interpreter()
    try:
        return Contents(machine.run(file), machine.storages, frozenset(machine.classes))
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a damaged pickle, {type(error).__name__}") from error


class _Interpreter:
    """The pickle machine: a stack, marks in it, and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.classes: set[str] = set()

    def run(self, file: BoundedFile) -> Any:
        # The annotations of pickletools know only files, where read and readline are all that it calls.
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
            if step == MAX_STEPS:
                raise RefusedError(f"a pickle of more than {MAX_STEPS:,} steps")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in PUSHED:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in TUPLES:
                self.stack.append(tuple(self.pop(TUPLES[name])))
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise RefusedError(f"the pickle opcode {name}")
        raise ValueError("a pickle without an end")

    def pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise IndexError(count)
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_to_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def discard(self, _: object) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def discard_to_mark(self, _: object) -> None:
        self.pop_to_mark()

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def add_pairs(self, pairs: Sequence[Any]) -> None:
        _add_pairs(self.stack[-1], pairs)

    def add_items(self, items: Sequence[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def name(self, module: str, attribute: str) -> None:
        if len(module) + len(attribute) > MAX_NAME:  # a step with it would take long
            raise RefusedError(f"the name of a class of more than {MAX_NAME:,} letters")
        name = _known(Name(module, attribute))
        if module.startswith(SCRIPT):
            self.classes.add(attribute)
        self.stack.append(name)

    def call(self, _: object) -> None:
        made, arguments = self.pop(2)
        self.stack.append(_make(made, arguments))

    def persistent(self, _: object) -> None:
        storage = _storage(self.stack.pop())
        if isinstance(storage, Storage) and self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"two storages called {storage.key}")
        self.stack.append(storage)

    def build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], ScriptObject) and isinstance(state, dict):
            self.stack[-1].attributes = state


_ACTIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _Interpreter.discard,
    "POP_MARK": _Interpreter.discard_to_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Interpreter.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, at: machine.stack.append(machine.memo[at])),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.stack.append([])),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.stack.append(machine.pop_to_mark())),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": lambda machine, _: machine.stack.append(_add_pairs({}, machine.pop_to_mark())),
    "APPEND": lambda machine, _: machine.add_items(machine.pop(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.add_items(machine.pop_to_mark())),
    "SETITEM": lambda machine, _: machine.add_pairs(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.add_pairs(machine.pop_to_mark()),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.pop(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Interpreter.call),
    "BINPERSID": _Interpreter.persistent,
    "BUILD": _Interpreter.build,
}


def _add_pairs(target: Any, pairs: Sequence[Any]) -> Any:
    if isinstance(target, dict):
        target.update((key, value) for key, value in zip(pairs[::2], pairs[1::2], strict=True) if type(key) is str)
    return target


def _known(name: Name) -> Name:
    full = str(name)
    is_type = name.module in ("torch", "numpy") and any(type_ in name.attribute for type_ in TYPES)
    if not (
        name.module.startswith((SCRIPT, "torch.jit._pickle"))
        or full in NAMES
        or full.startswith(DATA_PREFIXES)
        or is_type
    ):
        raise RefusedError(f"{full}, which is neither a tensor nor data")
    return name


def _make(made: Any, arguments: Any) -> Any:
    """What calling a name with arguments gives."""
    if not isinstance(made, Name) or not isinstance(arguments, tuple):
        raise TypeError(made)
    name = str(made)
    if made.module.startswith(SCRIPT):
        return ScriptObject()
    if name in CONTAINERS:
        return {}
    if name == WITH_ATTRIBUTES:
        return _make(arguments[0], arguments[2])
    if name in TENSORS:
        if len(arguments) > MAX_ARGUMENTS:
            raise ValueError("a damaged tensor")
        return Other("a lazily negated or conjugated tensor") if any(arguments[6:]) else _tensor(*arguments[:4])
    if name in WRAPPED or made.module == "torch.jit._pickle":
        return arguments[0]
    return Other(name)


def _storage(identity: Any) -> Storage | Other:
    """From ("storage", type, key, location, number of elements) and, before PyTorch 1.6, a view that is always None."""
    if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6:
        raise ValueError("a damaged reference to a storage")
    kind, type_, key, _, numel, *view = identity
    if (
        any(view)
        or kind != "storage"
        or not isinstance(type_, Name)
        or type(key) is not str
        or type(numel) is not int
        or not 0 <= numel < MAX_NUMBER
    ):
        raise ValueError("a damaged reference to a storage")
    dtype = DTYPES.get(type_.attribute)
    return Other(str(type_)) if dtype is None else Storage(key, dtype, numel)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> StoredTensor | Other:
    if isinstance(storage, Other):
        return storage
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError("a damaged tensor")
    if not all(type(number) is int and 0 <= number < MAX_NUMBER for number in (offset, *size, *stride)):
        raise ValueError("a damaged tensor")
    end = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1
    # An expanded tensor is larger than its memory: a small file would take any amount of it.
    if 0 not in size and (end > storage.numel or math.prod(size) > storage.numel):
        raise ValueError(f"a tensor {tuple(size)} of a storage of {storage.numel} elements")
    return StoredTensor(storage, offset, tuple(size), tuple(stride))
