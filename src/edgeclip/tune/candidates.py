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
from edgeclip.quantize.pixels import PixelBytes


@dataclass(frozen=True)
class FloatGraph:
    """What a tower's graphs are made from.

    Attributes:
        path: its float graph.
        layers: its Linear layers, the most sensitive first.
        pixels: of an image tower, what its patches were made of.
    """

    path: Path
    layers: Sequence[str]
    pixels: PixelBytes | None


Write = Callable[[FloatGraph, Path], list[str]]
"""From a float graph to a target; the layers that stay in float."""


@dataclass(frozen=True)
class Kind:
    """A way to write a tower's graph; `needs_order` where it depends on which layers are sensitive."""

    name: str
    precision: GraphPrecision
    write: Write
    needs_order: bool = False


def _fp32(source: FloatGraph, target: Path) -> list[str]:
    shutil.copyfile(source.path, target)
    return []


def _fp16(source: FloatGraph, target: Path) -> list[str]:
    write_fp16(source.path, target)
    return []


def _int4(source: FloatGraph, target: Path) -> list[str]:
    write_int4(source.path, target)
    return []


def _int8(one_in: int | None) -> Write:
    """All layers in int8, but the most sensitive, one in so many."""

    def write(source: FloatGraph, target: Path) -> list[str]:
        kept = [] if one_in is None else list(source.layers[: max(len(source.layers) // one_in, 1)])
        Int8Tower(source.path, source.pixels).write(target, float_layers=kept)
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
