import torch

from edgeclip.model import Clip
from edgeclip.shrink.importance import Calibration, input_importance

LAYERS = ("attention.qkv", "attention.out", "mlp.fc1", "mlp.fc2")
FC2 = "vision.transformer.blocks.1.mlp.fc2"


@torch.no_grad()
def test_measured_importance_is_that_of_the_layers_inputs(deep: Clip):
    pixel_values = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    input_ids = torch.tensor([[558, 5, 559, 559], [558, 6, 7, 559]])
    importance = input_importance(deep, Calibration(pixel_values, input_ids))
    layers = [
        f"{tower}.transformer.blocks.{n}.{layer}" for tower in ("vision", "text") for n in range(4) for layer in LAYERS
    ]
    assert importance.keys() == {*layers, "vision.projection", "text.projection"}
    block, states = deep.vision.transformer.blocks[1], []
    block.norm2.register_forward_hook(lambda module, args, out: states.append(out))
    deep.vision(pixel_values)
    hidden = block.mlp.activation(block.mlp.fc1(states[0]))
    expected = hidden.square().mean(dim=(0, 1)).sqrt() * block.mlp.fc2.weight.norm(dim=0)
    torch.testing.assert_close(importance[FC2], expected, rtol=1e-5, atol=0)
    # Texts count up to their end: three tokens of the first and four of the second.
    states.clear()
    deep.text.transformer.blocks[0].norm1.register_forward_hook(lambda module, args, out: states.append(out))
    deep.text(input_ids)
    rows = torch.cat([states[0][0, :3], states[0][1]])
    weight = deep.text.transformer.blocks[0].attention.qkv.weight
    expected = rows.square().mean(dim=0).sqrt() * weight.norm(dim=0)
    torch.testing.assert_close(importance["text.transformer.blocks.0.attention.qkv"], expected, rtol=1e-5, atol=0)
