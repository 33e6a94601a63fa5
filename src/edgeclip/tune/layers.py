"""Which layers of a tower int8 costs most, from one pass: see `quantize.sensitivity`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.float_graphs import FloatGraphs
from edgeclip.export.int8 import HEAD
from edgeclip.export.static_int8 import Range
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.towers import Tower
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import (
    Directions,
    all_directions,
    as_int8,
    embed,
    ranking_directions,
    sensitivities,
)
from edgeclip.tune.record import LayerLoss

ORDER = "cosine"
"""The measure by which layers are left in float: few pairs tell it more surely than the ranking."""


def layer_sensitivity(floats: FloatGraphs, pairs: Prepared) -> dict[str, dict[str, LayerLoss]]:
    """By tower and layer, what it alone in int8 would change; the most sensitive first.

    Args:
        floats: the towers, equalized.
        pairs: what is embedded, few. Each tower's embeddings rank those of the other.
    """
    images = image_batches(pairs, floats.checkpoint.preprocess_config)
    texts = text_batches(pairs, floats.checkpoint.tokenizer)

    def by(tower: Tower, batches: list[Tensor]) -> Directions:
        return ranking_directions(embed(tower, batches), floats.checkpoint.logit_scale)

    return {
        "image": _of(floats.image.tower, images, by(floats.text.tower, texts), floats.pixels),
        "text": _of(floats.text.tower, texts, by(floats.image.tower, images)),
    }


def _of(
    tower: Tower, batches: list[Tensor], ranking: Directions, pixels: PixelBytes | None = None
) -> dict[str, LayerLoss]:
    stored = copy.deepcopy(tower)
    round_what_is_stored(stored)
    linears = [name for name, module in stored.named_modules() if isinstance(module, nn.Linear) and name not in HEAD]
    with torch.no_grad():
        int8 = as_int8(stored, linears, pixels)
    cosine, divergence = sensitivities(stored, int8, batches, [all_directions, ranking])
    found = {name: LayerLoss(cosine=cosine[name], ranking=divergence[name]) for name in linears}
    return dict(sorted(found.items(), key=lambda item: -getattr(item[1], ORDER)))


def input_ranges(floats: FloatGraphs, pairs: Prepared) -> dict[str, dict[str, Range]]:
    """By tower and layer, the smallest and the largest value that the layer is given.

    Args:
        floats: the towers, equalized.
        pairs: what is embedded.
    """
    images = image_batches(pairs, floats.checkpoint.preprocess_config)
    texts = text_batches(pairs, floats.checkpoint.tokenizer)
    return {"image": _ranges(floats.image.tower, images), "text": _ranges(floats.text.tower, texts)}


def _ranges(tower: Tower, batches: list[Tensor]) -> dict[str, Range]:
    found: dict[str, Range] = {}

    def note(name: str, given: tuple[Tensor, ...]) -> None:
        low, high = (value.item() for value in given[0].aminmax())
        before = found.get(name, (low, high))
        found[name] = min(low, before[0]), max(high, before[1])

    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: note(name, given))
        for name, module in tower.named_modules()
        if isinstance(module, nn.Linear)
    ]
    embed(tower, batches)
    for hook in hooks:
        hook.remove()
    return found
