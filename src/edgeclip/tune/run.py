"""A budget met: from settings to a bundle with its card."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.cpu import cpu_flags, granted_processors
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.split import CALIBRATE, to_choose
from edgeclip.files import as_json, locked, write_atomically
from edgeclip.tune.arguments import check_arguments, check_size
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.costs import Costs
from edgeclip.tune.device import check_room, memory_cap_mb
from edgeclip.tune.drafts import write_drafts
from edgeclip.tune.finish import finish
from edgeclip.tune.record import Budget, Compressed
from edgeclip.tune.search import Search
from edgeclip.tune.trials import Trials
from edgeclip.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Roles:
    """Decoded pairs that are calibrated on, chosen on and reported on; none is in two of them."""

    name: str
    calibrate: Prepared
    choose: Prepared
    report: Prepared


def trials_folder(out: Path) -> Path:
    """Where the trials are kept until the budget is met."""
    return out.with_name(f"{out.name}-trials")


def compress(settings: CompressSettings, out: Path) -> Compressed:
    """Write the best bundle within a budget, or the one that comes closest.

    A run that was killed goes on where it was; so does one with other limits, until a bundle has met them.

    Args:
        settings: the checkpoint, the budget and the data.
        out: the bundle's folder; an earlier bundle is replaced.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used.
    """
    start, out = time.monotonic(), out.resolve()
    check_arguments(settings, out)
    with locked(out, f"{out}, to which another run writes", fix=f"wait for it, or give `out` {out}-2"):
        torch.set_num_threads(granted_processors())
        checkpoint = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
        check_size(settings.max_size_mb, checkpoint.model.config)
        check_room(out, sum(4 * tensor.numel() for tensor in checkpoint.model.state_dict().values()))
        roles = load_roles(settings, checkpoint)
        trials = Trials(trials_folder(out), _depends_on(checkpoint, roles))
        sensitivity = write_drafts(checkpoint, trials, roles.calibrate)
        search = Search(
            costs=_costs(trials, roles.choose),
            budget=msgspec.convert(settings, Budget, from_attributes=True),
            deadline=start + settings.time_budget_s,
        )
        search.measure_towers()
        card = finish(settings, checkpoint, roles.report, roles.name, search, sensitivity, out, start)
    if card.fits:
        shutil.rmtree(trials.folder)
    else:
        logger.warning("%s keeps what was tried, for a run with other limits", trials.folder)
    return card


def load_roles(settings: CompressSettings, checkpoint: Checkpoint) -> Roles:
    """Decode the pairs of each role."""
    parts = to_choose(
        settings.data, pairs=settings.pairs, calibrate=CALIBRATE, seed=settings.seed, options=settings.data_options
    )
    return Roles(parts[2].captions.name, *prepare_parts(parts, checkpoint.preprocess_config, settings))


def _depends_on(checkpoint: Checkpoint, roles: Roles) -> str:
    """A hash of all that a trial's figures come from: model, pairs, versions, processor."""
    total = hashlib.sha256(" ".join((__version__, onnxruntime.__version__, *sorted(cpu_flags()))).encode())
    for name, tensor in checkpoint.model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().data)
    for pairs in (roles.calibrate, roles.choose, roles.report):
        total.update(pairs.pixels.data)
        total.update(repr(pairs.captions).encode())
    return total.hexdigest()


def _costs(trials: Trials, choose: Prepared) -> Costs:
    """Lay out the pairs to choose on for the processes that measure."""
    crops, texts = trials.folder / "crops.npy", trials.folder / "texts.json"
    np.save(crops, choose.pixels)
    write_atomically(texts, as_json(choose.first_captions))
    return Costs(trials, crops, texts, memory_cap_mb())
