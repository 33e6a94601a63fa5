"""What int8 costs in accuracy: models, each against its own fp32.

`python benchmarks/fidelity.py --pairs 1000 --seed 11` prints the release cards as JSON. The twin computes the same as
the teacher, but a few channels of every normalisation are 30 to 100 times larger, as in real checkpoints. The ViT-B/32
have random weights, normal and of Student's t with 3 degrees of freedom, and recall nothing: their cosines tell.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import ClipConfig, PreprocessConfig, VisionConfig
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.samples import load_samples
from edgeclip.manifest import Card
from edgeclip.model import Clip
from edgeclip.model.outliers import outlier_twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS)[:2])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = load_checkpoint("builtin:tabletop")
    settings = SampleSettings(data="builtin:tabletop", samples=arguments.pairs, seed=arguments.seed)
    results: dict[str, Any] = {}
    for name in arguments.models:
        checkpoint = MODELS[name](teacher)
        samples = load_samples(settings, checkpoint.preprocess_config)
        with tempfile.TemporaryDirectory() as folder:
            _, card = export_bundle(
                checkpoint, Path(folder) / "b", samples, precision="int8", threads=arguments.threads
            )
        results[name] = {**lost(card), "card": msgspec.to_builtins(card)}
    print(json.dumps(results, indent=2))


def _twin(teacher: Checkpoint) -> Checkpoint:
    return dataclasses.replace(teacher, model=outlier_twin(teacher.model))


@torch.no_grad()
def _random_b32(teacher: Checkpoint, heavy_tailed: bool = False) -> Checkpoint:
    """ViT-B/32 with the teacher's words."""
    tower = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    vision = VisionConfig(
        hidden_size=768, num_attention_heads=12, intermediate_size=3072, image_size=224, patch_size=32, **tower
    )
    text = msgspec.structs.replace(
        teacher.model.config.text, hidden_size=512, num_attention_heads=8, intermediate_size=2048, **tower
    )
    torch.manual_seed(0)
    model = Clip(ClipConfig(projection_dim=512, vision=vision, text=text)).eval()
    for module in model.modules() if heavy_tailed else ():
        if isinstance(module, torch.nn.Linear):
            draws = torch.distributions.StudentT(3.0).sample(module.weight.shape)
            module.weight.copy_(draws * module.weight.std() / draws.std())
    return dataclasses.replace(teacher, model=model, preprocess_config=PreprocessConfig.clip(224))


MODELS: dict[str, Callable[[Checkpoint], Checkpoint]] = {
    "teacher": lambda teacher: teacher,
    "twin": _twin,
    "random": _random_b32,
    "heavy-tailed": functools.partial(_random_b32, heavy_tailed=True),
}


def lost(card: Card) -> dict[str, float]:
    """Points of R@1 lost either way, and how far the embeddings are."""
    return {
        "I2T R@1 lost": round(card.teacher_i2t.r1.value - card.i2t.r1.value, 3),
        "T2I R@1 lost": round(card.teacher_t2i.r1.value - card.t2i.r1.value, 3),
        "image 1 - cosine": 1 - card.image_cosine.mean,
        "text 1 - cosine": 1 - card.text_cosine.mean,
    }


if __name__ == "__main__":
    main()
