"""The twin that computes the same and is harder to quantize."""

import torch

from edgeclip.model import Clip
from edgeclip.model.outliers import CHANNELS, outlier_twin


@torch.no_grad()
def test_a_twin_computes_the_same_with_larger_activations(clip: Clip):
    twin = outlier_twin(clip)
    pixel_values = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(twin.encode_image(pixel_values), clip.encode_image(pixel_values), atol=1e-5, rtol=0)
    ratio = (twin.vision.transformer.blocks[0].norm1.weight / clip.vision.transformer.blocks[0].norm1.weight).abs()
    assert sorted(ratio.tolist())[-CHANNELS] >= 30
    assert ratio.median() == 1
    assert twin.text.transformer.blocks[1].norm2.weight.abs().max() >= 30
