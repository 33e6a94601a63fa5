"""The training loop: any loss over any batches, with a schedule, metrics, crash-safe state and exact resume."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeclip.checkpoint.reader import UNREADABLE
from edgeclip.config import Config, check_range
from edgeclip.errors import ConfigError, TrainingError

B = TypeVar("B")


class TrainConfig(Config, frozen=True, kw_only=True):
    """How to train. `lr` is the peak after a linear warm-up over `warmup_fraction` of the steps; then a cosine to 0."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.1
    beta2: float = 0.98
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("beta2", self.beta2, 0, 0.999999)
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)
        check_range("max_grad_norm", self.max_grad_norm, 1e-12, 1e12)
        check_range("checkpoint_every", self.checkpoint_every, 1, 2**31)
        for name, value in (("epochs", self.epochs), ("batch-size", self.batch_size), ("lr", self.lr)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"--{name} {value}", expected="a positive number", fix="correct it")


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of a step: linear warm-up, then half a cosine."""
    warmup = max(round(steps * config.warmup_fraction), 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def make_optimizer(parameters: Mapping[str, Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, as in CLIP."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    rest = [p for p in parameters.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, config.beta2))


def fit(
    model: nn.Module,
    batches: Callable[[range], Iterable[B]],
    loss_of: Callable[[B], Tensor],
    config: TrainConfig,
    *,
    steps: int,
    identity: dict[str, Any] | None = None,
    state_file: Path | None = None,
    resume: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train the parameters of `model` that require a gradient.

    Args:
        model: what is trained; a method `clamp_logit_scale`, if any, is called after every step.
        batches: gives the batches of a range of steps; must be a function of the step alone.
        loss_of: a batch to a 0-d loss.
        config: rates and regularisation.
        steps: how many steps in all.
        identity: what else the result depends on, such as the data and the settings of the loss.
        state_file: where the state is kept, every `checkpoint_every` steps and at the end.
        resume: go on from `state_file`; the result equals an uninterrupted run's. Without it, an earlier state goes.
        on_step: called with (steps done, loss).

    Returns:
        The loss of every step.

    Raises:
        TrainingError: nothing to resume from, state of another run, or a loss that is not finite.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(trainable, config)
    identity = {
        **(identity or {}),
        "config": msgspec.to_builtins(config),
        "steps": steps,
        "initial weights": digest(*(p.detach().numpy() for p in trainable.values())),
    }
    losses: list[float] = []
    if resume and state_file is not None:
        losses = _restore(state_file, identity, trainable, optimizer)
    elif state_file is not None:
        state_file.unlink(missing_ok=True)
    for batch in batches(range(len(losses), steps)):
        step = len(losses)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        loss = loss_of(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"a loss of {value} at step {step + 1} of {steps}",
                expected="a finite loss",
                fix=f"lower --lr (now {config.lr:g})"
                + (f"; {state_file} is the last good state" if state_file else ""),
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainable.values(), config.max_grad_norm)
        optimizer.step()
        if clamp := getattr(model, "clamp_logit_scale", None):
            clamp()
        losses.append(value)
        on_step(len(losses), value)
        if state_file is not None and (len(losses) % config.checkpoint_every == 0 or len(losses) == steps):
            _save(state_file, identity, trainable, optimizer, losses)
    return losses


def digest(*arrays: NDArray[Any]) -> str:
    """A hash of the content of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _save(
    path: Path,
    identity: dict[str, Any],
    trainable: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    losses: list[float],
) -> None:
    """Keep what training changes: int8 weights stay as they are, and stay packed for their engine."""
    temporary = path.with_name(path.name + ".part")
    state = {
        "identity": identity,
        "parameters": {name: parameter.detach() for name, parameter in trainable.items()},
        "optimizer": optimizer.state_dict(),
        "losses": losses,
        "rng": torch.get_rng_state(),
    }
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _restore(
    path: Path, identity: dict[str, Any], trainable: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[float]:
    if not path.is_file():
        raise TrainingError(f"no {path}", expected="the state of an earlier run", fix="start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found, parameters, losses = state["identity"], state["parameters"], state["losses"]
    except UNREADABLE as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__})",
            expected="a training state",
            fix="start without --resume",
        ) from error
    if found != identity:
        changed = [key for key in identity if found.get(key) != identity[key]]
        raise TrainingError(
            f"{path} of a run with another {' and '.join(changed)}",
            expected="the settings and data that the run began with",
            fix="use the same options, or start without --resume",
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(parameters[name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    return losses
