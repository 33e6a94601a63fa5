"""The fusion of a schedule whose image embeddings stay nearest to those of all tokens, on pictures to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from msgspec.structs import replace
from torch import Tensor

from edgeclip.config import Fusion
from edgeclip.model import Clip
from edgeclip.progress import task
from edgeclip.shrink.fusion_schedule import FusionSchedule, steps_of

POWERS = ((0.0, 0.0), (1 / 20, 1 / 40), (1 / 10, 1 / 20))
"""MCTF's, of attention and size: its similarity alone, the paper's, and twice the paper's."""


def with_fusion(model: Clip, fusion: Fusion | None) -> Clip:
    """The same weights, shared, in a model whose image tower fuses tokens so, or not at all; in evaluation mode."""
    config = replace(model.config, vision=replace(model.config.vision, fusion=fusion))
    with torch.device("meta"):
        twin = Clip(config)
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin.eval()


@torch.no_grad()
def fuse_tokens(model: Clip, schedule: FusionSchedule, batches: Sequence[Tensor]) -> Clip:
    """A model with the same weights and a fusion by that schedule, the nearest of those that it leaves open.

    Args:
        model: whose image tower may fuse tokens already, which then counts for nothing.
        schedule: from `read_schedule`.
        batches: of (B, 3, H, W) images to calibrate on.

    Raises:
        ConfigError: the tower has not the layers or the tokens.
    """
    candidates = list(_candidates(model, schedule))
    if len(candidates) == 1:
        return with_fusion(model, candidates[0])
    whole = with_fusion(model, None)
    wanted_NE = torch.cat([whole.encode_image(batch) for batch in batches])
    best, nearest = candidates[0], -2.0
    with task("choosing how tokens are fused", len(candidates)) as advance:
        for fusion in candidates:
            fused = with_fusion(model, fusion)
            cosine = (torch.cat([fused.encode_image(batch) for batch in batches]) * wanted_NE).sum(dim=1).mean().item()
            if cosine > nearest:
                best, nearest = fusion, cosine
            advance(1)
    return with_fusion(model, best)


def _candidates(model: Clip, schedule: FusionSchedule) -> Iterator[Fusion]:
    for steps in steps_of(schedule, model.config.vision):
        if schedule.criterion != "mctf":
            yield Fusion(criterion="tome", steps=steps)
        if schedule.criterion != "tome":
            for attention_power, size_power in POWERS:
                yield Fusion(criterion="mctf", steps=steps, attention_power=attention_power, size_power=size_power)
