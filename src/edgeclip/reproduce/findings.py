"""What explains the table: how fast each engine is at one layer, and how far gradients reach into each student."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from edgeclip.evaluate.latency import percentiles, time_calls
from edgeclip.model import Clip
from edgeclip.model.layers import MLP
from edgeclip.quantize.paper import available_engines, float_parameters, int8_layers, load_student, quantize
from edgeclip.reproduce.paper_distillation import DistillData, PaperLoss, gradients
from edgeclip.results import EngineTime, GradientReach

PROBE_PAIRS = 16


def fastest_engine(teacher: Clip) -> str:
    """Time a whole image and a text of 16 tokens on each engine, in turn, and name the fastest."""
    size = teacher.config.vision.image_size
    pixel_values = torch.zeros(1, teacher.config.vision.num_channels, size, size)
    input_ids = torch.zeros(1, min(16, teacher.config.text.context_length), dtype=torch.int64)
    students = {engine: load_student(teacher, engine=engine) for engine in available_engines()}
    with torch.inference_mode():
        times = time_calls(
            {engine: partial(student, pixel_values, input_ids) for engine, student in students.items()},
            repeats=15,
            budget_s=20,
        )
    return min(times, key=lambda engine: float(np.median(times[engine])))


def time_engines(teacher: Clip) -> list[EngineTime]:
    """Time the image tower's widest layer (the first of an MLP) in float and on each engine, side by side."""
    layer = _first_mlp_layer(teacher)
    rows = teacher.config.vision.num_tokens
    x = torch.randn(rows, layer.in_features, generator=torch.Generator().manual_seed(0))
    modules: dict[str, nn.Module] = {"float": nn.Sequential(layer)}
    modules |= {engine: quantize(nn.Sequential(layer), engine) for engine in available_engines()}
    with torch.inference_mode():
        times = time_calls({name: partial(module, x) for name, module in modules.items()}, repeats=50, budget_s=20)
    return [
        EngineTime(
            engine=name,
            rows=rows,
            inputs=layer.in_features,
            outputs=layer.out_features,
            milliseconds=percentiles(milliseconds).p50,
        )
        for name, milliseconds in times.items()
    ]


def _first_mlp_layer(model: Clip) -> nn.Linear:
    return next(module.fc1 for module in model.vision.modules() if isinstance(module, MLP))


def gradient_reach(
    variant: str, student: Clip, teacher: Clip, data: DistillData, settings: PaperLoss, drift_cosine: float
) -> GradientReach:
    """Which of a student's parameters receive a gradient, and whether it points where the float model's does.

    Args:
        variant: what to call the student.
        student: before its training.
        teacher: the float model of the same weights.
        data: pairs for one batch.
        settings: of the loss.
        drift_cosine: mean cosine between the student's image embeddings before and after its training.
    """
    indices = np.arange(min(PROBE_PAIRS, len(data.pixels)))
    reached = gradients(student, data, indices, settings)
    truth = gradients(load_student(teacher, quantized=False), data, indices, settings)
    shared = [name for name in reached if name in truth and reached[name].numel() > 1]
    cosine = None
    if shared:
        mine, float_ = (torch.cat([g[name].flatten() for name in shared]).double() for g in (reached, truth))
        cosine = float(nn.functional.cosine_similarity(mine, float_, dim=0))
    int8_count = sum(layer.in_features * layer.out_features for layer in int8_layers(student).values())
    left = float_parameters(student)
    return GradientReach(
        variant=variant,
        tensors=len(left) + len(int8_layers(student)),
        parameters=int8_count + sum(p.numel() for p in left.values()),
        reached=sorted(reached),
        reached_parameters=sum(g.numel() for g in reached.values()),
        gradient_cosine=None if cosine is None else round(cosine, 4),
        drift_cosine=round(drift_cosine, 6),
    )
