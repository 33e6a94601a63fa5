"""What another program's ONNX graphs compute, told by their nodes and weights, without running them."""

from __future__ import annotations

from pathlib import Path

from edgeclip.config import Config
from edgeclip.cpu import SIXTEEN_BITS, int8_arithmetic
from edgeclip.graph_model import Kind
from edgeclip.runtime.arithmetic import Product, products, wide_pairs
from edgeclip.runtime.foreign import ForeignModel, Tower, read_foreign
from edgeclip.runtime.foreign_layouts import Layout, graphs
from edgeclip.runtime.onnx_file import read_onnx


class Products(Config, frozen=True, kw_only=True):
    """Products of one operation and precision.

    Attributes:
        op: ONNX's name of the operation.
        precision: what the weights are stored as; int8 alone where both sides are bytes.
        arithmetic: what they are multiplied in on this machine.
        nodes: how many there are.
        weights: how many numbers they multiply with.
        bytes: that these take.
    """

    op: str
    precision: str
    arithmetic: str
    nodes: int
    weights: int
    bytes: int


class TowerInspection(Config, frozen=True, kw_only=True):
    """One tower.

    Attributes:
        kind: image or text.
        graph: its file, relative to the folder.
        precision: what most weights are multiplied as.
        others: precisions in which the folder has the tower too.
        bytes: of the graph and the files with its weights.
        batch: how many items a call takes, where that is fixed.
        products: by operation.
        pairs: of int8 weights whose products are added first; None where weights are in another file and not counted.
        wide_pairs: those of them whose sum can exceed 16 bits.
    """

    kind: Kind
    graph: str
    precision: str
    others: list[str]
    bytes: int
    batch: int | None
    products: list[Products]
    pairs: int | None
    wide_pairs: int | None


class ForeignInspection(Config, frozen=True, kw_only=True):
    """What `edgeclip inspect` gives of another program's folder; `arithmetic` and `saturates` are this machine's.

    `judges_pairs` where it is a SigLIP, whose logits have a bias too.
    """

    name: str
    layout: str
    embedding_size: int
    image_size: int | None
    context_length: int | None
    logit_scale: float | None
    logit_bias: float | None
    judges_pairs: bool
    fingerprint: str
    towers: list[TowerInspection]
    arithmetic: str
    saturates: bool


def inspect_foreign(folder: Path, layout: Layout, precision: str | None = None) -> ForeignInspection:
    """Read what the graphs that `load` opens compute.

    Raises:
        EdgeclipError: see `read_foreign`.
    """
    model = read_foreign(folder, layout, precision=precision)
    towers = [_tower(model, kind, tower) for kind, tower in model.towers.items()]
    arithmetic = int8_arithmetic()
    return ForeignInspection(
        name=str(folder),
        layout=layout.name,
        embedding_size=model.embedding_size,
        image_size=model.image_size if "image" in model.towers else None,
        context_length=model.text_length,
        logit_scale=model.told_logit_scale,
        logit_bias=model.told_logit_bias if model.is_siglip else None,
        judges_pairs=model.is_siglip,
        fingerprint=model.fingerprint,
        towers=towers,
        arithmetic=arithmetic,
        saturates=arithmetic == SIXTEEN_BITS and any(tower.wide_pairs for tower in towers),
    )


def _tower(model: ForeignModel, kind: Kind, tower: Tower) -> TowerInspection:
    found: dict[tuple[str, str, str], list[Product]] = {}
    pairs, wide = 0, 0
    for product in products(read_onnx(tower.graph)):
        found.setdefault((product.op, product.label, _arithmetic(product)), []).append(product)
        too_wide, total = wide_pairs(product)
        pairs, wide = pairs + total, wide + too_wide
    stem = model.layout.image if kind == "image" else model.layout.text
    return TowerInspection(
        kind=kind,
        graph=tower.graph.relative_to(model.folder).as_posix(),
        precision=tower.precision,
        others=[name for name, path in graphs(model.folder, stem).items() if path != tower.graph],
        bytes=sum(path.stat().st_size for path in (tower.graph, *tower.weights)),
        batch=tower.ports.shape[0],
        products=[
            Products(
                op=op,
                precision=precision,
                arithmetic=arithmetic,
                nodes=len(some),
                weights=sum(product.count for product in some),
                bytes=sum(product.bytes for product in some),
            )
            for (op, precision, arithmetic), some in found.items()
        ],
        pairs=None if tower.weights else pairs,
        wide_pairs=None if tower.weights else wide,
    )


def _arithmetic(product: Product) -> str:
    """What a product is computed in on this machine."""
    if product.kind == "table":
        return "rows taken"
    if product.kind == "integer":
        return "int8"
    if product.is_in_blocks:
        return "int8 by block" if product.rounds_blocks else "float32 by block"
    return "float32" if product.stored == "fp32" else f"float32, from {product.stored}"
