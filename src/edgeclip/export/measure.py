"""What was written, opened and measured as on a device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray

from edgeclip.bundle import Bundle, entries, fingerprint, sealed
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.data.prepare import Prepared
from edgeclip.errors import CheckpointError
from edgeclip.evaluate.encoder import Encoder
from edgeclip.evaluate.release_card import release_card
from edgeclip.export.samples import Samples
from edgeclip.manifest import SCHEMA, Card, Golden, GraphPrecision, Manifest
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.lost_words import LostWords
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.version import __version__


class Described(Protocol):
    """What a bundle says of itself: a checkpoint does, and so do another program's graphs."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def config(self) -> ClipConfig:
        """Both towers' sizes."""
        ...

    @property
    def preprocess_config(self) -> PreprocessConfig:
        """How images are made."""
        ...

    @property
    def tokenizer(self) -> ClipTokenizer:
        """How texts are."""
        ...

    @property
    def lost_words(self) -> LostWords | None:
        """What tells of words that it lost, where it did."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them."""
        ...

    @property
    def logit_bias(self) -> float | None:
        """What is added to logits where the sigmoid makes probabilities of them, else None."""
        ...


def open_draft(
    model: Described, folder: Path, precision: GraphPrecision, float_layers: list[str], *, threads: int
) -> ClipRuntime:
    """Open the files of a bundle that has no manifest yet, as a device would.

    Args:
        model: what they were made from.
        folder: with the model's files and the graphs of the precision.
        precision: which graphs.
        float_layers: those of int8 graphs that are in float.
        threads: for the graphs.
    """
    draft = unmeasured(model, precision, float_layers)
    return ClipRuntime(
        Bundle(folder=folder, image_preprocess=model.preprocess_config, manifest=draft, towers=model.config),
        threads=threads,
    )


def unmeasured(model: Described, precision: GraphPrecision, float_layers: list[str]) -> Manifest:
    """What a bundle's manifest can say before its embeddings and files are looked at."""
    return Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=model.name,
        precision=precision,
        float_layers=float_layers,
        logit_scale=model.logit_scale,
        logit_bias=UNSET if model.logit_bias is None else model.logit_bias,
        fingerprint="",
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        card=None,
        files={},
        fusion=model.config.vision.fusion or UNSET,
        words=UNSET if model.lost_words is None else model.lost_words.kept,
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
    bundle = draft.own_bundle
    golden = Golden(
        text=GOLDEN_TEXT,
        image_embeds=shortened(draft.encode_image([test_card(bundle.image_size)])[0]),
        text_embeds=shortened(draft.encode_text([GOLDEN_TEXT])[0]),
    )
    files = entries(bundle.folder)
    return sealed(replace(bundle.manifest, fingerprint=fingerprint(files), golden=golden, card=card, files=files))


def check_golden(manifest: Manifest) -> None:
    """Refuse embeddings without a direction.

    Raises:
        CheckpointError: those of a tower are zero or not finite.
    """
    golden = {"image": manifest.golden.image_embeds, "text": manifest.golden.text_embeds}
    for kind in manifest.graphs:
        if not math.isclose(math.hypot(*golden[kind]), 1, abs_tol=0.01):
            raise CheckpointError(
                f"{manifest.precision} graphs, made from {manifest.teacher}, whose {kind} embeddings have no direction",
                expected="embeddings that are finite and not zero",
                fix="download the checkpoint again, or train it at a lower rate",
            )


def shortened(embeds_E: NDArray[Any]) -> list[float]:
    """An embedding in the digits that count: more take room and say nothing: kernels differ by more."""
    return [round(value, 6) for value in embeds_E.tolist()]
