"""The training loop: any loss over any batches, with a schedule, metrics, crash-safe state and exact resume.

It runs on the CPU, on one GPU, or in as many processes as `accelerate launch` or `torchrun` start.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

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
    """A recipe as a part of the identity of `RunFiles`, without [train], of which `fit` takes what counts."""
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


@dataclass(frozen=True)
class RunFiles:
    """Where a run is kept, and what tells it from others.

    Attributes:
        state: where the state is kept, every `checkpoint_every` steps and at the end. It takes the place of the one
            before once its weights have given a finite loss; the last ones do so for the last batch.
        metrics: where a line is added at every step, see `metrics.StepMetrics`.
        resume: go on from the state, at this or another rate; with the same settings the result equals that of an
            uninterrupted run. Without it, an earlier state goes.
        identity: what else the result depends on, such as the data, the settings of the loss, and what the weights
            at the start were made from.
    """

    state: Path | None = None
    metrics: Path | None = None
    resume: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)


NOT_KEPT = RunFiles()


def fit(
    model: nn.Module,
    batches: Callable[[range], Iterable[B]],
    loss_of: LossOf[B],
    config: TrainConfig,
    *,
    steps: int,
    files: RunFiles = NOT_KEPT,
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
        files: where the run is kept.
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
        run = _Run(model, loss_of, config, steps, files, accelerator)
        stack.callback(run.discard)
        losses = run.earlier_losses(files.resume)
        for done, loss in enumerate(losses, 1):
            on_step(done, loss)
        remaining = range(len(losses), steps)
        log = stack.enter_context(MetricsLog(files.metrics if accelerator.is_main_process else None, done=len(losses)))
        for batch in batches(remaining):
            loss, parts, rate = run.take_step(batch, len(losses))
            losses.append(loss)
            log.write(step=len(losses), loss=loss, parts=parts, lr=rate, images=config.batch_size)
            on_step(len(losses), loss)
            run.save(losses)
        if remaining:
            run.prove(batch)
    return losses


class _Run(Generic[B]):
    """A model on its device, with what trains it and the state on disk, if it is kept."""

    def __init__(
        self,
        model: nn.Module,
        loss_of: LossOf[B],
        config: TrainConfig,
        steps: int,
        files: RunFiles,
        accelerator: Accelerator,
    ) -> None:
        self._model, self._loss_of, self._config, self._steps = model, loss_of, config, steps
        self._accelerator = accelerator
        self._trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = accelerator.prepare_optimizer(make_optimizer(self._trainable, config))
        self._state = None
        if files.state:
            changing = {**self._trainable, **dict(model.named_buffers())}
            known = {**_identity(model, config, steps, accelerator), **files.identity}
            self._state = TrainState(files.state, known, changing, self._optimizer, accelerator)

    def earlier_losses(self, resume: bool) -> list[float]:
        """Those of the state that is taken up; none of one that is not, which goes."""
        if self._state and not resume:
            self._state.remove()
        return self._state.restore() if self._state and resume else []

    def take_step(self, batch: B, done: int) -> tuple[float, dict[str, float], float]:
        """Train on a batch after `done` others.

        Returns:
            The loss, its parts and the rate.
        """
        rate = _set_rate(self._optimizer, learning_rate(done, self._steps, self._config))
        self._optimizer.zero_grad(set_to_none=True)
        loss, parts, norm = self._gradients(batch)
        # With fp16 such gradients are usual: the step is left out, and the next loss scaled by less.
        if not (math.isfinite(loss) and (math.isfinite(norm) or self._accelerator.scaler)):
            raise self._diverged(loss, f"with a gradient of norm {norm:g} at step {done + 1} of {self._steps}", done)
        if self._state:
            self._state.accept()
        self._optimizer.step()
        if clamp := getattr(self._model, "clamp_logit_scale", None):
            clamp()
        return loss, parts, rate

    def save(self, losses: list[float]) -> None:
        """Write the state, if it is due after so many steps."""
        if self._state and (len(losses) % self._config.checkpoint_every == 0 or len(losses) == self._steps):
            self._state.save(losses)

    @torch.no_grad()
    def prove(self, batch: B) -> None:
        """Let the last state replace the one before, if its weights give a finite loss, averaged over the processes."""
        loss = self._accelerator.reduce(self._loss_and_parts(batch)[0], "mean").item()
        if not math.isfinite(loss):
            raise self._diverged(loss, f"after the last step, {self._steps}", self._steps)
        if self._state:
            self._state.accept()

    def discard(self) -> None:
        """Remove a state that was written and not proved."""
        if self._state:
            self._state.discard()

    def _gradients(self, batch: B) -> tuple[float, dict[str, float], float]:
        """Compute the gradients of a batch, averaged over the processes and limited to a norm.

        Returns:
            The loss and its parts, averaged likewise, and the norm that the gradients had.
        """
        accelerator = self._accelerator
        loss, parts = self._loss_and_parts(batch)
        accelerator.backward(loss)
        if accelerator.num_processes > 1:
            for parameter in self._trainable.values():
                if parameter.grad is not None:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")
        values = torch.stack([value.detach().float() for value in (loss, *parts.values())])
        mean, *means = accelerator.reduce(values, "mean").tolist()
        norm = accelerator.clip_grad_norm_(self._trainable.values(), self._config.max_grad_norm)
        return mean, dict(zip(parts, means, strict=True)), float(norm)

    def _loss_and_parts(self, batch: B) -> tuple[Tensor, dict[str, Tensor]]:
        with self._accelerator.autocast():
            result = self._loss_of(batch)
        return result if isinstance(result, tuple) else (result, {"loss": result})

    def _diverged(self, loss: float, where: str, done: int) -> TrainingError:
        rate = f"lower the learning rate (now {self._config.lr:g})"
        fix = rate if done else "check model and data: no step is taken yet"
        if self._state and self._state.path.is_file():
            fix += f", and go on with `resume` from {self._state.path}, the last good state"
        return TrainingError(f"a loss of {loss:g} {where}", expected="finite numbers", fix=fix)


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


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


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
