"""One of the two encoders: read from a folder that has no other, or joined to another checkpoint's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeclip.checkpoint import bert, hf
from edgeclip.checkpoint.beside import find_tokenizer, prepared, tokenizer_origin
from edgeclip.checkpoint.keys import Rule, to_ours, without_constants
from edgeclip.checkpoint.reader import read_weights
from edgeclip.checkpoint.sentence_transformers import MODULES, is_text_tower, read_text_modules
from edgeclip.config import ClipConfig, OneTowerConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError, EdgeclipError
from edgeclip.hf_config import is_one_tower, tower_from
from edgeclip.hf_json import read_json
from edgeclip.model import Clip
from edgeclip.model.clip import MAX_LOGIT_SCALE
from edgeclip.model.fastvit import FastViT
from edgeclip.model.text import TextTower
from edgeclip.model.vision import VisionTower
from edgeclip.tokenizer import ClipTokenizer

WEIGHTS = (("model", "pytorch_model"),)
CONFIG = "config.json"


@dataclass(frozen=True, eq=False)
class OneTower:
    """A tower ready for use, in evaluation mode, on the CPU, in float32.

    `preprocess_config` is there for an image tower, `tokenizer_or_reason` for a text tower, as `Checkpoint` has them.
    """

    name: str
    layout: str
    stored_dtype: str
    tower: VisionTower | FastViT | TextTower
    projection_dim: int
    preprocess_config: PreprocessConfig | None
    tokenizer_or_reason: ClipTokenizer | EdgeclipError | None
    origins: Mapping[str, str]

    @property
    def config(self) -> OneTowerConfig:
        """Its sizes."""
        if isinstance(self.tower, TextTower):
            return OneTowerConfig(projection_dim=self.projection_dim, text=self.tower.config)
        return OneTowerConfig(projection_dim=self.projection_dim, vision=self.tower.config)

    @property
    def vision(self) -> VisionTower | FastViT:
        """The tower, where it is one of images."""
        assert not isinstance(self.tower, TextTower)  # noqa: S101 - as `config` tells
        return self.tower

    @property
    def text(self) -> TextTower:
        """The tower, where it is one of texts."""
        assert isinstance(self.tower, TextTower)  # noqa: S101 - as `config` tells
        return self.tower

    @property
    def tokenizer(self) -> ClipTokenizer:
        """The tokenizer of a text tower.

        Raises:
            EdgeclipError: there is none, or not its own.
        """
        self.require_tokenizer()
        assert isinstance(self.tokenizer_or_reason, ClipTokenizer)  # noqa: S101 - it is a text tower
        return self.tokenizer_or_reason

    def require_tokenizer(self) -> None:
        """Raise now what the tokenizer of a text tower would raise when text comes in."""
        if isinstance(self.tokenizer_or_reason, EdgeclipError):
            raise self.tokenizer_or_reason

    @property
    def kind(self) -> str:
        """In words."""
        return "a text tower" if isinstance(self.tower, TextTower) else "an image tower"


def holds_one_tower(folder: Path) -> bool:
    """Whether a folder holds one tower and not the other."""
    if is_text_tower(folder):
        return True
    path = folder / CONFIG
    return path.is_file() and is_one_tower(read_json(path))


def read_one_tower(name: str, folder: Path) -> OneTower:
    """The tower of a folder that `holds_one_tower`: sentence-transformers' modules, or a class of transformers' such as
    `CLIPVisionModelWithProjection`.

    Raises:
        CheckpointError: it is malformed, or does what no tower of ours does.
    """
    if is_text_tower(folder):
        modules = read_text_modules(folder)
        layout, origin, beside = f"sentence-transformers, {modules.container}", MODULES, modules.tokenizer_folder
        tensors, projection_dim = bert.used(modules.tensors, modules.config, ""), modules.projection_dim
        tower = _tower(name, modules.config, projection_dim, tensors, modules.rules)
    else:
        path = folder / CONFIG
        said = tower_from(read_json(path), path)
        config, projection_dim = said.vision or said.text, said.projection_dim
        assert config is not None  # noqa: S101 - it is one of the two
        file, container = read_weights(folder, WEIGHTS)
        layout, origin, beside = f"Hugging Face, {container}", path.name, folder
        tensors = _with_tower(file.tensors, config) if said.is_siglips else _projected(file.tensors, config, name)
        tower = _tower(name, config, projection_dim, tensors, hf.tower_rules(config))
    preprocess, tokenizer, origins = None, None, {"architecture": origin}
    if isinstance(tower, TextTower):
        tokenizer = find_tokenizer(beside, None, tower.config, None, name)
        origins["tokenizer"] = tokenizer_origin(beside, None, tokenizer)
    else:
        preprocess, origins["preprocessing"] = prepared(name, beside, tower.config, None, "")
    return OneTower(
        name=name,
        layout=layout,
        stored_dtype="/".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        tower=tower,
        projection_dim=projection_dim,
        preprocess_config=preprocess,
        tokenizer_or_reason=tokenizer,
        origins=origins,
    )


def _with_tower(tensors: dict[str, Tensor], config: VisionConfig | TextConfig) -> dict[str, Tensor]:
    """The names with their tower's before them, which `SiglipVisionModel` leaves out from transformers 5 on."""
    tower = f"{hf.VISION if isinstance(config, VisionConfig) else hf.TEXT}."
    if any(name.startswith(tower) for name in tensors):
        return tensors
    return {f"{tower}{name}": tensor for name, tensor in tensors.items()}


def _projected(tensors: dict[str, Tensor], config: VisionConfig | TextConfig, name: str) -> dict[str, Tensor]:
    """Refuse a tower of CLIP's that was saved without what makes embeddings of it."""
    kind, projection = ("Vision", "visual") if isinstance(config, VisionConfig) else ("Text", "text")
    if not (isinstance(config, TextConfig) and config.bert) and f"{projection}_projection.weight" not in tensors:
        raise CheckpointError(
            f"{name}, a CLIP{kind}Model, without its projection",
            expected=f"a CLIP{kind}ModelWithProjection",
            fix=f"save it from the whole model by CLIP{kind}ModelWithProjection.from_pretrained",
        )
    return tensors


def _tower(
    name: str, config: VisionConfig | TextConfig, E: int, tensors: Mapping[str, Tensor], rules: list[Rule]
) -> VisionTower | TextTower:
    with torch.device("meta"):
        tower = VisionTower(config, E) if isinstance(config, VisionConfig) else TextTower(config, E)
    kind = "vision." if isinstance(config, VisionConfig) else "text."
    shapes = {f"{kind}{key}": tensor.shape for key, tensor in tower.state_dict().items()}
    ours = to_ours(without_constants(dict(tensors), name), rules, shapes, name)
    tower.load_state_dict({key.removeprefix(kind): tensor for key, tensor in ours.items()}, assign=True)
    return tower.eval()


def join(name: str, image: OneTower, text: OneTower, scaled: Clip | None) -> Clip:
    """A model of both, with the scale, and the bias where there is one, of `scaled`; without it the largest scale.

    Raises:
        CheckpointError: they were not made for each other.
        ConfigError: their ways of pooling don't go together.
    """
    if isinstance(image.tower, TextTower) or not isinstance(text.tower, TextTower):
        wrong, part = (image, "image") if isinstance(image.tower, TextTower) else (text, "text")
        raise CheckpointError(
            f"{name}, of which {wrong.name} is {wrong.kind} alone",
            expected="an image tower before the + and a text tower after it",
            fix=f"give a checkpoint that has {'an' if part == 'image' else 'a'} {part} tower in its place",
        )
    if image.projection_dim != text.projection_dim:
        raise CheckpointError(
            f"{name} with embeddings of {image.projection_dim} for images and {text.projection_dim} for texts",
            expected="towers that were trained for each other",
            fix=f"give a text tower whose embeddings have {image.projection_dim} numbers",
        )
    vision, texts = image.tower.config, text.tower.config
    if texts.bert is None and vision.is_siglips != texts.is_siglips:
        kinds = ("SigLIP" if tower.is_siglips else "CLIP" for tower in (vision, texts))
        raise CheckpointError(
            "{} with {}'s image tower and {}'s text tower".format(name, *kinds),
            expected="towers that were trained for each other",
            fix="give both of one model",
        )
    if vision.is_siglips and scaled is None:
        raise CheckpointError(
            f"{name}, two towers of SigLIP's, neither of which has a logit scale and bias",
            expected="the whole model in place of one",
            fix="give it, or export each and give both: edgeclip.load('IMAGE+TEXT', logit_scale=..., logit_bias=...)",
        )
    config = ClipConfig(
        projection_dim=image.projection_dim,
        vision=image.tower.config,
        text=text.tower.config,
        sigmoid=scaled is not None and scaled.config.sigmoid,
    )
    with torch.device("meta"):
        model = Clip(config)
    model.vision, model.text = image.tower, text.tower
    if scaled is None:
        model.log_logit_scale = nn.Parameter(torch.tensor(math.log(MAX_LOGIT_SCALE)))
    else:
        model.log_logit_scale, model.logit_bias = scaled.log_logit_scale, scaled.logit_bias
    return model.eval()
