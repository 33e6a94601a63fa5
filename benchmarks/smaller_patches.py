"""The built-in teacher with patches of 16 pixels instead of 32: `python benchmarks/smaller_patches.py`.

The patch embedding is resampled so that it gives of a patch what the teacher's gives of the patch enlarged (Beyer et
al. 2023, FlexiViT, section 3.4), the positions are interpolated, and the image tower then follows the teacher for some
minutes: the embedding, and in every layer the class token and the mean of four patches where the teacher has one. The
text tower stays the teacher's. Writes a checkpoint into --out; prints what it recalls beside the teacher.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional

from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.data.prepare import prepare
from edgeclip.data.split import scenes
from edgeclip.distill.losses.similarity import cosine_distance
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import fit
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.image import normalize
from edgeclip.model import Clip

PATCH = 16
TRAIN = TrainConfig(epochs=1, batch_size=16, lr=2e-4, weight_decay=0.05, warmup_fraction=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tabletop-16"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    teacher = load_checkpoint("builtin:tabletop")
    student = dataclasses.replace(teacher, model=resampled(teacher.model, PATCH))
    started = time.process_time()
    losses = follow(student.model, teacher, arguments.steps, arguments.seed)
    spent = time.process_time() - started
    save_checkpoint(student.model, student.preprocess_config, student.tokenizer, arguments.out)
    found = {name: measured(c, arguments.pairs) for name, c in (("teacher", teacher), ("16 pixels", student))}
    print(json.dumps({"cpu_s": round(spent), "loss": losses[-1], "R@1, I2T and T2I": found}, indent=2))


@torch.no_grad()
def resampled(model: Clip, patch_size: int) -> Clip:
    """The same model for other patches, before it has learnt them."""
    vision, D = model.config.vision, model.config.vision.hidden_size
    config = replace(model.config, vision=replace(vision, patch_size=patch_size))
    state = dict(model.state_dict())
    weight = state["vision.patch_embedding.weight"].view(-1, vision.patch_size, vision.patch_size)
    pixels = torch.eye(patch_size**2).view(-1, 1, patch_size, patch_size)
    enlarged = functional.interpolate(pixels, size=vision.patch_size, mode="bilinear").flatten(1)
    state["vision.patch_embedding.weight"] = (weight.flatten(1) @ enlarged.T).view(D, -1)
    positions, G = state["vision.position_embedding"], vision.image_size // vision.patch_size
    grid = positions[1:].T.view(1, D, G, G)
    side = vision.image_size // patch_size
    grid = functional.interpolate(grid, size=side, mode="bicubic").view(D, -1).T
    state["vision.position_embedding"] = torch.cat([positions[:1], grid])
    student = Clip(config)
    student.load_state_dict(state)
    return student


def follow(student: Clip, teacher: Checkpoint, steps: int, seed: int) -> list[float]:
    """Train the image tower in place; the loss of every step."""
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name.startswith("vision."))
    part = scenes("train", seed, steps * TRAIN.batch_size)

    def batches(wanted: range) -> Iterator[Tensor]:
        for step in wanted:
            indices = range(step * TRAIN.batch_size, (step + 1) * TRAIN.batch_size)
            prepared = prepare(part.captions, indices, teacher.preprocess_config, workers=0, on_bad_image="fail")
            yield torch.from_numpy(normalize(prepared.pixels, teacher.preprocess_config))

    def loss_of(pixel_values: Tensor) -> Tensor:
        with torch.no_grad():
            wanted, there = teacher.model.image_features(pixel_values)
        seen, here = student.image_features(pixel_values)
        states = [
            cosine_distance(as_teacher(h), t).mean()
            for h, t in zip(here.hidden_states, there.hidden_states, strict=True)
        ]
        return 10 * cosine_distance(seen, wanted).mean() + torch.stack(states).mean()

    losses = fit(student, batches, loss_of, TRAIN, steps=steps, on_step=told)
    student.eval()
    return losses


def told(step: int, loss: float) -> None:
    if step % 20 == 0:
        print(step, f"{loss:.4f}", flush=True)


def as_teacher(x_BTD: Tensor) -> Tensor:
    """(B, 1 + G*G, D) -> (B, 1 + G*G/4, D): the class token and the mean of each four neighbours."""
    B, T, D = x_BTD.shape
    side = round((T - 1) ** 0.5)
    grid_BDGG = x_BTD[:, 1:].transpose(1, 2).reshape(B, D, side, side)
    pooled_BTD = functional.avg_pool2d(grid_BDGG, 2).flatten(2).transpose(1, 2)
    return torch.cat([x_BTD[:, :1], pooled_BTD], dim=1)


def measured(checkpoint: Checkpoint, pairs: int) -> list[float]:
    """R@1 of image to text and of text to image, on scenes that nothing else has seen."""
    part = scenes("measure", 0, pairs)
    prepared = prepare(part.captions, part.indices, checkpoint.preprocess_config, workers=0, on_bad_image="fail")
    images, texts = checkpoint.encode_image(prepared.crops), checkpoint.encode_text(prepared.first_captions)
    return [found.r1.value for found in retrieval(images, texts, np.arange(pairs))]


if __name__ == "__main__":
    main()
