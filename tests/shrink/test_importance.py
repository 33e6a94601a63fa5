import math

import pytest
import torch

from edgeclip.model import Clip
from edgeclip.shrink.importance import Calibration, input_importance

OUT, FC2 = "vision.transformer.blocks.1.attention.out", "vision.transformer.blocks.1.mlp.fc2"


@torch.no_grad()
def test_predicted_importance_by_hand(deep: Clip):
    block = deep.vision.transformer.blocks[1]
    block.norm1.weight[:], block.norm1.bias[:] = 0, 0
    block.norm1.weight[0], block.norm1.bias[1] = 3, 4
    block.attention.qkv.weight[:], block.attention.qkv.bias[:] = 7, 7  # queries and keys have no say
    value = slice(64, 96)
    block.attention.qkv.weight[value], block.attention.qkv.bias[value] = 0, 0
    block.attention.qkv.weight[64, :2] = torch.tensor([1.0, 2.0])
    block.attention.out.weight[:, 0] = 0
    block.attention.out.weight[:2, 0] = torch.tensor([6.0, 8.0])
    importance = input_importance(deep, None)
    # The value 1*x0 + 2*4, where x0 has the standard deviation 3; its outgoing weights have the norm 10.
    assert importance[OUT][0].item() == pytest.approx(10 * math.hypot(3, 8), rel=1e-5)
    assert importance[OUT][1:].tolist() == [0] * 31
    qkv = importance["vision.transformer.blocks.1.attention.qkv"]
    norms = block.attention.qkv.weight.norm(dim=0)
    torch.testing.assert_close(qkv[:3], torch.tensor([3 * norms[0], 4 * norms[1], 0]), rtol=1e-5, atol=0)


@torch.no_grad()
def test_measured_importance_is_that_of_the_layers_inputs(deep: Clip):
    pixel_values = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    input_ids = torch.tensor([[558, 5, 559, 559], [558, 6, 7, 559]])
    importance = input_importance(deep, Calibration(pixel_values, input_ids))
    assert importance.keys() == input_importance(deep, None).keys()
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
