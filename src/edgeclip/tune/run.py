"""A budget met: from settings to a bundle with its card."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.cpu import cpu_flags, granted_processors
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.split import CALIBRATE
from edgeclip.evaluate.environment import environment
from edgeclip.files import as_json, locked, write_atomically
from edgeclip.manifest import Engine, Truth
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.shrink.plan import count_parameters
from edgeclip.tune.arguments import check_enough, check_size, parts_of
from edgeclip.tune.candidates import KINDS, TEACHER, kinds_of, thread_counts
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.contest import MOST_ROUNDS
from edgeclip.tune.costs import CALLS, ROUND_CALLS, SECONDS, Costs
from edgeclip.tune.device import check_room, memory_cap_mb
from edgeclip.tune.drafts import Drafts
from edgeclip.tune.finish import finish
from edgeclip.tune.fused import has_many_tokens, write_fused
from edgeclip.tune.record import Budget, Compressed
from edgeclip.tune.search import WHOLE, Search
from edgeclip.tune.students import Students, training_expected
from edgeclip.tune.trials import Trials, trials_folder
from edgeclip.version import __version__

logger = logging.getLogger(__name__)

DECODE_S, EXPORT_S, START_S, WRITE_S = 0.005, 15.0, 1.0, 5e-9
"""For estimates: a picture, an export, the start of a process, a parameter of a graph."""
PASSES = 32
"""Forward passes that measuring sensitivity takes as long as."""
TORCH_S = 2.5
"""The start of a process that writes graphs, with PyTorch."""


@dataclass(frozen=True)
class Roles:
    """Decoded pairs that are calibrated on, chosen on and reported on; none is in two of them, nor among those that
    are left `to_train` students on. Where the pictures have no captions, a pair is a picture and some text.
    """

    name: str
    truth: Truth
    to_train: int
    calibrate: Prepared
    choose: Prepared
    report: Prepared


def compress(settings: CompressSettings, out: Path) -> Compressed:
    """Write the best bundle within a budget, or the one that comes closest.

    A run that was killed goes on where it was; so does one with other limits, until a bundle has met them.

    Args:
        settings: the checkpoint, the budget and the data; see `check_arguments` for what was found out before.
        out: the bundle's folder, resolved; an earlier bundle is replaced.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used.
    """
    start = time.monotonic()
    with locked(out, f"{out}, to which another run writes", fix=f"wait for it, or give `out` {out}-2"):
        torch.set_num_threads(granted_processors())
        checkpoint = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
        check_size(settings.max_size_mb, checkpoint.model.config)
        check_room(
            out,
            4 * count_parameters(checkpoint.config),
            fused=has_many_tokens(checkpoint),
            students=settings.distill,
        )
        roles = load_roles(settings, checkpoint)
        cap_mb = memory_cap_mb()
        drafts = Drafts(Trials(trials_folder(out), _depends_on(checkpoint, roles)), cap_mb)
        drafts.export(TEACHER, checkpoint, roles.calibrate)
        drafts.write(TEACHER, [KINDS[WHOLE]])
        search = Search(
            costs=_costs(drafts.trials, roles.choose, cap_mb),
            drafts=drafts,
            budget=msgspec.convert(settings, Budget, from_attributes=True),
            deadline=start + settings.time_budget_s,
            truth=roles.truth,
            logit_scale=checkpoint.logit_scale,
        )
        search.check_teacher()
        drafts.write(TEACHER, [kind for kind in kinds_of(TEACHER) if kind.name != WHOLE])
        write_fused(drafts, checkpoint, roles.calibrate)
        if settings.distill:
            Students(search, settings, roles.to_train).make()
        search.measure_towers()
        card = finish(settings, roles.report, roles.name, search, out, start)
    if card.fits:
        shutil.rmtree(drafts.trials.folder)
    else:
        logger.warning("%s keeps what was tried, for a run with other limits", drafts.trials.folder)
    return card


class Step(NamedTuple):
    """A part of the work, and how long it may take."""

    words: str
    seconds: float


def plan(settings: CompressSettings) -> list[Step]:
    """What `compress` would do, with estimates from the teacher's own speed here; nothing is written.

    Raises:
        EdgeclipError: as for `compress`.
    """
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    size = checkpoint.model.config.vision.image_size
    image, text = (
        _seconds(lambda: checkpoint.encode_image(test_card(size))),
        _seconds(lambda: checkpoint.encode_text(GOLDEN_TEXT)),
    )
    kinds = [
        kind
        for kind in KINDS.values()
        if kind.can_run and not kind.recipe and (not kind.fuse or has_many_tokens(checkpoint))
    ]
    graphs, pairs = sum(len(kind.towers) for kind in kinds) * len(thread_counts()), settings.pairs
    one, parameters = image + text, count_parameters(checkpoint.config)
    return [
        Step(f"decode {2 * pairs + CALIBRATE} pictures", 2 * pairs * DECODE_S),
        Step("export both towers, and find which layers are sensitive", EXPORT_S + PASSES * CALIBRATE * one),
        Step(
            f"write {len(kinds)} kinds of graph: {'; '.join(kind.name for kind in kinds)}",
            len(kinds) * (TORCH_S + parameters * WRITE_S),
        ),
        *([Step(*training_expected(settings, one, len(parts_of(settings)[3])))] if settings.distill else []),
        Step(f"open and time {graphs} graphs, each in a process", graphs * (START_S + min(CALLS * one / 2, SECONDS))),
        Step(f"embed {pairs} pairs with those that could win", len(kinds) / 2 * pairs * one),
        Step("measure the contenders in turn", MOST_ROUNDS * ROUND_CALLS * len(kinds) * one / 2),
        Step(f"prove the winner on {pairs} other pairs", 2 * pairs * one),
    ]


def _seconds(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def load_roles(settings: CompressSettings, checkpoint: Checkpoint) -> Roles:
    """Decode the pairs of each role.

    Raises:
        DataError: too few of them can be decoded.
    """
    *parts, to_train = parts_of(settings)
    captions = parts[2].captions
    calibrate, choose, report = prepare_parts(parts, checkpoint.preprocess_config, settings)
    check_enough(min(len(choose), len(report)), captions.things, settings)
    truth: Truth = "captions" if captions.captioned else "teacher"
    return Roles(captions.name, truth, len(to_train), calibrate, choose, report)


def _depends_on(checkpoint: Checkpoint, roles: Roles) -> str:
    """A hash of all that a trial's figures come from: model, pairs, versions, processor."""
    here = environment(granted_processors())
    engines = (str(here.get(engine)) for engine in get_args(Engine))
    total = hashlib.sha256(" ".join((__version__, *engines, *sorted(cpu_flags()))).encode())
    for name, tensor in checkpoint.model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().data)
    for pairs in (roles.calibrate, roles.choose, roles.report):
        total.update(pairs.pixels.data)
        total.update(repr(pairs.captions).encode())
    return total.hexdigest()


def _costs(trials: Trials, choose: Prepared, cap_mb: float | None) -> Costs:
    """Lay out the pairs to choose on for the processes that measure."""
    crops, texts = trials.folder / "crops.npy", trials.folder / "texts.json"
    np.save(crops, choose.pixels)
    write_atomically(texts, as_json(choose.first_captions))
    return Costs(trials, crops, texts, cap_mb)
