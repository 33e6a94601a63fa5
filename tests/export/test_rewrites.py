"""Each rewrite, and all of them together, compute what the unrewritten tower computes, with graph optimisation off."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgeclip.export.graph import quantize_graph, write_image_graph, write_text_graph
from edgeclip.export.rewrites import plain_attention
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.model import Clip
from edgeclip.model.layers import Transformer
from edgeclip.tokenizer import ClipTokenizer


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture
def varied(clip: Clip) -> Clip:
    """Random biases and normalisations too: at their initial values they would hide mistakes."""
    torch.manual_seed(2)
    for parameter in clip.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return clip


def transformers(model: Clip) -> list[tuple[Transformer, int]]:
    return [(model.vision.transformer, 32), (model.text.transformer, 24)]


@torch.no_grad()
def test_plain_attention_equals_the_fused_kernel(varied: Clip):
    for transformer, width in transformers(varied):
        x_BTD = torch.randn(2, 7, width)
        expected = transformer(x_BTD)
        assert plain_attention.rewrite(transformer) == 2
        torch.testing.assert_close(transformer(x_BTD), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_pooled_block_equals_the_block_and_the_choice_of_a_token(varied: Clip):
    for transformer, width in transformers(varied):
        x_BTD, block = torch.randn(3, 7, width), transformer.blocks[-1]
        index_B = torch.tensor([0, 6, 3]) if transformer.causal else None
        chosen = torch.zeros(3, dtype=torch.int64) if index_B is None else index_B
        expected = block(x_BTD, transformer.causal)[torch.arange(3), chosen]
        plain_attention.rewrite(transformer)
        torch.testing.assert_close(PooledBlock(block)(x_BTD, index_B), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 5])
def test_the_image_graph_equals_the_model_at_any_batch(varied: Clip, tmp_path: Path, batch: int):
    write_image_graph(varied, tmp_path / "v.onnx")
    pixel_values = torch.randn(batch, 3, 32, 32)
    graph = session(tmp_path / "v.onnx")
    assert [(i.name, i.type) for i in graph.get_inputs()] == [("pixel_values", "tensor(float)")]
    assert [o.name for o in graph.get_outputs()] == ["image_embeds"]
    (embeds,) = graph.run(None, {"pixel_values": pixel_values.numpy()})
    np.testing.assert_allclose(embeds, varied.encode_image(pixel_values).numpy(), atol=2e-6)


@torch.no_grad()
def test_the_text_graph_equals_the_model_at_any_length(varied: Clip, tmp_path: Path, tokenizer: ClipTokenizer):
    write_text_graph(varied, tmp_path / "t.onnx")
    graph = session(tmp_path / "t.onnx")
    assert [(i.name, i.type) for i in graph.get_inputs()] == [("input_ids", "tensor(int64)")]
    for texts in (["a"], ["a red ball", "two blue boxes on the table"], [""] * 3):
        for pad_to_longest in (True, False):
            input_ids = tokenizer(texts, pad_to_longest=pad_to_longest)
            (embeds,) = graph.run(None, {"input_ids": input_ids})
            expected = varied.encode_text(torch.from_numpy(input_ids)).numpy()
            np.testing.assert_allclose(embeds, expected, atol=2e-6)


@torch.no_grad()
def test_int8_stays_close_and_leaves_the_projection_in_float(varied: Clip, tmp_path: Path):
    write_image_graph(varied, tmp_path / "v.onnx")
    write_text_graph(varied, tmp_path / "t.onnx")
    for name in "vt":
        quantize_graph(tmp_path / f"{name}.onnx", tmp_path / f"{name}q.onnx")
    pixel_values = torch.randn(1, 3, 32, 32)
    (image,) = session(tmp_path / "vq.onnx").run(None, {"pixel_values": pixel_values.numpy()})
    assert float((image * varied.encode_image(pixel_values).numpy()).sum()) > 0.99
    graph = onnx.load_model(tmp_path / "vq.onnx").graph
    # Two blocks of four layers, the last one's query apart, and the patches.
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 2 * 4 + 1 + 1
    weights = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) <= 64
    text = onnx.load_model(tmp_path / "tq.onnx").graph
    (gather,) = (node for node in text.node if node.op_type == "Gather")
    table = next(t for t in text.initializer if t.name == gather.input[0])
    assert table.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
