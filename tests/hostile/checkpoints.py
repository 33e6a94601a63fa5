"""Checkpoints in every layout, each with something changed: configurations, bytes, tensors, and what pickles hold."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeclip.checkpoint import load_checkpoint, openai, save_checkpoint
from edgeclip.checkpoint.keys import to_theirs
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import EdgeclipError
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer
from tests.hostile.json_values import mutated_text

DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.bool, torch.float64, torch.complex64)


def make_layouts(folder: Path, tokenizer: ClipTokenizer) -> list[Path]:
    """A small model in each layout; a file's path, or a folder's."""
    tower: dict[str, Any] = {"num_hidden_layers": 1, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    wide = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256}
    text = TextConfig(vocab_size=tokenizer.vocab_size, context_length=16, eos_token_id=None, **wide, **tower)
    vision = VisionConfig(image_size=16, patch_size=8, **wide, **tower)
    tokenizer.save(folder)
    torch.manual_seed(0)
    model = Clip(ClipConfig(projection_dim=16, vision=vision, text=text)).eval()
    save_checkpoint(model, PreprocessConfig.clip(16), tokenizer, folder / "hugging-face")
    shutil.copytree(folder / "hugging-face", folder / "pickled")
    torch.save(load_file(folder / "pickled" / "model.safetensors"), folder / "pickled" / "pytorch_model.bin")
    (folder / "pickled" / "model.safetensors").unlink()
    state = {k: v.detach() for k, v in to_theirs(model.state_dict(), openai.rules(model.config)).items()}
    _open_clip(folder / "open-clip", state, model.config, tokenizer)
    constants = {name: torch.tensor(1) for name in openai.CONSTANTS}
    torch.save({"state_dict": state | constants, "epoch": 1}, folder / "openai.pt")
    torch.save(state | constants, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    return [folder / name for name in ("hugging-face", "pickled", "open-clip", "openai.pt", "legacy.pt")]


def _open_clip(folder: Path, state: dict[str, Tensor], config: ClipConfig, tokenizer: ClipTokenizer) -> None:
    folder.mkdir()
    tokenizer.save(folder)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
    vision = {"image_size": 16, "patch_size": 8, "width": 64, "layers": 1}
    text = {"context_length": 16, "vocab_size": config.text.vocab_size, "width": 64, "heads": 1, "layers": 1}
    model = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config_json = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(config_json)


def mutated_checkpoints(layouts: list[Path], place: Path, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """One after the other, in the same place."""
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        layout = rng.choice(layouts)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        copied = place / layout.name
        shutil.copytree(layout, copied) if layout.is_dir() else shutil.copyfile(layout, copied)
        if layout.is_file():
            for file in layout.parent.glob("tokenizer*.json"):
                shutil.copyfile(file, place / file.name)
        way = rng.choice(WAYS)
        way(copied, rng)
        yield f"{layout.name} {way.__name__} {seed}/{number}", copied


def _configuration(path: Path, rng: random.Random) -> None:
    files = sorted(path.glob("*.json")) if path.is_dir() else []
    if files:
        file = rng.choice(files)
        file.write_bytes(mutated_text(file.read_text("utf-8"), rng))


def _weights_file(path: Path) -> Path:
    return path if path.is_file() else next(file for file in path.iterdir() if file.suffix in (".bin", ".safetensors"))


def _bytes(path: Path, rng: random.Random) -> None:
    file = _weights_file(path)
    data = bytearray(file.read_bytes())
    limit = rng.choice([64, 4096, len(data)])  # what says where things are is at the beginning, or at the end
    for _ in range(rng.choice([1, 1, 8, 100])):
        at = rng.randrange(limit)
        data[at if rng.random() < 0.7 else len(data) - 1 - at] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    file.write_bytes(data)


def _tensors(path: Path, rng: random.Random) -> None:
    file = _weights_file(path)
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    inner = state.get("state_dict", state)
    inner = {name: tensor.clone() for name, tensor in inner.items()}
    for name in rng.sample(sorted(inner), rng.choice([1, 2])):
        inner[name] = rng.choice(CHANGES)(inner[name], rng)
        if rng.random() < 0.3:
            inner[rng.choice([f"{name}_", "", "a.b", "x" * 300, "module." + name])] = inner.pop(name)
    plain = all(isinstance(t, Tensor) and t.layout == torch.strided for t in inner.values())
    if file.suffix == ".safetensors" and plain:
        save_file({name: tensor.contiguous() for name, tensor in inner.items()}, file)
    elif file.suffix != ".safetensors":
        torch.save(
            {"model": inner} if rng.random() < 0.3 else inner, file, _use_new_zipfile_serialization=rng.random() < 0.7
        )


CHANGES: tuple[Callable[[Tensor, random.Random], Any], ...] = (
    lambda t, rng: t.to(rng.choice(DTYPES)),
    lambda t, rng: t.reshape(-1),
    lambda t, rng: t[None],
    lambda t, rng: t.reshape(-1)[: rng.randrange(t.numel() + 1)].clone(),
    lambda t, rng: torch.full_like(t.float(), rng.choice([float("nan"), float("inf"), 0.0, 1e38])),
    lambda t, rng: t.float().to_sparse() if t.ndim else t,
    lambda t, rng: t.reshape(-1)[:1].expand(1000, 1000),
    lambda t, rng: {"nested": t},
    lambda t, rng: [t, t],
    lambda t, rng: "text",
)


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self._call


def _code(path: Path, rng: random.Random) -> None:
    """A pickle that would make a file beside the checkpoint."""
    mark = str(path.parent / MARK)
    call = rng.choice(
        [_Calls(os.mkdir, mark), _Calls(eval, f"__import__('os').mkdir({mark!r})"), _Calls(open, mark, "w")]
    )
    file = _weights_file(path)
    if file.suffix == ".safetensors":
        file.unlink()
        file = file.with_name("open_clip_pytorch_model.bin" if "open" in file.name else "pytorch_model.bin")
    kept = {"logit_scale": torch.ones(()), "a": call}
    torch.save({"state_dict": kept}, file, _use_new_zipfile_serialization=rng.random() < 0.5)


MARK = "made by code in a checkpoint"
WAYS = (_configuration, _configuration, _bytes, _tensors, _tensors, _code)


def attempt(path: Path) -> bool:
    """Load and use a checkpoint; whether it could be.

    Raises:
        AssertionError: code in it ran, or the error has more than a line.
    """
    try:
        checkpoint = load_checkpoint(path)
        checkpoint.encode_text(["a red ball"])
        checkpoint.encode_image([torch.zeros(16, 16, 3, dtype=torch.uint8).numpy()])
    except EdgeclipError as error:
        if "\n" in str(error):
            raise AssertionError(repr(error)) from error
        return False
    finally:
        if (path.parent / MARK).exists():
            raise AssertionError(f"code in {path} ran")
    return True
