import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgeclip.config import PreprocessConfig
from edgeclip.errors import CheckpointError, ConfigError
from edgeclip.model import Clip
from edgeclip.quantize.paper import (
    available_engines,
    float_parameters,
    int8_layers,
    is_student,
    load_student,
    quantize,
    read_student,
    save_student,
)
from edgeclip.tokenizer import ClipTokenizer

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("engine", available_engines())
@torch.no_grad()
def test_every_linear_and_the_patch_convolution_are_int8(clip: Clip, engine: str):
    student = load_student(clip, engine=engine)
    linears = {name for name, module in clip.named_modules() if isinstance(module, nn.Linear)}
    assert set(int8_layers(student)) == linears
    assert "vision.patch_embedding" in linears
    assert len(linears) == 2 * (2 * 4) + 3
    cosine = (student.encode_image(PIXELS) * clip.encode_image(PIXELS)).sum(dim=-1)
    assert cosine.min() > 0.99
    assert not torch.equal(student.encode_image(PIXELS), clip.encode_image(PIXELS))


def test_the_teacher_is_left_alone(clip: Clip):
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    load_student(clip)
    torch.testing.assert_close(clip.state_dict(), before, atol=0, rtol=0)
    assert not int8_layers(clip)


def test_an_unquantized_student_is_a_copy(clip: Clip):
    copy = load_student(clip, quantized=False)
    assert not int8_layers(copy)
    assert copy is not clip
    torch.testing.assert_close(copy.state_dict(), clip.state_dict(), atol=0, rtol=0)


def test_layers_can_be_left_in_float(clip: Clip):
    student = load_student(clip, float_layers=("vision.projection",))
    assert "vision.projection" not in int8_layers(student)
    assert "vision.projection.weight" in float_parameters(student)
    assert "vision.patch_embedding.weight" not in float_parameters(student)


@torch.no_grad()
def test_one_layer_by_hand():
    """QNNPACK: 8-bit activations with one scale for the tensor, 8-bit symmetric weights with one scale."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.copy_(torch.tensor([[1.27, 0.0, -0.77, 0.5], [0.01, 0.02, 0.03, 0.04]]))
    x = torch.tensor([[-1.0, 0.0, 0.5, 1.55]])
    scale_w, scale_x = 2 * 1.27 / 255, 2.55 / 255
    zero = round(1.0 / scale_x)
    quantized_x = (torch.round(x / scale_x) + zero).clamp(0, 255)
    expected = (quantized_x - zero) * scale_x @ (torch.round(layer.weight / scale_w).clamp(-128, 127) * scale_w).T
    result = quantize(nn.Sequential(layer), "qnnpack")(x)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine", available_engines())
@torch.no_grad()
def test_a_saved_student_is_int8_on_disk_and_reads_back_bit_equal(
    tmp_path: Path, clip: Clip, tokenizer: ClipTokenizer, engine: str
):
    student = load_student(clip, engine=engine)
    save_student(student, PreprocessConfig.clip(32), tokenizer, tmp_path / "s", engine)
    assert is_student(tmp_path / "s")
    stored = load_file(tmp_path / "s" / "model.safetensors")
    assert stored["vision.patch_embedding.weight"].dtype == torch.int8
    again = read_student(tmp_path / "s")
    assert torch.equal(again.encode_image(PIXELS), student.encode_image(PIXELS))
    input_ids = torch.from_numpy(tokenizer(["two blue boxes"]))
    assert torch.equal(again.encode_text(input_ids), student.encode_text(input_ids))
    assert again.logit_scale == student.logit_scale


def test_a_damaged_student_is_a_user_error(tmp_path: Path, clip: Clip, tokenizer: ClipTokenizer):
    save_student(load_student(clip), PreprocessConfig.clip(32), tokenizer, tmp_path / "s", "qnnpack")
    scheme = tmp_path / "s" / "quantization.json"
    raw = json.loads(scheme.read_text())
    scheme.write_text(json.dumps(raw | {"int8_layers": [*raw["int8_layers"], "vision.nothing"]}))
    with pytest.raises(CheckpointError, match=r"vision\.nothing"):
        read_student(tmp_path / "s")
    scheme.write_text(json.dumps(raw | {"int8_layers": raw["int8_layers"][1:]}))
    with pytest.raises(CheckpointError, match="weight"):
        read_student(tmp_path / "s")
    scheme.write_text(json.dumps(raw))
    (tmp_path / "s" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_student(tmp_path / "s")


def test_an_engine_that_isnt_there(clip: Clip):
    with pytest.raises(ConfigError, match=r"'tpu'.*qnnpack"):
        load_student(clip, engine="tpu")


def test_the_global_engine_is_restored(clip: Clip):
    before = torch.backends.quantized.engine
    load_student(clip, engine="qnnpack")
    assert torch.backends.quantized.engine == before
