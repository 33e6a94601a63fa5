import msgspec
import pytest
import torch

from edgeclip.config import ClipConfig, TextConfig, VisionConfig
from edgeclip.model import Clip

ACT = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
VIT_B_32 = ClipConfig(
    projection_dim=512,
    vision=VisionConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        image_size=224,
        patch_size=32,
        **ACT,
    ),
    text=TextConfig(
        hidden_size=512,
        num_hidden_layers=12,
        num_attention_heads=8,
        intermediate_size=2048,
        vocab_size=49408,
        context_length=77,
        eos_token_id=None,
        **ACT,
    ),
)
TABLETOP = ClipConfig(
    projection_dim=256,
    vision=VisionConfig(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        image_size=224,
        patch_size=32,
        **ACT,
    ),
    text=TextConfig(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
        vocab_size=784,
        context_length=64,
        eos_token_id=783,
        **ACT,
    ),
)


def varied(config: ClipConfig) -> Clip:
    """A random model; random biases and normalisations too: at their initial values they would hide mistakes."""
    torch.manual_seed(2)
    model = Clip(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def deep_config(config: ClipConfig) -> ClipConfig:
    """Four layers a tower."""
    replace = msgspec.structs.replace
    return replace(
        config, vision=replace(config.vision, num_hidden_layers=4), text=replace(config.text, num_hidden_layers=4)
    )


@pytest.fixture
def deep(deep_config: ClipConfig) -> Clip:
    return varied(deep_config)
