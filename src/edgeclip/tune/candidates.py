"""The kinds of graph that are tried for each tower: a new kind is a new line of `KINDS`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgeclip.cpu import granted_processors
from edgeclip.export.int4 import write_int4
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.static_int8 import Range
from edgeclip.export.stored_fp16 import write_fp16
from edgeclip.manifest import Engine, GraphPrecision
from edgeclip.measure.bundle_process import TOWERS, Tower
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.runtime.engine import why_not_openvino

TEACHER = "teacher"
"""The source of kinds that are made of the teacher as it is."""


@dataclass(frozen=True)
class FloatGraph:
    """What a tower's graphs are made from.

    Attributes:
        path: its float graph.
        layers: its Linear layers, the most sensitive first, where that is known.
        pixels: of an image tower, what its patches were made of.
        ranges: of the layers' inputs, where they are known.
    """

    path: Path
    layers: Sequence[str]
    pixels: PixelBytes | None
    ranges: Mapping[str, Range] = field(default_factory=dict)


class Apart(NamedTuple):
    """The Linear layers of a graph that are not as its precision says."""

    float_layers: Sequence[str] = ()
    int4_layers: Sequence[str] = ()


Write = Callable[[FloatGraph, Path], Apart]
"""From a float graph to a target."""


@dataclass(frozen=True)
class Kind:
    """A way to write a tower's graph, of the teacher unless it says of what.

    Attributes:
        name: in words.
        precision: of the graph.
        write: writes it.
        fuse: of the teacher with its images' tokens fused so, see `shrink.fusion_schedule`.
        recipe: of the student that this recipe of `edgeclip distill` makes.
        engine: what runs it.
    """

    name: str
    precision: GraphPrecision
    write: Write
    fuse: str | None = None
    recipe: str | None = None
    engine: Engine = "onnxruntime"

    @property
    def source(self) -> str:
        """The model that it is made of."""
        return self.recipe or (f"teacher, {self.fuse} fused" if self.fuse else TEACHER)

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers that it is a kind of its own for: texts are not fused."""
        return ("image",) if self.fuse else TOWERS

    def pairs_with(self, text: Kind) -> bool:
        """Whether a text graph of that kind makes a bundle with this one's image graph: of one model and engine."""
        return "text" in text.towers and (self.recipe, self.engine) == (text.recipe, text.engine)

    @property
    def can_run(self) -> bool:
        """Whether its engine can be used here."""
        return self.engine == "onnxruntime" or why_not_openvino() is None


def _fp32(source: FloatGraph, target: Path) -> Apart:
    shutil.copyfile(source.path, target)
    return Apart()


def _fp16(source: FloatGraph, target: Path) -> Apart:
    write_fp16(source.path, target)
    return Apart()


def _int4(source: FloatGraph, target: Path) -> Apart:
    write_int4(source.path, target)
    return Apart()


def _int8(source: FloatGraph, target: Path) -> Apart:
    Int8Tower(source.path, source.pixels).write(target)
    return Apart()


def _static_int8(source: FloatGraph, target: Path) -> Apart:
    Int8Tower(source.path, source.pixels).write(target, ranges=source.ranges)
    return Apart()


def _int8_and_float(one_in: int) -> Write:
    """In int8, but of the layers the most sensitive, one in so many, in float."""

    def write(source: FloatGraph, target: Path) -> Apart:
        kept = source.layers[: max(len(source.layers) // one_in, 1)]
        Int8Tower(source.path, source.pixels).write(target, float_layers=kept)
        return Apart(float_layers=kept)

    return write


def _int8_and_int4(one_in: int) -> Write:
    """In int8, but of the layers the least sensitive, one in so many, in int4."""

    def write(source: FloatGraph, target: Path) -> Apart:
        kept = source.layers[-max(len(source.layers) // one_in, 1) :]
        Int8Tower(source.path, source.pixels).write(target, float_layers=kept)
        write_int4(target, target)
        return Apart(int4_layers=kept)

    return write


KINDS = {
    kind.name: kind
    for kind in (
        Kind("fp32", "fp32", _fp32),
        Kind("fp16", "fp16", _fp16),
        Kind("int8", "int8", _int8),
        Kind("int8, 1/8 float", "int8", _int8_and_float(8)),
        Kind("int8, 1/4 float", "int8", _int8_and_float(4)),
        Kind("int8, 1/4 int4", "int8", _int8_and_int4(4)),
        Kind("int8, 1/2 int4", "int8", _int8_and_int4(2)),
        Kind("int4", "int4", _int4),
        Kind("static int8, OpenVINO", "int8", _static_int8, engine="openvino"),
        Kind("fp32, 25% fused", "fp32", _fp32, fuse="25%"),
        Kind("fp32, 50% fused", "fp32", _fp32, fuse="50%"),
        Kind("int8, 25% fused", "int8", _int8, fuse="25%"),
        Kind("int8, 50% fused", "int8", _int8, fuse="50%"),
        Kind("half int8", "int8", _int8, recipe="half"),
        Kind("half int4", "int4", _int4, recipe="half"),
        Kind("quarter int8", "int8", _int8, recipe="quarter"),
        Kind("quarter int4", "int4", _int4, recipe="quarter"),
        Kind("eighth int8", "int8", _int8, recipe="eighth"),
        Kind("eighth int4", "int4", _int4, recipe="eighth"),
    )
}
"""By name. `fp32` is the teacher as a bundle, and has to be there."""
RECIPES = tuple(dict.fromkeys(kind.recipe for kind in KINDS.values() if kind.recipe))
"""The sizes of students, the largest first."""


def kinds_of(source: str) -> list[Kind]:
    """The kinds that are made of a model and can be tried here."""
    return [kind for kind in KINDS.values() if kind.source == source and kind.can_run]


def thread_counts() -> tuple[int, ...]:
    """How many threads are tried: one, two, and all processors."""
    processors = granted_processors()
    return tuple(sorted({1, min(2, processors), processors}))
