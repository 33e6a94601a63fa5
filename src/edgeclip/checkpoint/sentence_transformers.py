"""Folders of sentence-transformers: a list of modules, each in a folder of its own.

    modules.json
    config.json  model.safetensors  tokenizer.json  sentence_bert_config.json
    1_Pooling/config.json           2_Dense/config.json  2_Dense/model.safetensors

That is a text tower alone, as clip-ViT-B-32-multilingual-v1; the image tower that it was distilled for is another
folder's, whose one module is `transformers.CLIPModel`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from edgeclip.checkpoint import bert
from edgeclip.checkpoint.keys import Rule
from edgeclip.checkpoint.reader import read_tensors, read_weights
from edgeclip.config import TextConfig
from edgeclip.errors import MALFORMED, CheckpointError
from edgeclip.files import read_whole
from edgeclip.hf_bert import Head, is_distilled, text_config
from edgeclip.hf_json import integer, read_json, shown

MODULES = "modules.json"
LENGTH = "sentence_bert_config.json"
WEIGHTS = (("model", "pytorch_model"),)
_POOLING: dict[str, Head] = {"mean": Head(pooling="mean"), "cls": Head(pooling="first")}
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
"""Keys of 1_Pooling/config.json that are true; later versions name one `pooling_mode`."""
_PROJECTION = "projection"


@dataclass(frozen=True)
class TextModules:
    """A text tower as it was read: `tensors` under the names of `rules`."""

    config: TextConfig
    projection_dim: int
    tensors: dict[str, Tensor]
    rules: list[Rule]
    container: str
    tokenizer_folder: Path


def clip_folder(folder: Path) -> Path:
    """Where the CLIP of a folder lies: in it, or where its list of modules says.

    Raises:
        CheckpointError: the list is malformed.
    """
    if not (folder / MODULES).is_file():
        return folder
    modules = _modules(folder)
    return modules[0][1] if [kind for kind, _ in modules] == ["CLIPModel"] else folder


def is_text_tower(folder: Path) -> bool:
    """Whether a folder has modules that encode texts alone."""
    return (folder / MODULES).is_file() and _modules(folder)[0][0] == "Transformer"


def read_text_modules(folder: Path) -> TextModules:
    """The text tower of a folder that `is_text_tower`.

    Raises:
        CheckpointError: it is malformed, or does what no text tower of ours does.
    """
    modules = dict(_modules(folder))
    kinds = [kind for kind, _ in _modules(folder) if kind != "Normalize"]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Dense"]):
        raise CheckpointError(
            f"{folder / MODULES} with the modules {', '.join(kinds)}",
            expected="Transformer, Pooling and at most one Dense",
            fix="give a model such as sentence-transformers/clip-ViT-B-32-multilingual-v1",
        )
    main = modules["Transformer"]
    raw = read_json(main / "config.json")
    text = text_config(raw, main / "config.json", _head(modules["Pooling"] / "config.json"))
    dense = _dense(modules["Dense"], text) if "Dense" in modules else {"weight": torch.eye(text.hidden_size)}
    assert text.bert is not None  # noqa: S101 - for the type checker
    text = replace(
        text,
        context_length=min(text.context_length, _longest(main, text)),
        bert=replace(text.bert, projection_bias="bias" in dense),
    )
    file, container = read_weights(main, WEIGHTS)
    tensors = {**file.tensors, **{f"{_PROJECTION}.{part}": tensor for part, tensor in dense.items()}}
    rules = [
        *bert.blocks(text, "", distilled=is_distilled(raw)),
        *bert.projection(text, _PROJECTION, ""),
    ]
    return TextModules(text, len(dense["weight"]), tensors, rules, container, main)


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kinds and folders of the modules, in order."""
    path = folder / MODULES
    try:
        listed = json.loads(read_whole(path))
        found = [(str(item["type"]).rpartition(".")[2], str(item["path"])) for item in listed]
    except (OSError, KeyError, TypeError, *MALFORMED) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})", expected="sentence-transformers' list", fix="download it again"
        ) from error
    for _, place in found:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise CheckpointError(
                f"{path} naming the folder {shown(place)}", expected="one inside it", fix="download it again"
            )
    if not found:
        raise CheckpointError(f"{path} without modules", expected="one or more", fix="download it again")
    return [(kind, folder / place) for kind, place in found]


def _head(path: Path) -> Head:
    raw = read_json(path)
    named = raw.get("pooling_mode")
    modes = [named] if isinstance(named, str) else [key for key, on in raw.items() if key in _FLAGS and on is True]
    others = [key for key, on in raw.items() if key.startswith("pooling_mode_") and key not in _FLAGS and on is True]
    known = [_FLAGS.get(mode, mode) for mode in modes]
    if others or len(known) != 1 or known[0] not in _POOLING:
        raise CheckpointError(
            f"{path} with the pooling {' and '.join(map(shown, [*modes, *others])) or 'of none'}",
            expected="mean, or cls for the first token",
            fix="give a model such as sentence-transformers/clip-ViT-B-32-multilingual-v1",
        )
    return _POOLING[known[0]]


def _dense(folder: Path, text: TextConfig) -> dict[str, Tensor]:
    """Weight (E, D), and bias (E,) where there is one."""
    path = folder / "config.json"
    raw = read_json(path)
    sizes = (integer(raw, "out_features", path), integer(raw, "in_features", path))
    act = str(raw.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if act != "Identity" or sizes[1] != text.hidden_size:
        raise CheckpointError(
            f"{path} with {f'the activation {act}' if act != 'Identity' else f'in_features {sizes[1]}'}",
            expected=f"Identity, of {text.hidden_size} features as the tower has",
            fix="take all folders from the same page",
        )
    file = next((folder / n for n in ("model.safetensors", "pytorch_model.bin") if (folder / n).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{folder} without weights", expected="model.safetensors or pytorch_model.bin", fix="download it again"
        )
    found = {name.removeprefix("linear."): tensor for name, tensor in read_tensors(file).tensors.items()}
    wanted = {"weight": sizes, **({"bias": sizes[:1]} if raw.get("bias", True) else {})}
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != wanted:
        raise CheckpointError(
            f"{file} with {', '.join(f'{name} {tuple(t.shape)}' for name, t in found.items())}",
            expected=" and ".join(f"{name} {shape}" for name, shape in wanted.items()),
            fix="take weights and configuration from the same page",
        )
    return found


def _longest(folder: Path, text: TextConfig) -> int:
    """Tokens of a text at most."""
    path = folder / LENGTH
    raw: dict[str, Any] = read_json(path) if path.is_file() else {}
    if raw.get("do_lower_case"):
        raise CheckpointError(
            f"{path} with do_lower_case {shown(raw['do_lower_case'])}",
            expected="letters as the tokenizer takes them",
            fix="give a model such as sentence-transformers/clip-ViT-B-32-multilingual-v1",
        )
    if raw.get("max_seq_length") is None:
        return text.context_length
    return integer(raw, "max_seq_length", path)
