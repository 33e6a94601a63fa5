"""Small MobileCLIP checkpoints in open_clip's layout, with what open_clip makes of them: see tests/oracles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from edgeclip.checkpoint import fastvit
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from tests.oracles.weights import lively

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "oracles" / "mobileclip.json").read_text())["models"]
WORDS = ["a red ball on the table", "two blue boxes", "a photo of a small green star", "large white mug in the snow"]


def narrow(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let the name of a model's image tower stand for one as narrow and shallow as was recorded."""
    model = RECORDED[name]
    sizes, tower = model["narrower"], model["model_cfg"]["vision_cfg"]["timm_model_name"]
    rest = fastvit._TOWERS[tower][2:]
    patch.setitem(fastvit._TOWERS, tower, (tuple(sizes["embed_dims"]), tuple(sizes["layers"]), *rest))


def write(name: str, folder: Path, **changes: Any) -> Path:
    """Weights, configuration and a tokenizer that pads otherwise than open_clip, as the hub's folders have it."""
    model = RECORDED[name]
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {key: tuple(shape) for key, shape in model["shapes"].items()}
    save_file(lively(shapes), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model["model_cfg"], **changes}))
    text = model["model_cfg"]["text_cfg"]
    learn_vocabulary(WORDS, text["vocab_size"], text["context_length"]).save(folder)
    return folder
