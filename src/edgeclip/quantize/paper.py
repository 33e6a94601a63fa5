"""The paper's student: PyTorch dynamic int8 (its Algorithm 1), with every Linear and the patch convolution quantized.

All use of PyTorch's eager-mode quantization is in this file, and the files written are plain int8 safetensors, so that
its announced removal touches nothing else.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as Int8Linear
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.reader import read_tensors
from edgeclip.checkpoint.save import write_model_files, write_tensors
from edgeclip.config import PreprocessConfig
from edgeclip.errors import CheckpointError, ConfigError
from edgeclip.files import folder_written_atomically
from edgeclip.hf_config import read_config
from edgeclip.hf_json import read_json
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer

M = TypeVar("M", bound=nn.Module)

PAPER_ENGINE = "qnnpack"
ENGINES = ("qnnpack", "x86", "onednn")
SCHEME = "torch-dynamic-int8"


def available_engines() -> list[str]:
    """Those of ENGINES that this build of PyTorch has on this machine."""
    return [engine for engine in ENGINES if engine in torch.backends.quantized.supported_engines]


@contextmanager
def _using(engine: str) -> Iterator[None]:
    if engine not in available_engines():
        raise ConfigError(
            f"engine {engine!r}",
            expected=f"one of {', '.join(available_engines())} on this machine",
            fix="give `engine` auto",
        )
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*(quantiz|qint8|quint8).*", category=UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before


def load_student(
    teacher: Clip, *, quantized: bool = True, engine: str = PAPER_ENGINE, float_layers: tuple[str, ...] = ()
) -> Clip:
    """Algorithm 1 of the paper: copy the teacher, choose the backend, quantize its layers dynamically.

    The weights are packed for the engine that is chosen here, whatever the global setting is later.

    Args:
        teacher: any float model; it is not changed.
        quantized: False gives the float copy.
        engine: the kernel library; the paper uses QNNPACK.
        float_layers: names of Linear layers to leave as they are.

    Raises:
        ConfigError: the engine is not available.
    """
    return quantize(teacher, engine, float_layers) if quantized else copy.deepcopy(teacher)


def quantize(module: M, engine: str, float_layers: tuple[str, ...] = ()) -> M:
    """A copy of any module with its Linear layers in dynamic int8; see `load_student`."""
    student = copy.deepcopy(module)
    linears = (name for name, child in student.named_modules() if isinstance(child, nn.Linear))
    wanted = {name: default_dynamic_qconfig for name in linears if name not in float_layers}
    with _using(engine):
        return cast(M, quantize_dynamic(student, wanted, dtype=torch.qint8))


def int8_layers(model: nn.Module) -> dict[str, Int8Linear]:
    """The quantized layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Int8Linear)}


def float_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is left in float, and so all that training could change."""
    return dict(model.named_parameters())


def save_student(
    model: Clip, preprocess: PreprocessConfig, tokenizer: ClipTokenizer, folder: Path, engine: str
) -> None:
    """Write a quantized student: int8 weights with scale and zero point, the rest as float32."""
    state: dict[str, Tensor] = dict(float_parameters(model))
    for name, layer in int8_layers(model).items():
        weight, bias = layer._packed_params._weight_bias()
        state[f"{name}.weight"] = weight.int_repr()
        state[f"{name}.weight_scale"] = torch.tensor(weight.q_scale(), dtype=torch.float64)
        state[f"{name}.weight_zero_point"] = torch.tensor(weight.q_zero_point(), dtype=torch.int64)
        if bias is not None:
            state[f"{name}.bias"] = bias
    with folder_written_atomically(folder) as temporary:
        write_model_files(model.config, preprocess, tokenizer, temporary)
        write_tensors(state, temporary / "model.safetensors")
        scheme = {"scheme": SCHEME, "engine": engine, "int8_layers": sorted(int8_layers(model))}
        (temporary / "quantization.json").write_text(json.dumps(scheme, indent=2) + "\n")


def is_student(folder: Path) -> bool:
    """Whether a folder was written by `save_student`."""
    return (folder / "quantization.json").is_file()


def read_student(folder: Path) -> Clip:
    """Read a quantized student and pack its weights for its engine.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    scheme = read_json(folder / "quantization.json")
    state = read_tensors(folder / "model.safetensors").tensors
    with torch.device("meta"):
        model = Clip(read_config(folder))
    try:
        with _using(scheme["engine"]):
            layers = {name: _int8_linear(state, name) for name in scheme["int8_layers"]}
        replaced = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
        outcome = model.load_state_dict(state, strict=False, assign=True)
        for name, layer in layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
    except (KeyError, AttributeError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{folder} ({error})", expected="a complete student", fix="make it again: edgeclip reproduce"
        ) from error
    astray = sorted((set(outcome.missing_keys) | set(outcome.unexpected_keys)) - replaced)
    if astray:
        raise CheckpointError(
            f"{folder} with tensors missing or unknown: {', '.join(astray)}",
            expected="a complete student",
            fix="make it again: edgeclip reproduce",
        )
    return model.eval()


def _int8_linear(state: dict[str, Tensor], name: str) -> Int8Linear:
    """Take a layer's tensors out of the state and pack them."""
    values = state.pop(f"{name}.weight")
    scale, zero_point = state.pop(f"{name}.weight_scale").item(), state.pop(f"{name}.weight_zero_point").item()
    weight = torch._make_per_tensor_quantized_tensor(values, scale, int(zero_point))
    bias = state.pop(f"{name}.bias", None)
    layer = Int8Linear(values.shape[1], values.shape[0], bias_=bias is not None, dtype=torch.qint8)
    layer.set_weight_bias(weight, bias)
    return layer


def as_student(teacher: Checkpoint, model: Clip) -> Checkpoint:
    """A quantized student as an encoder: one item at a time, as on a device, since int8 chooses its ranges per call."""
    return replace(
        teacher,
        layout="edgeclip student, dynamic int8",
        stored_dtype="int8/float32",
        model=model,
        batch_size=1,
    )
