"""From settings to a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from msgspec.structs import replace

from edgeclip.bundle import check_replaceable
from edgeclip.checkpoint.load import load_towers
from edgeclip.checkpoint.one_tower import OneTower
from edgeclip.config import PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.export.calibration_batches import image_batches
from edgeclip.export.export_settings import ExportSettings
from edgeclip.export.foreign import export_foreign
from edgeclip.export.immich import ImmichManifest, export_immich
from edgeclip.export.make_bundle import export_bundle
from edgeclip.export.one_tower import export_one_tower
from edgeclip.export.samples import load_samples
from edgeclip.files import locked
from edgeclip.manifest import Card, Closeness, Manifest
from edgeclip.runtime.foreign import at_hand, foreign_graphs
from edgeclip.runtime.joined import refuse_joined
from edgeclip.shrink.fuse_tokens import fuse_tokens
from edgeclip.shrink.fusion_schedule import FusionSchedule, read_schedule, steps_of
from edgeclip.shrink.keep_words import keep_words, read_words

UNSEEN_SIDE = 32
"""Pixels of the images that captions come with, which a text tower does not see."""


def export(settings: ExportSettings, out: Path) -> tuple[Manifest | ImmichManifest, Card | Closeness]:
    """Write a bundle, whole or not at all; an earlier bundle in its place is replaced.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used, or another thing in place.
    """
    out = out.resolve()
    check_replaceable(out)
    if settings.combined_graph and settings.layout == "immich":
        raise ConfigError(
            "`combined_graph` with `layout` immich", expected="one of them", fix="leave out `combined_graph`"
        )
    schedule = None if settings.fuse_tokens is None else read_schedule(settings.fuse_tokens)
    with locked(out, f"{out}, to which another run exports", fix=f"wait for it, or give `out` {out}-2"):
        return _export(settings, schedule, out)


def _export(
    settings: ExportSettings, schedule: FusionSchedule | None, out: Path
) -> tuple[Manifest | ImmichManifest, Card | Closeness]:
    torch.set_num_threads(settings.threads)
    refuse_joined(settings.model, "export the checkpoints that they were made from, as IMAGE+TEXT")
    source = str(at_hand(settings.model))
    if (foreign := foreign_graphs(source)) is not None:
        return export_foreign(replace(settings, model=source), foreign, out)
    for name in ("logit_scale", "logit_bias"):
        if getattr(settings, name) is not None:
            raise ConfigError(
                f"`{name}` for {settings.model}, a checkpoint", expected="its own", fix=f"leave out `{name}`"
            )
    words = read_words(settings.keep_words, settings.data_options) if settings.keep_words else None
    found = load_towers(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    found.require_tokenizer()  # refused before the work
    if isinstance(found, OneTower):
        return _export_one_tower(settings, found, out)
    checkpoint = found
    if schedule is not None:
        steps_of(schedule, checkpoint.model.config.vision)  # the same
    samples = load_samples(settings, checkpoint.preprocess_config)
    precision, threads, teacher = settings.precision, settings.threads, checkpoint
    if words is not None:
        checkpoint = keep_words(checkpoint, *words)
    if schedule is not None:
        images = image_batches(samples.calibrate, checkpoint.preprocess_config)
        checkpoint = dataclasses.replace(checkpoint, model=fuse_tokens(checkpoint.model, schedule, images))
    if settings.layout == "immich":
        return export_immich(checkpoint, out, samples, precision=precision, threads=threads, teacher=teacher)
    return export_bundle(
        checkpoint,
        out,
        samples,
        precision=precision,
        threads=threads,
        combined_graph=settings.combined_graph,
        teacher=teacher,
    )


def _export_one_tower(settings: ExportSettings, source: OneTower, out: Path) -> tuple[Manifest, Closeness]:
    asked = {
        "layout": settings.layout != "edgeclip",
        "combined_graph": settings.combined_graph,
        "fuse_tokens": settings.fuse_tokens is not None,
        "keep_words": bool(settings.keep_words),
    }
    if odd := [name for name, is_asked in asked.items() if is_asked]:
        raise ConfigError(
            f"`{odd[0]}` for {source.name}, {source.kind} alone", expected="both towers", fix=f"leave out `{odd[0]}`"
        )
    preprocess = source.preprocess_config or PreprocessConfig.clip(UNSEEN_SIDE)
    samples = load_samples(settings, preprocess)
    return export_one_tower(source, out, samples, precision=settings.precision, threads=settings.threads)
