"""A bundle's release card in a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from edgeclip.bundle import Card
from edgeclip.report.terminal import console, interval, tower
from edgeclip.results import Recalls
from edgeclip.runtime.inspection import BundleInspection


def print_card(inspection: BundleInspection) -> None:
    """What the bundle keeps of its teacher, and what it is."""
    manifest, config = inspection.manifest, inspection.config
    output = console()
    if manifest.card is not None:
        output.print(_recalls(inspection.name, manifest.card))
    lines = [f"teacher     {manifest.teacher}, exported by edgeclip {manifest.edgeclip}"]
    if card := manifest.card:
        lines += [
            f"accuracy    {'kept' if card.keeps_accuracy else 'NOT kept'}: R@1 within a point both ways, mean cosine "
            "at least 0.995",
            f"cosines     images {card.image_cosine.mean:.5f} (smallest {card.image_cosine.smallest:.5f}), "
            f"texts {card.text_cosine.mean:.5f} (smallest {card.text_cosine.smallest:.5f})",
        ]
    lines += [
        f"precision   {manifest.precision}"
        + (f", in float: {', '.join(manifest.float_layers)}" if manifest.float_layers else ""),
        *([f"int8 here   {inspection.arithmetic}"] if manifest.precision == "int8" else []),
        f"image       {config.vision.image_size} px in patches of {config.vision.patch_size}, {tower(config.vision)}",
        f"text        {config.text.vocab_size:,} tokens, context {config.text.context_length}, {tower(config.text)}",
        f"embedding   {config.projection_dim} wide, logit scale {manifest.logit_scale:.2f}, "
        f"fingerprint {manifest.fingerprint}",
        f"size        {inspection.disk_bytes / 1e6:.1f} MB",
        *(f"  {entry.bytes / 1e6:9.3f}  {name}" for name, entry in manifest.files.items()),
    ]
    for line in lines:
        output.print(line, highlight=False, markup=False)


def _recalls(name: str, card: Card) -> Table:
    table = Table(
        title=escape(f"{name} on {card.pairs} pairs of {card.data}, seed {card.seed}"),
        caption="recall in %, 95 % bootstrap interval; one caption an image",
    )
    for column in ("model", "direction", "R@1", "R@5", "R@10"):
        table.add_column(column, justify="left" if column in ("model", "direction") else "right")

    def add(model: str, direction: str, recalls: Recalls) -> None:
        table.add_row(model, direction, *(interval(r) for r in (recalls.r1, recalls.r5, recalls.r10)))

    add("teacher", "image to text", card.teacher_i2t)
    add("bundle", "image to text", card.i2t)
    add("teacher", "text to image", card.teacher_t2i)
    add("bundle", "text to image", card.t2i)
    return table
