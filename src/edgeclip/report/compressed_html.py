"""card.html: how a bundle was chosen, in one file: the budget, every candidate in a picture, and why each lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import log10
from pathlib import Path

from edgeclip.files import write_atomically
from edgeclip.report.compressed import points, sentences
from edgeclip.report.html import templates
from edgeclip.tune.record import Candidate, Compressed, Figures, Tried, read_card
from edgeclip.version import __version__

CARD_HTML = "card.html"
SENSITIVE_SHOWN = 12


@dataclass(frozen=True)
class Point:
    """A candidate in the picture, in per cent of its box: faster is to the left, smaller is lower."""

    x: float
    y: float
    kind: str
    words: str


@dataclass(frozen=True)
class Picture:
    """All candidates by time and size, on logarithmic axes; `low` and `high` are the ends of each."""

    points: list[Point]
    low_ms: float
    high_ms: float
    low_mb: float
    high_mb: float
    front: str


def write_card_html(folder: Path) -> Path:
    """Write card.html into a bundle that `edgeclip compress` made.

    Raises:
        BundleError: it did not make it.
    """
    card = read_card(folder)
    write_atomically(folder / CARD_HTML, render(card).encode())
    return folder / CARD_HTML


def render(card: Compressed) -> str:
    """The card as HTML text."""
    bars = {
        tower: [(name, loss, 100 * loss / max(max(losses.values()), 1e-12)) for name, loss in losses.items()]
        for tower, losses in card.sensitivity.items()
        if losses
    }
    return (
        templates()
        .get_template("compressed.html")
        .render(
            card=card,
            sentences=sentences(card),
            lost=[(name, points(getattr(card.proof.drop, name))) for name in ("r1", "r5", "r10")],
            limits={name: limit for name, limit in _limits(card).items() if limit is not None},
            picture=picture(card),
            tried=sorted(card.tried, key=lambda tried: _rank(card, tried)),
            bars={tower: rows[:SENSITIVE_SHOWN] for tower, rows in bars.items()},
            environment=json.dumps(card.environment, indent=1),
            version=__version__,
        )
    )


def _limits(card: Compressed) -> dict[str, float | None]:
    return {name: getattr(card.budget, name) for name in card.budget.__struct_fields__}


def _rank(card: Compressed, tried: Tried) -> tuple[bool, float]:
    return tried.candidate != card.winner, _ms(tried.figures)


def _ms(figures: Figures) -> float:
    return float((figures.image_ms * figures.text_ms) ** 0.5)


def picture(card: Compressed) -> Picture:
    """Place every candidate, and join those that none beats in both time and size."""
    times, sizes = [_ms(t.figures) for t in card.tried], [t.figures.size_mb for t in card.tried]
    ends = min(times) / 1.1, max(times) * 1.1, min(sizes) / 1.1, max(sizes) * 1.1

    def place(tried: Tried) -> tuple[float, float]:
        x = 100 * log10(_ms(tried.figures) / ends[0]) / log10(ends[1] / ends[0])
        y = 100 - 100 * log10(tried.figures.size_mb / ends[2]) / log10(ends[3] / ends[2])
        return round(x, 2), round(y, 2)

    found = [Point(*place(tried), _kind(card, tried.candidate, tried), _words(tried)) for tried in card.tried]
    front: list[str] = []
    smallest = float("inf")
    for tried in sorted(card.tried, key=lambda t: (_ms(t.figures), t.figures.size_mb)):
        if tried.figures.size_mb < smallest:
            smallest = tried.figures.size_mb
            front.append("{},{}".format(*place(tried)))
    return Picture(found, *ends, front=" ".join(front))


def _kind(card: Compressed, candidate: Candidate, tried: Tried) -> str:
    if candidate == card.winner:
        return "winner"
    if (candidate.image, candidate.text) == ("fp32", "fp32"):
        return "teacher"
    if tried.drop is None:
        return "unmeasured"
    return "refused" if tried.drop.most > card.budget.max_drop else "kept"


def _words(tried: Tried) -> str:
    lost = "accuracy not needed" if tried.drop is None else f"R@1 lost {points(tried.drop.r1)}"
    figures = tried.figures
    return (
        f"{tried.candidate.name}: image {figures.image_ms:.2f} ms, text {figures.text_ms:.2f} ms, "
        f"{figures.size_mb:.1f} MB; {lost}; {tried.outcome}"
    )
