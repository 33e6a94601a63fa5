"""How many parameters a tower of convolutions has: see `model.fastvit`."""

from __future__ import annotations

from edgeclip.config import (
    CONTEXT,
    HALVING,
    LAST_SQUEEZE,
    MIXER,
    SQUEEZE,
    WIDENED,
    ConvStages,
    VisionConfig,
)


def of_convolutions(vision: VisionConfig, convolutions: ConvStages, E: int) -> int:
    """Of a tower and its projection to E; each kernel is counted with its bias."""
    stages, ratio = convolutions.stages, vision.intermediate_size // vision.hidden_size
    first, last = stages[0].width, WIDENED * vision.hidden_size

    def squeeze(width: int, share: int) -> int:
        return 2 * width * (width // share) + width // share + width

    def pointwise(width: int) -> int:
        return width * (width + 1)

    def of_channels(width: int, kernel: int) -> int:
        return width * (kernel**2 + 1)

    total = first * (vision.num_channels * MIXER**2 + 1) + of_channels(first, MIXER) + pointwise(first)
    for index, stage in enumerate(stages):
        width = stage.width
        if index:
            total += of_channels(width, HALVING) + pointwise(width) + (squeeze(width, SQUEEZE) if stage.squeezes else 0)
        mlp = of_channels(width, CONTEXT) + width * (2 * ratio * width + ratio + 1)
        mixing = 4 * pointwise(width) + 2 * width if stage.attends else of_channels(width, MIXER)
        total += stage.depth * (mlp + mixing) + (of_channels(width, CONTEXT) if stage.attends else 0)
    return total + of_channels(last, MIXER) + squeeze(last, LAST_SQUEEZE) + E * (last + vision.projection_bias)


def of_token_block(width: int, units: int, tokens: int) -> int:
    """Of a block of convolutions over tokens: two of each channel alone, with biases, and an MLP."""
    return 2 * width * (tokens + 1) + 2 * width * units + units + width
