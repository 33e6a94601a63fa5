"""Embed arrays of images and lists of texts with any model that has CLIP's two encoders.

Shape legend: N items, H and W pixels, T tokens, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeclip.config import PreprocessConfig
from edgeclip.image import normalize
from edgeclip.model.clip import Clip
from edgeclip.tokenizer import ClipTokenizer


@torch.inference_mode()
def encode_images(
    model: Clip,
    pixels: NDArray[np.uint8],
    config: PreprocessConfig,
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> NDArray[np.float32]:
    """Embed 8-bit crops.

    Args:
        model: in evaluation mode.
        pixels: (N, H, W, 3) uint8.
        config: how they are normalised.
        batch_size: images at a time. Dynamic int8 chooses one scale for a whole batch, so that its embeddings depend on
            it; at 1 they are those of a device.
        advance: told how many were done.

    Returns:
        (N, E) float32, L2-normalised.
    """
    parts = [np.empty((0, model.config.projection_dim), np.float32)]
    for start in range(0, len(pixels), batch_size):
        pixel_values = torch.from_numpy(normalize(pixels[start : start + batch_size], config))
        parts.append(model.encode_image(pixel_values).numpy())
        advance(len(pixel_values))
    return np.concatenate(parts)


@torch.inference_mode()
def encode_texts(
    model: Clip,
    texts: Sequence[str],
    tokenizer: ClipTokenizer,
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> NDArray[np.float32]:
    """Embed texts, each batch padded to its longest; see `encode_images` for the batch size. (N, E) float32."""
    parts = [np.empty((0, model.config.projection_dim), np.float32)]
    for start in range(0, len(texts), batch_size):
        input_ids = tokenizer(texts[start : start + batch_size], pad_to_longest=True)
        parts.append(model.encode_text(torch.from_numpy(input_ids)).numpy())
        advance(len(input_ids))
    return np.concatenate(parts)
