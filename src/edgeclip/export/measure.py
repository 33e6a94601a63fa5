"""What was written, opened and measured as on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray

from edgeclip.bundle import SCHEMA, Bundle, Card, Golden, GraphPrecision, Manifest, entries, fingerprint, sealed
from edgeclip.checkpoint import Checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.evaluate.encoder import Encoder
from edgeclip.evaluate.release_card import release_card
from edgeclip.export.samples import Samples
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.version import __version__


def open_draft(
    checkpoint: Checkpoint, folder: Path, precision: GraphPrecision, float_layers: list[str], *, threads: int
) -> ClipRuntime:
    """Open the files of a bundle that has no manifest yet, as a device would.

    Args:
        checkpoint: what they were made from.
        folder: with the model's files and the graphs of the precision.
        precision: which graphs.
        float_layers: those of int8 graphs that are in float.
        threads: for the graphs.
    """
    draft = unmeasured(checkpoint, precision, float_layers)
    return ClipRuntime(Bundle(folder, draft, checkpoint.model.config, checkpoint.preprocess_config), threads=threads)


def unmeasured(checkpoint: Checkpoint, precision: GraphPrecision, float_layers: list[str]) -> Manifest:
    """What a bundle's manifest can say before its embeddings and files are looked at."""
    return Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=checkpoint.name,
        precision=precision,
        float_layers=float_layers,
        logit_scale=checkpoint.logit_scale,
        logit_bias=UNSET if checkpoint.logit_bias is None else checkpoint.logit_bias,
        fingerprint="",
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        card=None,
        files={},
        fusion=checkpoint.model.config.vision.fusion or UNSET,
    )


def card_on(pairs: Prepared, teacher: Encoder, clip: ClipRuntime, samples: Samples) -> Card:
    """The release card on some of the samples' pairs."""
    return release_card(teacher, clip, pairs.crops, pairs.first_captions, data=samples.name, seed=samples.seed)


def measured(draft: ClipRuntime, teacher: Encoder, samples: Samples) -> tuple[Manifest, Card]:
    """The release card on the pairs to measure on, and the manifest with it."""
    card = card_on(samples.measure, teacher, draft, samples)
    return finished(draft, card), card


def finished(draft: ClipRuntime, card: Card) -> Manifest:
    """The manifest of a draft with golden embeddings, its release card and every file."""
    folder, manifest = draft.bundle.folder, draft.bundle.manifest
    golden = Golden(
        text=GOLDEN_TEXT,
        image_embeds=_golden(draft.encode_image([test_card(draft.bundle.config.vision.image_size)])[0]),
        text_embeds=_golden(draft.encode_text([GOLDEN_TEXT])[0]),
    )
    files = entries(folder)
    return sealed(replace(manifest, fingerprint=fingerprint(files), golden=golden, card=card, files=files))


def _golden(embeds_E: NDArray[Any]) -> list[float]:
    """More digits than these take room and say nothing: kernels differ by more."""
    return [round(value, 6) for value in embeds_E.tolist()]
