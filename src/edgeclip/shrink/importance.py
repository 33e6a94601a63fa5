"""How much each input of each Linear layer matters: its root mean square times the norm of its outgoing weights.

That is the size of what the layer's output would lose without it, for inputs that vary independently. MLP units are
inputs of fc2, heads are groups of inputs of the attention's output projection, and the channels of the residual stream
are, after normalisation, inputs of qkv, fc1 and the pooled projection: one measure serves all three.

Shape legend: B images, N texts, T tokens, D hidden size, I inputs of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeclip.model import Clip
from edgeclip.model.anatomy import texts_alone


@dataclass(frozen=True)
class Calibration:
    """Images and texts of the kind that the student will see.

    `pixel_values` (B, 3, H, W) float; `input_ids` (N, T) int64, ids of the teacher's vocabulary.
    """

    pixel_values: Tensor
    input_ids: Tensor


@torch.no_grad()
def input_importance(model: Clip, calibration: Calibration) -> dict[str, Tensor]:
    """The importance (I,) of every input of the layers named above, by the layer's name in the model."""
    sizes = _measured_sizes(model, calibration)
    state = model.state_dict()
    return {name: size_I * state[f"{name}.weight"].norm(dim=0) for name, size_I in sizes.items()}


def _measured_sizes(model: Clip, calibration: Calibration) -> dict[str, Tensor]:
    """Root mean squares over images and tokens; texts one by one, so that padding does not count."""
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        rows = x.flatten(0, -2)
        squares[name] = squares.get(name, 0) + rows.square().sum(dim=0)
        counts[name] = counts.get(name, 0) + len(rows)

    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: note(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "vision.patch_embedding"
    ]
    try:
        model.vision(calibration.pixel_values)
        for ids_1T in texts_alone(calibration.input_ids, model.config.text):
            model.text(ids_1T)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (squares[name] / counts[name]).sqrt() for name in squares}
