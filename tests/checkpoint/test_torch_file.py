"""PyTorch's files read by an interpreter of their own: equal to PyTorch's reader, and nothing in a file runs."""

import argparse
import collections
import contextlib
import datetime
import io
import os
import pathlib
import pickle
import random
import re
import signal
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeclip.checkpoint.reader import read_tensors
from edgeclip.errors import CheckpointError

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def tensors() -> dict[str, torch.Tensor]:
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    return {
        "whole": whole,
        "slice": whole[1:5, ::2],
        "transposed": whole.T,
        "half": whole.half(),
        "bfloat": whole.bfloat16(),
        "double": whole.double(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "ids": torch.arange(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "parameter": torch.nn.Parameter(whole + 1),
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.detach(), atol=0, rtol=0, msg=name)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_kind_of_tensor(tmp_path: Path, zipped: bool, protocol: int):
    torch.save(tensors(), tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / "a.pt").tensors, tensors())


@FORMATS
def test_what_training_scripts_keep_beside_the_weights(tmp_path: Path, zipped: bool):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    kept = {
        "epoch": 3,
        "loss": np.float64(0.25),
        "history": np.arange(4),
        "rng": np.random.RandomState(0).get_state(),
        "args": argparse.Namespace(out=pathlib.Path("runs"), lr=1e-3),
        "best": defaultdict(list, {"a": [1]}),
        "optimizer": optimizer.state_dict(),
        "names": {"a", "b"},
        "begun": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 1),
        "pattern": re.compile("a"),
        "masked": np.ma.array([1], mask=[True]),
        "precision": np.float32,
        "rest": [..., int, torch.per_tensor_affine, torch.Generator().manual_seed(0), collections.ChainMap()],
        "big": 1 << 90,
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items()),
    }
    torch.save(kept, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / "a.pt").tensors, model.state_dict())


@pytest.mark.parametrize("wrap", [["model"], ["model", "state_dict"], ["state_dict", "model"], ["model_state_dict"]])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_wrappers_come_off_in_any_order(tmp_path: Path, wrap: list[str], prefix: str):
    contents: dict[str, Any] = {f"{prefix}visual.{name}": tensor for name, tensor in tensors().items()}
    for name in wrap:
        contents = {name: contents, "epoch": 1}
    torch.save(contents, tmp_path / "a.pt")
    assert_equal(
        read_tensors(tmp_path / "a.pt").tensors, {f"visual.{name}": tensor for name, tensor in tensors().items()}
    )


def test_parts_compiled_alone(tmp_path: Path):
    torch.save({"visual._orig_mod.proj": torch.ones(2), "scale": torch.ones(1)}, tmp_path / "a.pt")
    assert sorted(read_tensors(tmp_path / "a.pt").tensors) == ["scale", "visual.proj"]
    torch.save({"visual._orig_mod.proj": torch.ones(2), "visual.proj": torch.ones(1)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="same name"):
        read_tensors(tmp_path / "b.pt")


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.sizes = [1, 2]
        self.names: dict[str, int] = {"a": 1}
        self.register_buffer("constant", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.sizes[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_torchscript_as_its_own_loader(tmp_path: Path, half: bool):
    model = torch.nn.Sequential(Block(), torch.nn.ModuleList([Block(), Block()])[0])
    model = model.half() if half else model
    scripted = torch.jit.script(model)
    torch.jit.save(scripted, tmp_path / "scripted.pt")
    traced = torch.jit.trace(model.float(), torch.zeros(1, 4))
    torch.jit.save(traced.half() if half else traced, tmp_path / "traced.pt")
    for name in ("scripted.pt", "traced.pt"):
        expected = torch.jit.load(tmp_path / name).state_dict()
        found = read_tensors(tmp_path / name).tensors
        assert_equal({key: found[key] for key in expected}, expected)
        assert sorted(found) == sorted(expected)


class Calls:
    """Calls a function when an ordinary reader meets it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@FORMATS
@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, print, open, subprocess.run, torch.load, torch.hub.load, np.load, getattr, __import__],
    ids=lambda function: f"{function.__module__}.{function.__name__}",
)
def test_calls_are_refused_and_not_made(tmp_path: Path, zipped: bool, function: Any):
    mark = tmp_path / "made"
    torch.save({"a": Calls(function, f"touch {mark}")}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"neither a tensor nor data; .*torch\.save\(model\.state_dict"):
        read_tensors(tmp_path / "a.pt")
    assert not mark.exists()


class Writes(torch.nn.Module):
    """Its code would write to the path that it carries, as soon as it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.register_buffer("weight", torch.ones(3))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        return self.path, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.path, self.weight, self.training = state
        torch.from_file(self.path, shared=True, size=4).fill_(1.0)

    def forward(self) -> torch.Tensor:
        return self.weight


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["archive.pt", "pytorch_model.bin"])
def test_torchscript_code_does_not_run(tmp_path: Path, name: str):
    target = tmp_path / "target"
    torch.jit.save(torch.jit.script(Writes(str(target))), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"cannot be read|holding"):
        read_tensors(tmp_path / name)
    assert not target.exists()


def test_a_tensor_with_attributes(tmp_path: Path):
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.zeros(2))
    tensor.kept, parameter.kept = 1, 1  # type: ignore[attr-defined]  # which is what is tried
    torch.save({"a": tensor, "b": parameter}, tmp_path / "a.pt")
    assert_equal(read_tensors(tmp_path / "a.pt").tensors, {"a": tensor, "b": parameter})


def test_tensors_that_are_not_plain(tmp_path: Path):
    negated = torch.ones(2, dtype=torch.complex64).conj().imag  # whose stored numbers have the other sign
    for odd in (torch.eye(3).to_sparse(), torch.zeros(2, dtype=torch.complex64), negated, {"a": 1}, "text", 3.0):
        torch.save({"a": torch.ones(1), "odd": odd}, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=r"under 'odd', not a tensor; expected tensors by name"):
            read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("contents", [[], {}, 3, None, "a", [torch.ones(2)], torch.ones(2), {"model": {}}], ids=repr)
def test_no_tensors_by_name(tmp_path: Path, contents: object):
    torch.save(contents, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        read_tensors(tmp_path / "a.pt")


def a_zip(path: Path, data: bytes, storage: bytes = b"\0" * 4, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", storage)
    return path


def a_tensor(size: tuple[int, ...], stride: tuple[int, ...], numel: int = 1, offset: int = 0) -> bytes:
    """A pickle of {"a": a tensor of the storage 0}, written by hand."""

    def whole(number: int) -> bytes:
        length = (number.bit_length() + 8) // 8
        return b"\x8a" + bytes([length]) + number.to_bytes(length, "little", signed=True)

    def several(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(whole, numbers)) + b"t"

    storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + whole(numel) + b"tQ"
    view = storage + whole(offset) + several(size) + several(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + view + b"Rs."


def test_the_hand_written_pickle_is_right(tmp_path: Path):
    found = read_tensors(a_zip(tmp_path / "a.pt", a_tensor((2, 2), (2, 1), 4), struct.pack("<4f", 1, 2, 3, 4))).tensors
    assert found["a"].tolist() == [[1, 2], [3, 4]]


def a_pickle_of_long_numbers() -> bytes:
    """A size of eight numbers of a million bytes, with strides that keep it within its storage."""
    number = b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\x7f" * (1 << 20) + b"q\0"
    whole = a_tensor((2,) * 8, (0,) * 8)
    sizes = b"(" + b"\x8a\x01\x02" * 8 + b"t"
    assert whole.count(sizes) == 1
    return whole.replace(sizes, b"(" + number + b"h\0" * 7 + b"t")


def a_pickle_of_long_calls() -> bytes:
    """A tensor made again and again of 300,000 arguments, of which four count."""
    whole = a_tensor((1,), (1,))
    start, end = whole.index(b"ctorch._utils\n"), whole.index(b"Rs.")
    name, first = (
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        whole[start + len(b"ctorch._utils\n_rebuild_tensor_v2\n") : end],
    )
    arguments = first[:-1] + b"N" * 300_000 + b"t"
    again = b"0h\1h\0R"
    return whole[:start] + name + b"q\1" + arguments + b"q\0R" + again * 170_000 + b"s."


PROTO = b"\x80\x02"
MODULE = b"c__torch__\nA\n)\x81}"
ITEMS = b"}(" + b"".join(b"X\x06\0\0\0%06dN" % number for number in range(100_000)) + b"uq\x010"
MODULES = b"".join(b"X\x06\0\0\0%06dc__torch__\nA\n)Rh\x01b" % number for number in range(4_000))
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01"
LONG_NAME = b"X\0\0\0\x01__torch__." + b"a" * ((1 << 24) - 10)
BOMBS = {
    "expanded": a_tensor((1 << 40,), (0,)),
    "beyond its storage": a_tensor((2,), (1,)),
    "a storage of more than its bytes": a_tensor((1 << 40,), (1,), 1 << 40),
    "an offset": a_tensor((1,), (1,), offset=7),
    "a negative size": a_tensor((-1,), (1,)),
    "many dimensions": a_tensor((1,) * 60, (1,) * 60),
    "a product of endless numbers": a_pickle_of_long_numbers(),
    "endless arguments, many times": a_pickle_of_long_calls(),
    "memo": PROTO + b"]r\xff\xff\xff\x7f.",
    "long string": PROTO + b"X\xff\xff\xff\xff.",
    "nested": PROTO + b"](" * 200_000 + b".",
    "nested tuples": PROTO + b"N" + b"\x85" * 300_000 + b".",
    "many steps": PROTO + b"]0" * 2_000_000 + b"].",
    "a list of lists of lists": PROTO + b"]q\0" + b"(" + b"h\0" * 900_000 + b"e.",
    "modules in themselves": PROTO + MODULE + b"q\0X\x01\0\0\0ah\0X\x01\0\0\0bh\0usb.",
    "modules with the same many items": PROTO + ITEMS + b"c__torch__\nA\n)R" + b"h\x01b" * 300_000 + b".",
    "many modules with the same many items": PROTO + ITEMS + MODULE + b"(" + MODULES + b"ub.",
    "a storage of many parts": PROTO + STORAGE + b"N" * 100_000 + b"tq\x01" + b"Q0h\x01" * 290_000 + b"Q.",
    "long names": PROTO + LONG_NAME + b"q\x01X\x01\0\0\0Aq\x02" + b"h\x01h\x02\x930" * 240_000 + b"].",
    "no end": PROTO + b"]",
    "empty stack": PROTO + b".",
    "empty mark": PROTO + b"t.",
    "extension": PROTO + b"\x82\x01.",
    "instance": PROTO + b"(iposix\nsystem\n.",
    "persistent text": PROTO + b"P0\n.",
    "a call of a number": PROTO + b"K\x01)R.",
    "a storage that is a number": PROTO + b"K\x01Q.",
}


@pytest.fixture
def twenty_seconds() -> Iterator[None]:
    """Of the processor, within which a test must end."""
    before = signal.signal(signal.SIGPROF, lambda *_: pytest.fail("more than 20 s of the processor"))
    signal.setitimer(signal.ITIMER_PROF, 20)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("twenty_seconds")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_one_line(tmp_path: Path, name: str):
    with pytest.raises(CheckpointError):
        read_tensors(a_zip(tmp_path / "a.pt", BOMBS[name]))


@pytest.mark.usefixtures("twenty_seconds")
def test_names_within_names_of_storages(tmp_path: Path):
    torch.save({}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    doubled = b"]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(28)) + b"."  # 2 ** 28 lists when written out
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[: -len(pickle.dumps([], 2))] + PROTO + doubled)
    with pytest.raises(CheckpointError, match="a list of other storages"):
        read_tensors(tmp_path / "a.pt")


MEASURED = """
import resource, sys
from pathlib import Path
from edgeclip.checkpoint.reader import read_tensors
from edgeclip.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        read_tensors(Path(name))
    except CheckpointError:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
"""Prints how many megabytes the greatest of the refusals has taken."""


def test_memory_is_bounded(tmp_path: Path):
    with (
        zipfile.ZipFile(tmp_path / "pickle.pt", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a/data.pkl", "w", force_zip64=True) as member,
    ):
        for _ in range(1000):
            member.write(b"]" * (1 << 20))
    with zipfile.ZipFile(tmp_path / "members.pt", "w") as archive:
        for index in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"a/data/{index:>120}"), b"")
    a_zip(tmp_path / "lists.pt", PROTO + b"]" * (31 << 20))
    a_zip(tmp_path / "names.pt", PROTO + b"](" + b"X\x00\x00\x40\x00" + b"a" * (4 << 20) + b"0" * (30 << 20))
    command = [sys.executable, "-c", MEASURED, *sorted(tmp_path.glob("*.pt"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes = [int(line) for line in done.stdout.split()]
    assert len(megabytes) == 4
    assert max(megabytes) < 440


@FORMATS
def test_mutations_are_read_or_refused(tmp_path: Path, zipped: bool):
    buffer = io.BytesIO()
    torch.save(tensors() | {"epoch": 1}, buffer, _use_new_zipfile_serialization=zipped)
    original, rng, path = buffer.getvalue(), random.Random(0), tmp_path / "a.pt"
    for _ in range(300):
        data = bytearray(original)
        for _ in range(rng.choice([1, 1, 4, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        with contextlib.suppress(CheckpointError):
            read_tensors(path)


def test_a_zip_that_says_two_things_of_a_place(tmp_path: Path):
    name = "Gewichte für 猫"  # which is the name of a folder in the zip too
    torch.save({"a": torch.ones(100)}, tmp_path / f"{name}.pt")
    assert_equal(read_tensors(tmp_path / f"{name}.pt").tensors, {"a": torch.ones(100)})
    data = bytearray((tmp_path / f"{name}.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        at = next(info.header_offset for info in archive.infolist() if info.filename.endswith("data/0"))
    for offset in (0, 26, 30):  # the header's mark, the length of the name, and the name
        damaged = bytearray(data)
        damaged[at + offset] += 1
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="data/0 is elsewhere"):
            read_tensors(tmp_path / "a.pt")


def test_a_plain_pickle_is_not_a_checkpoint(tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": np.ones(3)}))
    with pytest.raises(CheckpointError, match="neither of PyTorch's formats"):
        read_tensors(tmp_path / "a.pt")
