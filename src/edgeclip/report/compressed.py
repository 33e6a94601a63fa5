"""What `edgeclip compress` found, in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.table import Table

from edgeclip.report.terminal import console
from edgeclip.results import Interval
from edgeclip.tune.record import Compressed, Tried

SHOWN = 12
AGREEMENT = (
    "There were no captions, so that the gate is agreement with the teacher: R@k is what the first k answers are worth "
    "by the teacher's own probabilities, of the most that k could be worth."
)


def print_compressed(card: Compressed, out: Path) -> None:
    """The winner, what it costs and loses, and the others."""
    output = console()
    output.print(_table(card))
    for line in sentences(card):
        output.print(line, highlight=False, markup=False)
    output.print(str(out), highlight=False, markup=False)


def sentences(card: Compressed) -> list[str]:
    """What came of it, in sentences."""
    figures, lost = card.figures, card.proof.drop
    lines = [
        f"{'Chosen' if card.fits else 'Nothing fits; the closest'}: {card.winner.name}: image {figures.image_ms:.2f} "
        f"ms, text {figures.text_ms:.2f} ms, {figures.size_mb:.1f} MB, {figures.rss_mb:.0f} MB of memory, opens in "
        f"{figures.open_ms:.0f} ms."
    ]
    if student := card.student:
        lines.append(
            f"It is a student that `edgeclip distill --recipe {student.recipe}` would make of the teacher, trained on "
            f"{student.images} images {student.epochs} times."
        )
    measured_alike = next((tried.figures for tried in card.tried if tried.candidate == card.winner), None)
    if (teacher := card.teacher) and (own := measured_alike):
        lines.append(
            f"Beside the teacher's own float graphs: images {_times(teacher.image_ms / own.image_ms, 'fast')}, texts "
            f"{_times(teacher.text_ms / own.text_ms, 'fast')}, {_times(teacher.size_mb / own.size_mb, 'small')}."
        )
    lines.append(
        f"Points lost on {card.proof.measured_on}, that no choice has seen: R@1 {points(lost.r1)}, R@5 "
        f"{points(lost.r5)}, R@10 {points(lost.r10)}."
    )
    if card.proof.same_first is not None:
        lines.append(
            f"{AGREEMENT} Its first answer is the teacher's for {card.proof.same_first:.1f} % of pictures and texts."
        )
    for name, value in card.over.items():
        more = f"; all else being kept, {name} {card.relax[name]:g} would do" if name in card.relax else ""
        lines.append(f"Over the budget: {name} {value:.4g}, with a limit of {getattr(card.budget, name):g}{more}.")
    return lines


def _times(ratio: float, what: Literal["fast", "small"]) -> str:
    opposite = {"fast": "slow", "small": "large"}[what]
    return f"{ratio:.1f} times {what}er" if ratio >= 1 else f"{1 / ratio:.1f} times {opposite.removesuffix('e')}er"


def points(lost: Interval) -> str:
    """Points lost, with their interval."""
    return f"{lost.value:+.2f} ({lost.low:+.2f} to {lost.high:+.2f})"


def _table(card: Compressed) -> Table:
    table = Table(title=f"{card.model}: {card.trials} trials in {card.seconds:.0f} s")
    table.add_column("candidate")
    for column in ("image ms", "text ms", "MB", "RSS MB", "open ms", "R@1 lost"):
        table.add_column(column, justify="right")
    table.add_column("outcome")
    for tried in _shown(card):
        f = tried.figures
        costs = (f"{f.image_ms:.2f}", f"{f.text_ms:.2f}", f"{f.size_mb:.1f}", f"{f.rss_mb:.0f}", f"{f.open_ms:.0f}")
        lost = f"{tried.drop.r1.value:+.2f}" if tried.drop else "-"
        style = "bold" if tried.candidate == card.winner else None
        table.add_row(tried.candidate.name, *costs, lost, tried.outcome, style=style)
    return table


def _shown(card: Compressed) -> list[Tried]:
    """The winner and the fastest others, and the teacher."""
    first = [tried for tried in card.tried if tried.candidate == card.winner]
    others = [tried for tried in card.tried if tried.candidate != card.winner]
    return [*first, *others[:SHOWN]]
