"""Results as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeclip.config import PreprocessConfig, TextConfig, TowerConfig, VisionConfig
from edgeclip.report.explain import headlines
from edgeclip.report.results_table import WHOLE_WIDTH, results_table
from edgeclip.report.row_order import interval
from edgeclip.results import Evaluation, Inspection, Recalls, Results

SHOWN_NAMES = 6
"""Of the many that layers and tensors have."""


def console() -> Console:
    """As wide as the terminal; wide enough for a whole row where the output is none."""
    console = Console()
    return console if console.is_terminal or console.width >= WHOLE_WIDTH else Console(width=WHOLE_WIDTH)


def print_results(results: Results) -> None:
    """What edgeclip gives in a sentence, the report's table, and what else it says."""
    output = console()
    lines = headlines(results)
    for line in lines[:1]:
        output.print(line, highlight=False, markup=False, style="bold")
    output.print(results_table(results, output.width))
    if results.sweep:
        sweep = Table(title="search for alpha (distilled, then int8)")
        for column in ("alpha", "I2T R@1", "T2I R@1"):
            sweep.add_column(column, justify="right")
        for point in results.sweep:
            sweep.add_row(f"{point.alpha:g}", f"{point.i2t_r1:.1f}", f"{point.t2i_r1:.1f}")
        output.print(sweep)
    for line in lines[1:]:
        output.print(f"- {line}", highlight=False, markup=False)
    for bad in results.data.bad_images:
        output.print(f"left out: {bad}", markup=False, highlight=False)


def recalls_table(
    kind: str, rows: Sequence[tuple[str, str, Recalls]], *, title: str, caption: str | None = None
) -> Table:
    """A row for each kind and direction."""
    table = Table(title=escape(title), caption=caption)
    for column in (kind, "direction"):
        table.add_column(column)
    for column in ("R@1", "R@5", "R@10"):
        table.add_column(column, justify="right")
    for name, direction, recalls in rows:
        table.add_row(name, direction, *(interval(r) for r in (recalls.r1, recalls.r5, recalls.r10)))
    return table


def print_evaluation(evaluation: Evaluation) -> None:
    """Recalls by both protocols."""
    every = f"all {evaluation.standard.captions} captions"
    table = recalls_table(
        "protocol",
        [
            ("first caption", "image to text", evaluation.i2t),
            ("first caption", "text to image", evaluation.t2i),
            (every, "image to text", evaluation.standard.i2t),
            (every, "text to image", evaluation.standard.t2i),
        ],
        title=f"{evaluation.model} on {evaluation.data}: {evaluation.images} images",
    )
    output = console()
    output.print(table)
    for bad in evaluation.bad_images:
        output.print(f"left out: {bad}", markup=False, highlight=False)


def judged(logit_scale: float, logit_bias: float | None) -> str:
    """How logits become probabilities."""
    scale = f"logit scale {logit_scale:.2f}"
    return scale if logit_bias is None else f"{scale}, bias {logit_bias:.2f}: a sigmoid for each pair"


def _pooled(text: TextConfig) -> str:
    told = {"last": "the last position, padding included", "first": "the first token", "mean": "the mean of all tokens"}
    if text.pooling in told:
        return told[text.pooling]
    end = "the highest id" if text.eos_token_id is None else f"token {text.eos_token_id}"
    return f"{end}, padding seen" if text.sees_all else end


def _resized(preprocess: PreprocessConfig) -> str:
    if preprocess.resize_to is not None:
        return f"squashed to {preprocess.resize_to}"
    return f"shorter edge {preprocess.shortest_edge}, crop {preprocess.crop_size}"


def print_inspection(inspection: Inspection) -> None:
    """A checkpoint's towers, parameters and sizes."""
    output = console()
    vision, text = inspection.config.vision, inspection.config.text
    table = Table(title=escape(inspection.name))
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("of them int8", justify="right")
    for part in inspection.parts:
        table.add_row(part.name, f"{part.parameters:,}", f"{part.int8:,}" if part.int8 else "-")
    total, int8 = (sum(getattr(part, key) for part in inspection.parts) for key in ("parameters", "int8"))
    table.add_section()
    table.add_row("all", f"{total:,}", f"{int8:,}" if int8 else "-")
    output.print(table)
    scale, preprocess = inspection.logit_scale, inspection.preprocess
    lines = [f"layout     {inspection.layout}, stored as {inspection.stored_dtype}"]
    if vision is not None:
        lines.append(f"image      {vision.image_size} px in patches of {vision.patch_size}, {tower(vision)}")
        lines += [f"FUSES      {line}" for line in fused(vision)]
    if text is not None:
        words = f"{text.vocab_size:,} tokens, context {text.context_length}"
        lines.append(f"text       {words}, {tower(text)}, pools {_pooled(text)}")
    how = "one tower alone" if scale is None else judged(scale, inspection.logit_bias)
    lines.append(f"embedding  {inspection.config.projection_dim} wide, {how}")
    if preprocess is not None:
        lines.append(f"images     {_resized(preprocess)}, mean {preprocess.mean}, std {preprocess.std}")
    lines += [
        f"size       {inspection.fp32_bytes / 1e6:.1f} MB as fp32"
        + (f", {inspection.disk_bytes / 1e6:.1f} MB on disk" if inspection.disk_bytes is not None else ""),
    ]
    lines += [f"from       {what}: {origin}" for what, origin in inspection.origins.items()]
    if inspection.int8_layers:
        lines.append(f"int8       {len(inspection.int8_layers)} layers: {_shortened(inspection.int8_layers)}")
        lines.append(f"float      {len(inspection.float_tensors)} tensors: {_shortened(inspection.float_tensors)}")
    for line in lines:
        output.print(line, highlight=False, markup=False)


def tower(config: TowerConfig) -> str:
    """A tower's sizes in words."""
    if isinstance(config, VisionConfig) and config.convolutions is not None:
        stages = config.convolutions.stages
        return f"stages of {', '.join(f'{s.depth} blocks of {s.width}' for s in stages)}, {config.hidden_act}"
    between = " between two of convolutions" if isinstance(config, TextConfig) and config.mixer is not None else ""
    return (
        f"{config.num_hidden_layers} layers of width {config.hidden_size}{between}, {config.num_attention_heads} heads,"
        f" {config.hidden_act}, eps {config.layer_norm_eps:g}"
    )


def fused(config: VisionConfig) -> list[str]:
    """What tokens an image tower fuses, in words; nothing where it fuses none."""
    if config.fusion is None:
        return []
    before = config.num_patches + 1
    left = zip(config.fusion.steps, config.fusion.tokens(before), strict=True)
    steps = ", ".join(f"{tokens} from layer {layer}" for (layer, _), tokens in left)
    return [f"{before} tokens to {steps}, by {config.fusion.criterion}: lossy"]


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (
        f" and {len(names) - SHOWN_NAMES} more (--json lists all)" if len(names) > SHOWN_NAMES else ""
    )
