"""A bundle's release card in a terminal."""

from __future__ import annotations

from msgspec import UNSET
from rich.table import Table

from edgeclip.config import ClipConfig, OneTowerConfig, TextCleaning
from edgeclip.manifest import CARD_MAX_LOSS, CARD_MIN_COSINE, Card, Manifest
from edgeclip.measure.inspection import BundleInspection
from edgeclip.report.terminal import console, fused, judged, recalls_table, tower

_CLEANED: dict[TextCleaning, str] = {
    "openai": "OpenAI's code",
    "lower": "open_clip's code",
    "whitespace": "open_clip's code, capitals kept",
    "canonicalize": "open_clip's code, punctuation removed",
    "siglip": "SigLIP's code, punctuation removed",
}
"""By whose example texts are repaired."""


def print_card(inspection: BundleInspection) -> None:
    """What the bundle keeps of its teacher, and what it is."""
    manifest, config = inspection.manifest, inspection.config
    output = console()
    if manifest.card is not None:
        output.print(_recalls(manifest.card))
    lines = [
        f"bundle      {inspection.name}",
        f"teacher     {manifest.teacher}, exported by edgeclip {manifest.edgeclip}",
    ]
    if card := manifest.card:
        lines += [
            f"accuracy    {'kept' if card.keeps_accuracy else 'NOT kept'}: R@1 within {CARD_MAX_LOSS:g} point both "
            f"ways, mean cosine at least {CARD_MIN_COSINE}",
            f"cosines     images {card.image_cosine.mean:.5f} (smallest {card.image_cosine.smallest:.5f}), "
            f"texts {card.text_cosine.mean:.5f} (smallest {card.text_cosine.smallest:.5f})",
        ]
    if manifest.closeness is not UNSET:
        kept, said = manifest.closeness.keeps_accuracy, f"{manifest.tower}s {manifest.closeness.mean:.5f}"
        lines += [
            f"accuracy    {'kept' if kept else 'NOT kept'}: mean cosine at least {CARD_MIN_COSINE}; one tower alone",
            f"cosines     {said} (smallest {manifest.closeness.smallest:.5f})",
        ]
    lines += [
        f"precision   {manifest.precisions}"
        + (f", in float: {', '.join(manifest.float_layers)}" if manifest.float_layers else "")
        + (f", in int4: {', '.join(manifest.int4_layers)}" if manifest.int4_layers else ""),
        *([f"int8 here   {inspection.arithmetic}"] if "int8" in manifest.precisions else []),
        *_towers(config),
        *_words(manifest),
        *_texts(inspection.text_cleaning),
        f"embedding   {config.projection_dim} wide, {_scale(manifest)}fingerprint {manifest.fingerprint}",
        f"size        {inspection.disk_bytes / 1e6:.1f} MB",
        *(f"  {entry.bytes / 1e6:9.3f}  {name}" for name, entry in manifest.files.items()),
    ]
    for line in lines:
        output.print(line, highlight=False, markup=False)


def _words(manifest: Manifest) -> list[str]:
    words = manifest.words
    if words is UNSET:
        return []
    by = [*([f"{words.texts:,} texts"] if words.texts else []), *words.scripts]
    return [f"words       KEPT {words.tokens:,} of {words.of:,} tokens, for {', '.join(by)}"]


def _towers(config: ClipConfig | OneTowerConfig) -> list[str]:
    lines, vision, text = list[str](), config.vision, config.text
    if vision is not None:
        lines.append(f"image       {vision.image_size} px in patches of {vision.patch_size}, {tower(vision)}")
        lines += [f"FUSES       {line}" for line in fused(vision)]
    if text is not None:
        lines.append(f"text        {text.vocab_size:,} tokens, context {text.context_length}, {tower(text)}")
    return lines


def _scale(manifest: Manifest) -> str:
    if manifest.logit_scale is UNSET:
        return ""
    return f"{judged(manifest.logit_scale, None if manifest.logit_bias is UNSET else manifest.logit_bias)}, "


def _texts(cleaning: TextCleaning) -> list[str]:
    if cleaning == "none":
        return []
    return [
        f"texts       repaired as by {_CLEANED[cleaning]}",
        "            (by tokenizer.json in other clients, but for mojibake, rare HTML entities and special tokens)",
    ]


def _recalls(card: Card) -> Table:
    return recalls_table(
        "model",
        [
            ("teacher", "image to text", card.teacher_i2t),
            ("bundle", "image to text", card.i2t),
            ("teacher", "text to image", card.teacher_t2i),
            ("bundle", "text to image", card.t2i),
        ],
        title=f"{card.measured_on}, seed {card.seed}",
        caption="recall in %, 95 % bootstrap interval; "
        + ("agreement with the teacher's ranking" if card.truth else "one caption an image"),
    )
