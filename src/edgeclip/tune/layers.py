"""Which layers of a tower int8 costs most, from one pass: see `quantize.sensitivity`."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeclip.checkpoint import Checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.float_graphs import FloatGraphs, Tower
from edgeclip.export.int8 import HEAD
from edgeclip.export.stored import round_what_is_stored
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import as_int8, sensitivity


def layer_sensitivity(floats: FloatGraphs, pairs: Prepared) -> dict[str, dict[str, float]]:
    """By tower and layer, what 1 - mean cosine of the embeddings would be with it alone in int8; largest first.

    Args:
        floats: the towers, equalized.
        pairs: what is embedded, few.
    """
    checkpoint: Checkpoint = floats.checkpoint
    return {
        "image": _of(floats.image.tower, image_batches(pairs, checkpoint.preprocess_config), floats.pixels),
        "text": _of(floats.text.tower, text_batches(pairs, checkpoint.tokenizer)),
    }


def _of(tower: Tower, batches: list[torch.Tensor], pixels: PixelBytes | None = None) -> dict[str, float]:
    stored = copy.deepcopy(tower)
    round_what_is_stored(stored)
    linears = [name for name, module in stored.named_modules() if isinstance(module, nn.Linear) and name not in HEAD]
    with torch.no_grad():
        int8 = as_int8(stored, linears, pixels)
    losses = sensitivity(stored, int8, batches)
    return dict(sorted(losses.items(), key=lambda item: -item[1]))
