"""What a graph's products are computed with: float, bytes on both sides, or weights only stored so.

Shape legend: K input channels, N output channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclip.runtime.onnx_file import DOUBLE, FLOAT, FLOAT16, INT8, UINT8, Node, OnnxFile, Tensor

INTEGER = {
    **dict.fromkeys(("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention"), 1),
    **dict.fromkeys(("QLinearMatMul", "QLinearConv", "QGemm"), 3),
}
"""Operations on bytes, and which of their inputs is the weight."""
ROUNDED = 4
"""The accuracy level of MatMulNBits at which activations are bytes too."""
BLOCKS = ("MatMulNBits", "MatMulBnb4")
TABLES = ("Gather", "GatherBlockQuantized")
FLOATS = ("MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "Attention")
WEIGHT = INTEGER | dict.fromkeys((*BLOCKS, *FLOATS), 1) | dict.fromkeys(TABLES, 0)
STORED_AS = {FLOAT: "fp32", FLOAT16: "fp16", DOUBLE: "fp64", 16: "bf16", INT8: "int8", UINT8: "uint8"}
STORED_AS |= {21: "4 bits", 22: "4 bits", 23: "4 bits", 25: "2 bits", 26: "2 bits"}
BITS = {FLOAT: 32, FLOAT16: 16, DOUBLE: 64, 16: 16, INT8: 8, UINT8: 8, 21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
"""By ONNX's numbers of types."""
PASSING = (
    "DequantizeLinear",
    "QuantizeLinear",
    "Cast",
    "Mul",
    "Transpose",
    "Identity",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
)
"""What may stand between a stored weight and the product that reads it."""
WIDEST_PAIR = 128
"""Of two int8 weights' sum: 255 times more doesn't fit in 16 bits."""


@dataclass(frozen=True)
class Product:
    """A product with a constant weight, or a table of which rows are taken.

    Attributes:
        op: the operation.
        stored: what the weight is stored as.
        kind: `integer` where both sides are bytes, `float` where it is multiplied in float, `table`.
        count: of its weights.
        bytes: that they take in the file.
        weight: the constant.
        is_nk: the weight is (N, K) and not (K, N).
        rounds_blocks: activations are rounded to bytes by block, as MatMulNBits does where its accuracy level is 4.
    """

    op: str
    stored: str
    kind: str
    count: int
    bytes: int
    weight: Tensor
    is_nk: bool
    rounds_blocks: bool = False

    @property
    def is_in_blocks(self) -> bool:
        """Whether weights have a scale for each block of input channels."""
        return self.op in BLOCKS

    @property
    def label(self) -> str:
        """What it is called: fp32, fp16, int8, or int8 weights."""
        if self.kind == "integer":
            return "int8"
        return self.stored if self.stored.startswith(("fp", "bf")) else f"{self.stored} weights"


def products(graph: OnnxFile) -> Iterator[Product]:
    """The products of a graph with constants, and its tables."""
    made_by = {name: node for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        index = WEIGHT.get(node.op)
        if index is None or index >= len(node.inputs):
            continue
        weight = _constant(graph, made_by, node.inputs[index])
        if weight is not None and len(weight.shape) >= 2:
            yield _product(node, weight, rounded=_is_rounded(made_by, node.inputs[0]))


def _product(node: Node, weight: Tensor, *, rounded: bool) -> Product:
    """A product of a node; `rounded` where its activation is made of bytes."""
    stored, count = STORED_AS.get(weight.dtype, f"type {weight.dtype}"), weight.size
    size = count * BITS.get(weight.dtype, 8) // 8
    if node.op in BLOCKS:
        stored, count = f"{node.numbers.get('bits', 4)} bits", node.numbers.get("K", 0) * node.numbers.get("N", 0)
    is_integer = node.op in INTEGER or (rounded and weight.dtype in (INT8, UINT8))
    kind = "table" if node.op in TABLES else "integer" if is_integer else "float"
    is_nk = "Conv" in node.op or bool(node.numbers.get("transB"))
    rounds = node.op in BLOCKS and node.numbers.get("accuracy_level") == ROUNDED
    return Product(node.op, stored, kind, count, size, weight, is_nk, rounds)


def _constant(graph: OnnxFile, made_by: dict[str, Node], name: str, passed: int = len(PASSING)) -> Tensor | None:
    """The constant that a value is made from, and from nothing else."""
    if name in graph.tensors:
        return graph.tensors[name]
    node = made_by.get(name)
    if passed == 0 or node is None or node.op not in PASSING or not node.inputs:
        return None
    sources = node.inputs[:2] if node.op == "Mul" else node.inputs[:1]
    found = [_constant(graph, made_by, source, passed - 1) for source in sources]
    known = [tensor for tensor in found if tensor is not None]
    return max(known, key=lambda tensor: tensor.size) if len(known) == len(found) else None


def _is_rounded(made_by: dict[str, Node], name: str) -> bool:
    """Whether an activation was rounded to bytes and made float again, which runtimes fuse into a product of bytes."""
    after = made_by.get(name)
    before = made_by.get(after.inputs[0]) if after and after.op == "DequantizeLinear" and after.inputs else None
    return before is not None and before.op in ("QuantizeLinear", "DynamicQuantizeLinear")


def precision(graph: OnnxFile) -> str:
    """What most of the weights that are multiplied are computed with: fp32, fp16, int8, `int8 weights` and the like."""
    counts: Counter[str] = Counter()
    for product in products(graph):
        if product.kind != "table":
            counts[product.label] += product.count
    return counts.most_common(1)[0][0] if counts else "fp32"


def wide_pairs(product: Product) -> tuple[int, int]:
    """Pairs of weights whose products with bytes can exceed a sum of 16 bits, and all pairs.

    ONNX Runtime's kernels for AVX2 without VNNI add the products of input channels (0, 1), (2, 3), ... in 16 bits with
    saturation, where the weights are int8; uint8 weights are widened first.
    """
    values = product.weight.array()
    if product.kind != "integer" or values is None or values.ndim < 2:
        return 0, 0
    weight_KN: NDArray[np.int8] = (
        values.reshape(len(values), -1).T if product.is_nk else values.reshape(-1, values.shape[-1])
    )
    if len(weight_KN) < 2:
        return 0, 0
    even = len(weight_KN) // 2 * 2
    sums = weight_KN[0:even:2].astype(np.int16) + weight_KN[1:even:2]
    wide = int((np.abs(sums) > WIDEST_PAIR).sum()) if product.weight.dtype == INT8 else 0
    return wide, sums.size
