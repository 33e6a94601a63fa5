"""Compare every configuration of open_clip that is read with open_clip itself, two layers deep, and record which.

Those with a text tower of transformers, whose sizes open_clip asks the hub for, are compared by open_clip_bert.py. With
names only those are compared, and take their places in what was recorded.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 timm==1.0.31 -e .[compress]
oracle/bin/python -m tests.oracles.open_clip_configurations
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from msgspec.structs import replace

from edgeclip.checkpoint import openai
from edgeclip.checkpoint.keys import without_constants
from edgeclip.checkpoint.load import build
from edgeclip.checkpoint.open_clip import describe
from edgeclip.config import ClipConfig, VisionConfig
from edgeclip.errors import CheckpointError
from tests.oracles.weights import lively, pixels, texts_with_ends

LAYERS, VOCABULARY = 2, 600
RECORDED = Path(__file__).with_suffix(".json")


def shallow(vision: VisionConfig) -> VisionConfig:
    """The same tower with so many layers, or one block a stage."""
    if vision.convolutions is None:
        return replace(vision, num_hidden_layers=LAYERS)
    stages = tuple(replace(stage, depth=1) for stage in vision.convolutions.stages)
    return replace(vision, num_hidden_layers=len(stages), convolutions=replace(vision.convolutions, stages=stages))


def theirs(model_cfg: dict[str, Any], config: ClipConfig) -> torch.nn.Module:
    """open_clip's model, as shallow."""
    create, convolutions = timm.create_model, config.vision.convolutions
    depth = {"depth": LAYERS} if convolutions is None else {"layers": (1,) * len(convolutions.stages)}
    open_clip.timm_model.timm.create_model = lambda *args, **options: create(*args, **options, **depth)
    try:
        options = {key: value for key, value in model_cfg.items() if key != "custom_text"}
        if "timm_model_name" not in options["vision_cfg"]:
            options["vision_cfg"]["layers"] = LAYERS
        is_custom = model_cfg.get("custom_text") or "timm_model_name" in options["vision_cfg"]
        return (open_clip.model.CustomTextCLIP if is_custom else open_clip.model.CLIP)(**options).eval()
    finally:
        open_clip.timm_model.timm.create_model = create


@torch.no_grad()
def difference(name: str) -> float:
    """The largest of all numbers of the embeddings of two images and three texts.

    Raises:
        CheckpointError: the configuration is not read.
    """
    model_cfg = open_clip.get_model_config(name)
    described = describe({"model_cfg": model_cfg}, Path(name))
    model_cfg["text_cfg"] |= {"layers": LAYERS, "vocab_size": VOCABULARY}
    if described.config.text.eos_token_id is not None:
        model_cfg["text_cfg"]["eos_id"] = VOCABULARY - 1
    described = describe({"model_cfg": model_cfg}, Path(name))
    config = replace(described.config, vision=shallow(described.config.vision))
    model = theirs(model_cfg, config)
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    weights = lively({key: tuple(tensor.shape) for key, tensor in state.items()})
    model.load_state_dict(weights, strict=False)
    weights = without_constants(weights, name)
    prefix = openai.text_prefix(weights)
    said_of = {"projects_text": described.projects_text, "scaled": described.scaled}
    rules = openai.rules(config, prefix, present=frozenset(weights), **said_of)
    ours = build(name, config, weights, rules)
    images, texts = pixels(config.vision.image_size), texts_with_ends(config.text.context_length, VOCABULARY)
    differences = (
        model.encode_image(images, normalize=True) - ours.encode_image(images),
        model.encode_text(texts, normalize=True) - ours.encode_text(texts),
    )
    return max(difference.abs().max().item() for difference in differences)


if __name__ == "__main__":
    names = sorted(open_clip.list_models())
    differences: dict[str, float] = json.loads(RECORDED.read_text())["differences"] if sys.argv[1:] else {}
    for name in sys.argv[1:] or names:
        if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]:
            continue
        try:
            differences[name] = difference(name)
            print(name, differences[name], flush=True)
        except CheckpointError as refused:
            print(name, refused, flush=True)
    content = {
        "versions": {"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        "configurations": {name: open_clip.get_model_config(name) for name in names},
        "differences": dict(sorted(differences.items())),
    }
    RECORDED.write_text(json.dumps(content) + "\n")
