"""The training loop: any loss over any batches, with a schedule, metrics, crash-safe state and exact resume.

It runs on the CPU, on one GPU, or in as many processes as `accelerate launch` or `torchrun` start.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast
from torch import Tensor, nn

from edgeclip.config import Config
from edgeclip.distill.metrics import MetricsLog
from edgeclip.distill.state import RATE, TrainState
from edgeclip.distill.train_config import MixedPrecision, TrainConfig
from edgeclip.errors import ConfigError, TrainingError

B = TypeVar("B")
LossOf: TypeAlias = Callable[[B], Tensor | tuple[Tensor, dict[str, Tensor]]]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of a step: linear warm-up, then half a cosine."""
    warmup = max(round(steps * config.warmup_fraction), 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def settings_of(recipe: Config) -> dict[str, Any]:
    """A recipe as a part of `fit`'s identity, without [train], of which `fit` takes what counts."""
    return {key: value for key, value in msgspec.to_builtins(recipe).items() if key != "train"}


def make_optimizer(parameters: Mapping[str, Tensor], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, as in CLIP."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    rest = [p for p in parameters.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, config.beta2))


def start_accelerator(mixed_precision: MixedPrecision = "no", *, cpu: bool = False) -> Accelerator:
    """The processes and the device of a training run: what the launcher says, with GPUs where there are any.

    Raises:
        ConfigError: fp16 without a GPU.
        TrainingError: the processes that the launcher has started cannot be brought together.
    """
    # Else the first run of a process would settle device and precision of all that follow.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Unless it is told, accelerate looks for other processes on GPUs only.
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        cpu=cpu or not torch.accelerator.is_available(),
        # While the first process runs the teacher the others wait, for longer than the half hour that is usual.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=30))],
    )
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("mixed_precision fp16 on a CPU", expected="a GPU", fix="use bf16, or no")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise TrainingError(
            f"{started} processes on {accelerator.device.type}",
            expected="GPUs of CUDA, or a CPU",
            fix="start one process",
        )
    return accelerator


def fit(
    model: nn.Module,
    batches: Callable[[range], Iterable[B]],
    loss_of: LossOf[B],
    config: TrainConfig,
    *,
    steps: int,
    identity: dict[str, Any] | None = None,
    state_file: Path | None = None,
    metrics_file: Path | None = None,
    resume: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    accelerator: Accelerator | None = None,
) -> list[float]:
    """Train the parameters of `model` that require a gradient.

    Args:
        model: what is trained, in place; on the accelerator's device meanwhile, and on the CPU afterwards. A method
            `clamp_logit_scale`, if any, is called after every step.
        batches: gives the batches of a range of steps, or this process's share of them; must be a function of the step
            alone.
        loss_of: a batch to a 0-d loss, or to that and its parts by name, for the metrics. With several processes each
            computes it on the whole batch, from embeddings of `embed.gather`; a loss of its own share counts as one of
            several that are averaged.
        config: rates and regularisation.
        steps: how many steps in all.
        identity: what else the result depends on, such as the data, the settings of the loss, and what the weights
            at the start were made from.
        state_file: where the state is kept, every `checkpoint_every` steps and at the end. It takes the place of the
            one before once its weights have given a finite loss; the last ones do so for the last batch.
        metrics_file: where a line is added at every step, see `metrics.StepMetrics`.
        resume: go on from `state_file`, at this or another rate; with the same settings the result equals that of an
            uninterrupted run. Without it, an earlier state goes.
        on_step: called with (steps done, loss), also for the steps of a state that is taken up.
        accelerator: of `start_accelerator`; by default this process's CPU, in full precision.

    Returns:
        The loss of every step.

    Raises:
        TrainingError: nothing to resume from, state of another run, or a loss or gradient that is not finite.
    """
    accelerator = accelerator or start_accelerator(cpu=True)
    with ExitStack() as stack:
        stack.enter_context(_on_device(model, accelerator))
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = accelerator.prepare_optimizer(make_optimizer(trainable, config))
        state = None
        if state_file:
            known = _identity(model, config, steps, accelerator) | (identity or {})
            changing = {**trainable, **dict(model.named_buffers())}
            state = TrainState(state_file, known, changing, optimizer, accelerator)
            stack.callback(state.discard)
        losses = _earlier_losses(state, resume, on_step)
        remaining = range(len(losses), steps)
        log = stack.enter_context(MetricsLog(metrics_file if accelerator.is_main_process else None, done=len(losses)))
        for batch in batches(remaining):
            rate = _set_rate(optimizer, learning_rate(len(losses), steps, config))
            optimizer.zero_grad(set_to_none=True)
            loss, parts, norm = _gradients(loss_of, batch, trainable, config.max_grad_norm, accelerator)
            # With fp16 such gradients are usual: the step is left out, and the next loss scaled by less.
            if not (math.isfinite(loss) and (math.isfinite(norm) or accelerator.scaler)):
                where = f"with a gradient of norm {norm:g} at step {len(losses) + 1} of {steps}"
                raise _diverged(loss, where, len(losses), config, state)
            if state:
                state.accept()
            optimizer.step()
            if clamp := getattr(model, "clamp_logit_scale", None):
                clamp()
            losses.append(loss)
            log.write(step=len(losses), loss=loss, parts=parts, lr=rate, images=config.batch_size)
            on_step(len(losses), loss)
            if state and (len(losses) % config.checkpoint_every == 0 or len(losses) == steps):
                state.save(losses)
        if remaining and not math.isfinite(loss := _last_loss(loss_of, batch, accelerator)):
            raise _diverged(loss, f"after the last step, {steps}", steps, config, state)
        if state:
            state.accept()
    return losses


def _identity(model: nn.Module, config: TrainConfig, steps: int, accelerator: Accelerator) -> dict[str, Any]:
    """What tells one run from another. States may be kept more often on the way, and the rate be lowered."""
    settings = {k: v for k, v in msgspec.to_builtins(config).items() if k not in ("lr", "checkpoint_every")}
    return {
        RATE: config.lr,
        "model": {name: list(p.shape) for name, p in model.named_parameters()},
        "config": settings,
        "steps": steps,
        "number of processes": accelerator.num_processes,
        "device": accelerator.device.type,
    }


def _earlier_losses(state: TrainState | None, resume: bool, on_step: Callable[[int, float], None]) -> list[float]:
    """Those of the state that is taken up, after telling of them; none of one that is not."""
    if state and not resume:
        state.remove()
    losses = state.restore() if state and resume else []
    for done, loss in enumerate(losses, 1):
        on_step(done, loss)
    return losses


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _diverged(loss: float, where: str, done: int, config: TrainConfig, state: TrainState | None) -> TrainingError:
    fix = f"lower the learning rate (now {config.lr:g})" if done else "check model and data: no step is taken yet"
    if state and state.path.is_file():
        fix += f", and go on with `resume` from {state.path}, the last good state"
    return TrainingError(f"a loss of {loss:g} {where}", expected="finite numbers", fix=fix)


@contextmanager
def _on_device(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Have the model where it is trained, the same on every process, and on the CPU in the end."""
    model.to(accelerator.device)
    if accelerator.num_processes > 1:
        broadcast([p.data for p in model.parameters()])  # or each would train what its own random numbers gave
    try:
        yield
    finally:
        model.cpu()
        accelerator.free_memory()


def _gradients(
    loss_of: LossOf[B],
    batch: B,
    trainable: Mapping[str, nn.Parameter],
    max_norm: float,
    accelerator: Accelerator,
) -> tuple[float, dict[str, float], float]:
    """Compute the gradients of a batch, averaged over the processes and limited to a norm.

    Returns:
        The loss and its parts, averaged likewise, and the norm that the gradients had.
    """
    loss, parts = _loss_and_parts(loss_of, batch, accelerator)
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        for parameter in trainable.values():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
    values = torch.stack([value.detach().float() for value in (loss, *parts.values())])
    mean, *means = accelerator.reduce(values, "mean").tolist()
    norm = accelerator.clip_grad_norm_(trainable.values(), max_norm)
    return mean, dict(zip(parts, means, strict=True)), float(norm)


@torch.no_grad()
def _last_loss(loss_of: LossOf[B], batch: B, accelerator: Accelerator) -> float:
    """What the weights of the last step give, averaged over the processes."""
    loss, _ = _loss_and_parts(loss_of, batch, accelerator)
    return accelerator.reduce(loss, "mean").item()


def _loss_and_parts(loss_of: LossOf[B], batch: B, accelerator: Accelerator) -> tuple[Tensor, dict[str, Tensor]]:
    with accelerator.autocast():
        result = loss_of(batch)
    return result if isinstance(result, tuple) else (result, {"loss": result})
