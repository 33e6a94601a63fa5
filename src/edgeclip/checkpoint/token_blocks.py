"""The key table of the blocks of convolutions in MobileCLIP-S0's text tower, which folds them.

Source: apple/ml-mobileclip, mobileclip/modules/text/repmixer.py.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeclip.checkpoint import folding
from edgeclip.checkpoint.folding import Branch, Shape, convolution, normalisation, normalised, summed
from edgeclip.checkpoint.keys import Rule
from edgeclip.config import TextConfig


def rules(text: TextConfig, blocks: str, present: Collection[str]) -> list[Rule]:
    """The first block and the last.

    Args:
        text: the tower.
        blocks: what the names of its blocks begin with.
        present: the names in the file, which has a block's one convolution, `reparam_conv`, or its branches.
    """
    assert text.mixer is not None  # noqa: S101 - it has such blocks
    D, table = text.hidden_size, list[Rule]()
    shape, scale = Shape(D, 1, 1, text.mixer), (D, 1, 1)
    for index in (0, text.num_hidden_layers + 1):
        ours, theirs = f"text.transformer.blocks.{index}", f"{blocks}.{index}"
        table += folding.rules(f"{ours}.mixer", _mixer(f"{theirs}.token_mixer", shape, scale, present))
        table += folding.rules(f"{ours}.context", normalised(f"{theirs}.convffn.conv", shape))
        fc1 = convolution(f"{theirs}.convffn.fc1", Shape(text.intermediate_size, D, 1, 1))
        fc2 = convolution(f"{theirs}.convffn.fc2", Shape(D, text.intermediate_size, 1, 1))
        table += folding.pointwise(f"{ours}.mlp.fc1", fc1)
        table += folding.pointwise(f"{ours}.mlp.fc2", folding.scaled(fc2, f"{theirs}.layer_scale", scale))
    return table


def _mixer(name: str, shape: Shape, scale: tuple[int, ...], present: Collection[str]) -> Branch:
    if f"{name}.reparam_conv.weight" in present:
        return convolution(f"{name}.reparam_conv", shape)
    branches = [normalised(f"{name}.mixer.rbr_conv.0", shape), normalisation(f"{name}.mixer.rbr_skip", shape)]
    norm = normalisation(f"{name}.norm.rbr_skip", shape)
    return folding.mixed(summed(branches, shape), norm, f"{name}.layer_scale", scale, shape)
