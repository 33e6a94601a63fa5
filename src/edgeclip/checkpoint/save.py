"""Write a model as a folder in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from edgeclip.checkpoint import hf
from edgeclip.checkpoint.keys import to_theirs
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.files import folder_written_atomically
from edgeclip.hf_config import write_config
from edgeclip.hf_preprocess import write_preprocess
from edgeclip.model import Clip
from edgeclip.runtime.lost_words import LostWords
from edgeclip.tokenizer import ClipTokenizer

CHECKPOINT_FILES = frozenset(
    {"config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
)
"""What `save_checkpoint` writes."""


def write_model_files(
    config: ClipConfig,
    preprocess: PreprocessConfig,
    tokenizer: ClipTokenizer,
    folder: Path,
    lost_words: LostWords | None = None,
) -> None:
    """Write everything but the weights: configuration, preprocessing and tokenizer, and what tells of lost words."""
    (folder / "config.json").write_text(json.dumps(write_config(config), indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(write_preprocess(preprocess), indent=2) + "\n")
    tokenizer.save(folder)
    if lost_words is not None:
        lost_words.write(folder)


def write_tensors(state: dict[str, Tensor], path: Path) -> None:
    """Write safetensors, readable by whoever may read the folder (the library makes files private)."""
    try:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"}
        )
    except SafetensorError as error:
        raise ConfigError(f"cannot write {path} ({error})", expected="room on the disk", fix="make some") from error
    path.chmod(path.parent.stat().st_mode & 0o666)


def save_checkpoint(
    model: Clip,
    preprocess: PreprocessConfig,
    tokenizer: ClipTokenizer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write config.json, preprocessor_config.json, the tokenizer and model.safetensors, whole or not at all."""
    with folder_written_atomically(folder) as temporary:
        write_model_files(model.config, preprocess, tokenizer, temporary)
        state = to_theirs(model.state_dict(), hf.rules(model.config))
        write_tensors({name: tensor.to(dtype) for name, tensor in state.items()}, temporary / "model.safetensors")
