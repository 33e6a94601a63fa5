"""Find what describes a checkpoint: asked for, beside its weights, in its file, or among the published architectures.

Nothing is guessed: where none of these tells the activation and the heads, the checkpoint is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeclip.checkpoint import mobileclip, open_clip, openai
from edgeclip.checkpoint.description import Description
from edgeclip.checkpoint.published import QUICK, names, published
from edgeclip.checkpoint.torch_file import TensorFile
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.errors import CheckpointError
from edgeclip.files import read_whole
from edgeclip.hf_config import MODEL_TYPES, config_from
from edgeclip.hf_json import read_json, shown

HUGGING_FACE = "config.json"
TRAINING_LOG = "params.txt"
"""What open_clip's training writes beside the folder of its checkpoints: every setting, one a line."""
ASK = "give `model_config` an architecture's name such as ViT-B-32-quickgelu, or the file of a configuration"
OPENAI_ORIGIN = "the file itself, which OpenAI's code wrote"
_CHANGES = (
    *("force_image_size", "force_context_length", "image_mean", "image_std", "image_interpolation"),
    "image_resize_mode",
)
"""Settings of a training that change the model or its preprocessing; None or False where they don't."""


def configured(folder: Path, model_config: str | None, *, hugging_face: bool) -> Description | None:
    """What `model_config` says, or the configuration in the weights' folder; None where there is neither.

    Of two in a folder, that of the weights' own layout speaks.

    Raises:
        CheckpointError: it is malformed or of another kind of model.
    """
    if model_config is not None:
        return _asked(model_config)
    files = [folder / open_clip.CONFIG_NAME, folder / HUGGING_FACE]
    for path in reversed(files) if hugging_face else files:
        if path.is_file():
            raw = read_json(path)
            is_clip = path.name == open_clip.CONFIG_NAME or "vision_cfg" in raw or raw.get("model_type") in MODEL_TYPES
            if is_clip or (hugging_face and "model_type" in raw):  # else it is of something else in this folder
                return _read(raw, path)
    logs = [folder / TRAINING_LOG, folder.parent / TRAINING_LOG]
    return next((_training_log(path) for path in logs if path.is_file()), None)


def _asked(model_config: str) -> Description:
    path = Path(model_config)
    if path.is_file():
        return _read(read_json(path), path)
    if config := published(model_config):
        return Description(config, f"`model_config` {model_config}", clean="lower")
    raise CheckpointError(
        f"`model_config` {model_config}",
        expected="the file of a configuration, or a published architecture",
        fix=f"give one of {', '.join(names())}",
    )


def _read(raw: dict[str, Any], path: Path) -> Description:
    """A configuration in Hugging Face's form or in open_clip's."""
    if "model_cfg" in raw or "vision_cfg" in raw:
        return open_clip.describe(raw, path)
    return Description(config_from(raw, path), path.name)


def _training_log(path: Path) -> Description:
    """What open_clip's training says of itself, in lines such as "model: ViT-B-32"."""
    lines = read_whole(path).decode("utf-8", "replace").splitlines()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name, quick = said.get("model", ""), said.get("force_quick_gelu") == "True"
    config = published(name)
    changed = [key for key in _CHANGES if said.get(key, "None") not in ("None", "False")]
    if said.get("pretrained") == "openai" and not (quick or name.endswith(QUICK)):
        changed.append("pretrained")  # its activation depends on the version of open_clip
    if config is None or changed:
        raise CheckpointError(
            f"{path} of the model {shown(name)}" + "".join(f" with {key} {said[key]}" for key in changed),
            expected="a published architecture as it is",
            fix=ASK,
        )
    return Description(with_activation(config, "quick_gelu") if quick else config, path.name, clean="lower")


def of_itself(file: TensorFile, source: str) -> Description:
    """What a file says of itself, and the published architecture that its shapes leave.

    Raises:
        CheckpointError: its tensors are of another kind of model, or do not tell which function they are of.
    """
    if file.is_hugging_face:
        raise CheckpointError(f"{source} without a configuration", expected=f"{HUGGING_FACE} beside it", fix=ASK)
    if said := mobileclip.describe(file.tensors, source, is_apples=file.is_apples):
        return said
    sizes = openai.read_sizes(file.tensors, source)
    fitting = {name: config for name in names() if (config := published(name)) and openai.Sizes.of(config) == sizes}
    acts = {config.text.hidden_act for config in fitting.values()}
    own = {act for act, class_ in (("quick_gelu", "QuickGELU"), ("gelu", "GELU")) if class_ in file.classes}
    if all(name in file.tensors for name in openai.CONSTANTS) or own == {"quick_gelu"}:
        config = next(iter(fitting.values()), None) or openai.built(sizes)
        config = with_activation(config, "quick_gelu")
        preprocess = PreprocessConfig.clip(config.vision.image_size)
        return Description(config, OPENAI_ORIGIN, preprocess, OPENAI_ORIGIN, "openai")
    if fitting and len(own or acts) == 1:
        name, config = next(iter(fitting.items()))
        (act,) = own or acts
        return Description(with_activation(config, act), f"the shapes of {name}", clean="lower")
    fit = f"whose shapes are those of {' and '.join(fitting)}" if fitting else "of no published architecture"
    raise CheckpointError(f"{source}, {fit}", expected="a configuration beside it that tells its activation", fix=ASK)


def with_activation(config: ClipConfig, hidden_act: str) -> ClipConfig:
    """The same configuration with another activation."""
    vision, text = (msgspec.structs.replace(tower, hidden_act=hidden_act) for tower in (config.vision, config.text))
    return msgspec.structs.replace(config, vision=vision, text=text)
