"""The state of a training run on disk: written whole or not at all, and only resumed by the run that it belongs to."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.errors import DAMAGED, TrainingError

logger = logging.getLogger(__name__)

RATE = "learning rate"
"""The part of an identity that may differ from that of the state: a run that diverged goes on at a lower one."""


def digest(*arrays: NDArray[Any]) -> str:
    """A hash of the content of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class TrainState:
    """What a run needs to go on, kept in the file `path`.

    `identity` is what tells its run from others, and its `RATE`; `tensors` are those that training changes: int8
    weights stay as they are, and stay packed for their engine.
    """

    path: Path
    identity: dict[str, Any]
    tensors: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator

    def save(self, losses: list[float]) -> None:
        """Write the state beside the file; call it on every process, since each has random numbers of its own.

        Raises:
            TrainingError: there is no room for it.
        """
        rng = gather_object([_rng_state(self.accelerator.device)])
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "tensors": {name: tensor.detach() for name, tensor in self.tensors.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "losses": losses,
            "rng": rng,
        }
        try:
            with self._written.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # the latter is what torch makes of the former
            self.discard()
            reason = (isinstance(error, OSError) and error.strerror) or "not all of it was written"
            raise TrainingError(
                f"cannot write {self.path} ({reason})",
                expected="room on the disk",
                fix=f"make some, and {'go on with `resume`' if self.path.is_file() else 'run it again'}",
            ) from error

    def accept(self) -> None:
        """Let what was saved replace the file, if anything was: its weights have proved to give a finite loss."""
        if self.accelerator.is_main_process and self._written.exists():
            self._written.replace(self.path)

    def discard(self) -> None:
        """Remove what was saved and not accepted."""
        if self.accelerator.is_main_process:
            self._written.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the state of an earlier run."""
        self.discard()
        if self.accelerator.is_main_process:
            self.path.unlink(missing_ok=True)

    @property
    def _written(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def restore(self) -> list[float]:
        """Take up the state.

        Returns:
            The losses so far.

        Raises:
            TrainingError: there is none, it is damaged, or it is another run's.
        """
        if not self.path.is_file():
            raise TrainingError(f"no {self.path}", expected="the state of an earlier run", fix="start without `resume`")
        self.discard()  # perhaps half of a state
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self._check_identity(dict(state["identity"]))
            return self._take_up(state)
        except (*DAMAGED, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{self.path} cannot be read ({type(error).__name__})",
                expected="a training state",
                fix="start without `resume`",
            ) from error

    def _check_identity(self, found: dict[str, Any]) -> None:
        keys = [str(key) for key in {**self.identity, **found} if found.get(key) != self.identity.get(key)]
        if changed := [key for key in keys if key != RATE]:
            raise TrainingError(
                f"{self.path} of a run with another {' and another '.join(changed)}",
                expected="the settings and data that the run began with",
                fix="use the same settings, or start without `resume`",
            )
        if keys and self.accelerator.is_main_process:
            logger.warning("%s was trained at the rate %s, not %s", self.path, found[RATE], self.identity[RATE])

    @torch.no_grad()
    def _take_up(self, state: dict[str, Any]) -> list[float]:
        for name, tensor in self.tensors.items():
            tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        _set_rng_state(state["rng"][self.accelerator.process_index], self.accelerator.device)
        return [float(loss) for loss in state["losses"]]


def _rng_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
