"""The teacher with its images' tokens fused, which is worth a try where it has many."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from edgeclip.checkpoint import Checkpoint
from edgeclip.config import Fusion
from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches
from edgeclip.shrink.fuse_tokens import fuse_tokens, with_fusion
from edgeclip.shrink.fusion_schedule import read_schedule
from edgeclip.tune.apart import called_apart
from edgeclip.tune.candidates import KINDS, kinds_of
from edgeclip.tune.drafts import Drafts
from edgeclip.tune.trials import TrialError

FEWEST_TOKENS = 100
"""With fewer tokens of an image, finding those that are alike costs about what having fewer saves."""


def has_many_tokens(teacher: Checkpoint) -> bool:
    """Whether fusing tokens is tried."""
    return teacher.config.vision.num_tokens >= FEWEST_TOKENS


def write_fused(drafts: Drafts, teacher: Checkpoint, calibrate: Prepared) -> None:
    """Write the drafts of every schedule in `KINDS`; one that can't be had is a recorded failure."""
    schedules = {kind.source: kind.fuse for kind in KINDS.values() if kind.fuse}
    for source, schedule in schedules.items():
        found = drafts.trials.run(
            f"fusing tokens by {schedule}", partial(_fusion, drafts, teacher, schedule, calibrate)
        ).found
        if found:
            fusion = msgspec.convert(found["fusion"], Fusion)
            if drafts.export(source, replace(teacher, model=with_fusion(teacher.model, fusion)), calibrate):
                drafts.write(source, kinds_of(source))


def _fusion(drafts: Drafts, teacher: Checkpoint, schedule: str, calibrate: Prepared) -> dict[str, Any]:
    tokens = teacher.config.vision.num_tokens
    if not has_many_tokens(teacher):
        raise TrialError(
            f"an image of {tokens} tokens, of which fusing takes as long as it saves below {FEWEST_TOKENS}"
        )
    if teacher.config.vision.fusion is not None:
        raise TrialError("the teacher fuses tokens itself")
    return called_apart(_choose_fusion, teacher, schedule, calibrate, place=drafts.trials.folder, cap_mb=drafts.cap_mb)


def _choose_fusion(teacher: Checkpoint, schedule: str, calibrate: Prepared) -> dict[str, Any]:
    fused = fuse_tokens(teacher.model, read_schedule(schedule), image_batches(calibrate, teacher.preprocess_config))
    return {"fusion": msgspec.to_builtins(fused.config.vision.fusion)}
