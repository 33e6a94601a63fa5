"""What another program's graphs compute, in a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from edgeclip.measure.foreign_inspection import ForeignInspection, TowerInspection
from edgeclip.report.terminal import console


def print_foreign(inspection: ForeignInspection) -> None:
    """Products by tower, and what they come to on this machine."""
    output = console()
    table = Table(title=escape(inspection.name))
    for column in ("tower", "operation", "weights as", "multiplied in"):
        table.add_column(column)
    for column in ("nodes", "weights", "MB"):
        table.add_column(column, justify="right")
    for tower in inspection.towers:
        for some in tower.products:
            numbers = (f"{some.nodes:,}", f"{some.weights:,}", f"{some.bytes / 1e6:.2f}")
            table.add_row(tower.kind, some.op, some.precision, some.arithmetic, *numbers)
        table.add_section()
    output.print(table)
    is_int8 = any(some.arithmetic.startswith("int8") for tower in inspection.towers for some in tower.products)
    needed = {"scale": inspection.logit_scale, **({"bias": inspection.logit_bias} if inspection.judges_pairs else {})}
    lines = [
        f"layout      {inspection.layout}, fingerprint {inspection.fingerprint}",
        *(line for tower in inspection.towers for line in _tower(tower)),
        *([f"int8 here   {inspection.arithmetic}"] if is_int8 else []),
        *([_saturation(inspection)] if is_int8 else []),
        f"embedding   {inspection.embedding_size} wide, "
        + ", ".join(
            f"logit {name} not told: classify needs --logit-{name}" if told is None else f"logit {name} {told:.2f}"
            for name, told in needed.items()
        ),
    ]
    if inspection.image_size is not None:
        lines.append(f"images      {inspection.image_size} px")
    if inspection.context_length is not None:
        lines.append(f"texts       {inspection.context_length} tokens")
    for line in lines:
        output.print(line, highlight=False, markup=False)


def _tower(tower: TowerInspection) -> list[str]:
    others = f"; also there: {', '.join(tower.others)}" if tower.others else ""
    batch = "" if tower.batch is None else f", {tower.batch} at a time"
    return [f"{tower.kind:<11} {tower.graph}: {tower.precision}, {tower.bytes / 1e6:.1f} MB{batch}{others}"]


def _saturation(inspection: ForeignInspection) -> str:
    counted = [tower for tower in inspection.towers if tower.pairs is not None]
    pairs, wide = (sum(getattr(tower, key) or 0 for tower in counted) for key in ("pairs", "wide_pairs"))
    what = f"{wide:,} of {pairs:,} pairs of int8 weights can exceed a sum of 16 bits"
    if len(counted) < len(inspection.towers):
        what += ", those in other files not counted"
    if wide == 0:
        return f"saturation  none: {what}"
    here = (
        "which this processor has: SUMS CAN BE WRONG HERE" if inspection.saturates else "which this processor has not"
    )
    return f"saturation  {what}, as AVX2 without VNNI makes it, {here}"
