"""Each rewrite, and all of them together, compute what the unrewritten tower computes, with graph optimisation off."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.rewrites import plain_attention
from edgeclip.export.rewrites.pooled_last_block import PooledBlock, later_mask
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.layers import Transformer
from edgeclip.tokenizer import ClipTokenizer


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def transformers(model: Clip) -> list[tuple[Transformer, int]]:
    return [(model.vision.transformer, 32), (model.text.transformer, 24)]


@torch.no_grad()
def test_plain_attention_equals_the_fused_kernel(varied: Clip):
    for transformer, width in transformers(varied):
        x_BTD = torch.randn(2, 7, width)
        expected = transformer(x_BTD)
        assert plain_attention.rewrite(transformer.blocks) == 2
        torch.testing.assert_close(transformer(x_BTD), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_pooled_block_equals_the_block_and_the_choice_of_a_token(varied: Clip):
    for transformer, width in transformers(varied):
        x_BTD, block = torch.randn(3, 7, width), transformer.blocks[-1]
        index_B = torch.tensor([0, 6, 3]) if transformer.causal else None
        chosen = torch.zeros(3, dtype=torch.int64) if index_B is None else index_B
        expected = block(x_BTD, transformer.causal)[torch.arange(3), chosen]
        plain_attention.rewrite(transformer.blocks)
        at, mask = (0, None) if index_B is None else (index_B, later_mask(7, index_B))
        torch.testing.assert_close(PooledBlock(block)(x_BTD, at, mask), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.slow
def test_the_image_graph_equals_the_model_at_any_batch(varied: Clip, tmp_path: Path, batch: int):
    write_image_graph(ExportedImageTower(varied).eval(), tmp_path / "v.onnx")
    pixel_values = torch.randn(batch, 3, 32, 32)
    graph = session(tmp_path / "v.onnx")
    assert [(i.name, i.type) for i in graph.get_inputs()] == [("pixel_values", "tensor(float)")]
    assert [o.name for o in graph.get_outputs()] == ["image_embeds"]
    (embeds,) = graph.run(None, {"pixel_values": pixel_values.numpy()})
    np.testing.assert_allclose(embeds, varied.encode_image(pixel_values).numpy(), atol=2e-6)


@torch.no_grad()
@pytest.mark.slow
def test_the_text_graph_equals_the_model_at_any_length(varied: Clip, tmp_path: Path, tokenizer: ClipTokenizer):
    write_text_graph(ExportedTextTower(varied).eval(), tmp_path / "t.onnx")
    graph = session(tmp_path / "t.onnx")
    assert [(i.name, i.type) for i in graph.get_inputs()] == [("input_ids", "tensor(int64)")]
    for texts in (["a"], ["a red ball", "two blue boxes on the table"], [""] * 3):
        for pad_to_longest in (True, False):
            input_ids = tokenizer(texts, pad_to_longest=pad_to_longest)
            (embeds,) = graph.run(None, {"input_ids": input_ids})
            expected = varied.encode_text(torch.from_numpy(input_ids)).numpy()
            np.testing.assert_allclose(embeds, expected, atol=2e-6)
