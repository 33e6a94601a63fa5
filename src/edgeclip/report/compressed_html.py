"""card.html: how a bundle was chosen, in one file: the budget, every candidate in a picture, and why each lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import ceil, floor, log10
from pathlib import Path

from edgeclip.files import write_atomically
from edgeclip.report.compressed import points, sentences
from edgeclip.report.html import templates
from edgeclip.tune.record import Candidate, Compressed, Figures, LayerLoss, Tried, read_card
from edgeclip.version import __version__

CARD_HTML = "card.html"
SENSITIVE_SHOWN = 12
STEPS = ((1, 10), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
"""Of a logarithmic axis, the coarsest first."""
FEWEST_TICKS = 3


@dataclass(frozen=True)
class Point:
    """A candidate in the picture, in per cent of its box: faster is to the left, smaller is lower."""

    x: float
    y: float
    kind: str
    words: str


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, and its ticks: places in per cent of it, with their values."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def place(self, value: float) -> float:
        """In per cent of the axis."""
        return round(100 * log10(value / self.low) / log10(self.high / self.low), 2)


@dataclass(frozen=True)
class Picture:
    """All candidates by time and size; `front` joins those that kept the accuracy and that none of these beats."""

    points: list[Point]
    ms: Axis
    mb: Axis
    front: str


@dataclass(frozen=True)
class Bar:
    """What a layer costs by both measures, and that in per cent of what the worst one costs."""

    layer: str
    loss: LayerLoss
    cosine: float
    ranking: float


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
    tried = sorted(card.tried, key=lambda tried: _rank(card, tried))
    judged = [one for one in tried if one.drop or one.candidate == card.winner]
    return (
        templates()
        .get_template("compressed.html")
        .render(
            card=card,
            sentences=sentences(card),
            lost=[(f"R@{k}", points(getattr(card.proof.drop, f"r{k}"))) for k in (1, 5, 10)],
            limits={name: limit for name, limit in _limits(card).items() if limit is not None},
            picture=picture(card),
            judged=judged,
            others=[one for one in tried if one not in judged],
            bars={tower: bars(losses) for tower, losses in card.sensitivity.items() if losses},
            shown=SENSITIVE_SHOWN,
            version=__version__,
        )
    )


def _limits(card: Compressed) -> dict[str, float | None]:
    return {name: getattr(card.budget, name) for name in card.budget.__struct_fields__}


def _rank(card: Compressed, tried: Tried) -> tuple[bool, float]:
    return tried.candidate != card.winner, _ms(tried.figures)


def _ms(figures: Figures) -> float:
    return float((figures.image_ms * figures.text_ms) ** 0.5)


def bars(losses: Mapping[str, LayerLoss]) -> list[Bar]:
    """Every layer's two bars, in the order that is given."""
    cosine, ranking = (
        max(*values, 1e-12) for values in zip(*((x.cosine, x.ranking) for x in losses.values()), strict=True)
    )
    return [
        Bar(layer, loss, 100 * loss.cosine / cosine, 100 * loss.ranking / ranking) for layer, loss in losses.items()
    ]


def picture(card: Compressed) -> Picture:
    """Place every candidate, and join those that none beats in both time and size."""
    ms, mb = axis([_ms(t.figures) for t in card.tried]), axis([t.figures.size_mb for t in card.tried])

    def place(tried: Tried) -> tuple[float, float]:
        return ms.place(_ms(tried.figures)), round(100 - mb.place(tried.figures.size_mb), 2)

    kinds = {tried.candidate: _kind(card, tried.candidate, tried) for tried in card.tried}
    front: list[str] = []
    smallest = float("inf")
    for tried in sorted(card.tried, key=lambda t: (_ms(t.figures), t.figures.size_mb)):
        if tried.figures.size_mb < smallest and kinds[tried.candidate] in ("kept", "winner"):
            smallest = tried.figures.size_mb
            front.append("{},{}".format(*place(tried)))
    drawn = sorted(card.tried, key=lambda t: kinds[t.candidate] == "winner")  # last, and so above the others
    found = [Point(*place(tried), kinds[tried.candidate], _words(tried)) for tried in drawn]
    return Picture(found, ms, mb, front=" ".join(front))


def axis(values: list[float]) -> Axis:
    """An axis that holds some values, with few round ticks."""
    bare = Axis(min(values) / 1.1, max(values) * 1.1, [])
    decades = range(floor(log10(bare.low)), ceil(log10(bare.high)) + 1)
    ticks: list[float] = []
    for steps in STEPS:
        ticks = [value for n, step in product(decades, steps) if bare.low <= (value := step * 10.0**n) <= bare.high]
        if len(set(ticks)) >= FEWEST_TICKS:
            break
    return Axis(bare.low, bare.high, [(bare.place(value), f"{value:g}") for value in sorted(set(ticks))])


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
