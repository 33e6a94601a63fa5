"""MobileCLIP's convolutional image tower before it is trained; tests/checkpoint has what weights make of it."""

import torch

from edgeclip.config import ConvStages, Stage, VisionConfig
from edgeclip.model.fastvit import FastViT

STAGES = (Stage(width=16, depth=2), Stage(width=32, depth=2, squeezes=True), Stage(width=64, depth=2, attends=True))


@torch.no_grad()
def test_an_untrained_tower_tells_images_apart():
    """Without batch normalisations everything would vanish on the way but the biases, and nothing be learned."""
    torch.manual_seed(0)
    config = VisionConfig(
        **{"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 128},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-5, "image_size": 64, "patch_size": 16, "pooling": "places"},
        convolutions=ConvStages(stages=STAGES, norm="affine"),
    )
    tower, pixels = FastViT(config, 32).eval(), torch.rand(4, 3, 1, 1) * torch.rand(4, 3, 64, 64)
    sizes = torch.stack([state.pow(2).mean().sqrt() for state in tower.states(pixels)])
    assert sizes.min() > 0.1
    assert sizes.max() < 10
    embeds = torch.nn.functional.normalize(tower(pixels), dim=1)
    assert (embeds @ embeds.T).min() < 0.999
