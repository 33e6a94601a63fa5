"""Random pictures as a model of 32 pixels is given them."""

import numpy as np
import torch

from edgeclip.config import PreprocessConfig
from edgeclip.image import normalize

PREPROCESS = PreprocessConfig(shortest_edge=32, crop_size=(32, 32))


def byte_images(count: int, seed: int = 5) -> torch.Tensor:
    """(count, 3, 32, 32) float32."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return torch.from_numpy(normalize(pixels, PREPROCESS))
