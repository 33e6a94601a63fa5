"""`edgeclip card`: what is written about a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.settings import Settings


class CardSettings(Settings, frozen=True, kw_only=True):
    """Which bundle, and what its page on the hub says."""

    bundle: Annotated[str, Meta(description="A bundle's folder.")]
    huggingface: Annotated[bool, Meta(description="README.md and .eval_results for the Hugging Face hub.")] = False
    name: Annotated[str | None, Meta(description="What it will be called on the hub, user/name.")] = None
    license: Annotated[str | None, Meta(description="The base model's licence, where its own card doesn't tell.")] = (
        None
    )


def command(settings: CardSettings) -> None:
    """Write card.html, or the model card for the hub, into a bundle's folder."""
    folder = Path(settings.bundle)
    if settings.huggingface:
        from edgeclip.report.model_card import write_model_card

        written = write_model_card(folder, name=settings.name, licence=settings.license)
    else:
        from edgeclip.report.compressed_html import write_card_html

        written = [write_card_html(folder)]
    for path in written:
        print(path)
