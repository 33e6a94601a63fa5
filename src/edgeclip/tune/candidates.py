"""The kinds of graph that are tried for each tower, from the same float graph: a new kind is a new line of `KINDS`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclip.bundle import GraphPrecision
from edgeclip.cpu import granted_processors
from edgeclip.export.int4 import write_int4
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.stored_fp16 import write_fp16

Write = Callable[[Path, Path, Sequence[str]], list[str]]
"""From a float graph to a target, given the tower's layers, the most sensitive first; the layers that stay in float."""


@dataclass(frozen=True)
class Kind:
    """A way to write a tower's graph; `needs_order` where it depends on which layers are sensitive."""

    name: str
    precision: GraphPrecision
    write: Write
    needs_order: bool = False


def _fp32(source: Path, target: Path, layers: Sequence[str]) -> list[str]:
    shutil.copyfile(source, target)
    return []


def _fp16(source: Path, target: Path, layers: Sequence[str]) -> list[str]:
    write_fp16(source, target)
    return []


def _int4(source: Path, target: Path, layers: Sequence[str]) -> list[str]:
    write_int4(source, target)
    return []


def _int8(one_in: int | None) -> Write:
    """All layers in int8, but the most sensitive, one in so many."""

    def write(source: Path, target: Path, layers: Sequence[str]) -> list[str]:
        kept = [] if one_in is None else list(layers[: max(len(layers) // one_in, 1)])
        Int8Tower(source).write(target, float_layers=kept)
        return kept

    return write


KINDS = {
    kind.name: kind
    for kind in (
        Kind("fp32", "fp32", _fp32),
        Kind("fp16", "fp16", _fp16),
        Kind("int8", "int8", _int8(None)),
        Kind("int8, 1/8 float", "int8", _int8(8), needs_order=True),
        Kind("int8, 1/4 float", "int8", _int8(4), needs_order=True),
        Kind("int4", "int4", _int4),
    )
}
"""By name. `fp32` is the teacher as a bundle, and has to be there."""


def thread_counts() -> tuple[int, ...]:
    """How many threads are tried: one, two, and all processors."""
    processors = granted_processors()
    return tuple(sorted({1, min(2, processors), processors}))
