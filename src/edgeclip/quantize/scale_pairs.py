"""Where a block's channels can change their size without changing what it computes: see `equalize`.

Between a normalisation and the layers that read it, and, since attention only averages values, between the rows that
make the values and the columns of the output projection. Not across the activation function.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeclip.model import Clip
from edgeclip.model.fastvit import Affine, AttendingBlock, ConvBlock
from edgeclip.model.layers import Block
from edgeclip.model.vision import VisionTower
from edgeclip.quantize.equalize import ScalePair


def pairs_of_clip(model: Clip) -> list[ScalePair]:
    """All pairs of both towers, in order."""
    vision = model.vision
    pairs = {
        name: [
            pair
            for index, block in enumerate(block for block in tower.modules() if isinstance(block, Block | ConvBlock))
            for pair in pairs_of_block(f"{name}.blocks.{index}", block)
        ]
        for name, tower in (("vision", vision), ("text", model.text))
    }
    if isinstance(vision, VisionTower) and vision.config.pools_by_attention:
        norm, head = vision.post_norm, vision.head
        qkv, made = head.attention.qkv, (norm.weight, norm.bias, head.probe)  # which reads the query too
        pairs["vision"] += [
            ScalePair("vision.head.tokens", made, (qkv,)),
            values("vision.head.values", qkv, head.attention.out),
            after_norm("vision.head.norm", head.norm, head.mlp.fc1),
        ]
    return [*pairs["vision"], *pairs["text"]]


def pairs_of_block(name: str, block: nn.Module) -> list[ScalePair]:
    """The three pairs of a block, whichever attention it has; see `before`. A block of convolutions has its own."""
    if isinstance(block, ConvBlock):
        return _of_convolutions(name, block)
    assert isinstance(block, Block)  # noqa: S101 - for the type checker
    projections, out = block.attention.projections, block.attention.out
    norm1, norm2 = (None, None) if block.normalizes_after else (block.norm1, block.norm2)
    return [
        *before(f"{name}.norm1", norm1, block.attention_input, *projections),
        values(f"{name}.values", projections[-1], out),
        *before(f"{name}.norm2", norm2, block.mlp_input, block.mlp.fc1),
    ]


def before(name: str, norm: nn.LayerNorm | None, scale: nn.Module, *consumers: nn.Linear) -> list[ScalePair]:
    """Between what a block's layers read and those: a normalisation; else a scale, where there is room for one."""
    if norm is not None:
        return [after_norm(name, norm, *consumers)]
    return [] if isinstance(scale, nn.Identity) else [ScalePair(name, (scale.get_parameter("weight"),), consumers)]


def _of_convolutions(name: str, block: ConvBlock) -> list[ScalePair]:
    """What looks around each place gives its channels to the MLP as they are; a mixture of places stays in float."""
    context = ScalePair(f"{name}.context", (block.context.weight, _bias(block.context)), (block.mlp.fc1,))
    if not isinstance(block, AttendingBlock):
        return [context]
    norm, attention = block.norm, block.attention
    assert isinstance(norm, nn.LayerNorm | Affine)  # noqa: S101 - for the type checker
    return [
        after_norm(f"{name}.norm", norm, *attention.projections),
        values(f"{name}.values", attention.projections[-1], attention.out),
        context,
    ]


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None  # noqa: S101 - which all of them have
    return convolution.bias


def after_norm(name: str, norm: nn.LayerNorm | Affine, *consumers: nn.Linear) -> ScalePair:
    """Between a normalisation and what reads it."""
    return ScalePair(name, (norm.weight, norm.bias), consumers)


def values(name: str, linear: nn.Linear, out: nn.Linear) -> ScalePair:
    """Between values and output projection; of a fused projection, the last rows make the values."""
    return ScalePair(name, (linear.weight[-out.in_features :], linear.bias[-out.in_features :]), (out,))
