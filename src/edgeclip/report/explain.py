"""The explanations of a report, in sentences made from the run's own figures."""

from __future__ import annotations

from edgeclip.report.row_order import in_order, leading_row, mean_r1, row_of
from edgeclip.results import Findings, GradientReach, Results, Row

PAPER_ENGINE = "qnnpack"
"""PyTorch's kernels that the paper's students compute with."""


def times(ratio: float, more: str = "slower", less: str = "faster") -> str:
    """A ratio in words."""
    return f"{ratio:.1f} times {more}" if ratio >= 1 else f"{1 / ratio:.1f} times {less}"


def headlines(results: Results) -> list[str]:
    """What the table says, in one sentence each: what edgeclip gives, then how the paper's students do."""
    teacher = row_of(results, "TEACHER")
    if teacher is None:
        return []
    leading = leading_row(results)
    lines = [_gain(leading, teacher)] if leading else []
    paper = row_of(results, "STUDENT", PAPER_ENGINE)
    if paper:
        lines.append(
            f"The paper's int8 student is {_smaller(paper, teacher)} and encodes an image {_faster(paper, teacher)}"
            " than its fp32 teacher here."
        )
    quick = next((r for r in results.rows if r.name == "STUDENT" and _on_another_engine(r)), None)
    if paper and quick:
        lines.append(
            f"The same weights on another kernel library ({quick.variant}) are {_faster(quick, teacher)} than fp32, "
            f"and {_points(quick, teacher)}."
        )
    for row in in_order(results.rows):
        if row is not leading and (row.name == "DISTILLED" or (row.name == "STUDENT" and not paper)):
            line = f"{row.name}, {row.variant}: {_points(row, teacher)}"
            if not paper:
                line += f", {_smaller(row, teacher)}, and encodes an image {_faster(row, teacher)}"
            lines.append(f"{line}.")
    return lines


def _on_another_engine(student: Row) -> bool:
    """Whether this is PyTorch's int8, which names its engine, with other kernels than the paper's."""
    return student.variant.startswith("int8, ") and PAPER_ENGINE not in student.variant


def _gain(row: Row, teacher: Row) -> str:
    return (
        f"{row.name} is {_smaller(row, teacher)} than the {teacher.name} and encodes an image {_faster(row, teacher)},"
        f" at a mean R@1 of {mean_r1(row).value:.1f} % (TEACHER: {mean_r1(teacher).value:.1f} %)."
    )


def _smaller(row: Row, teacher: Row) -> str:
    return times(row.size_mb / teacher.size_mb, "larger", "smaller")


def _faster(row: Row, teacher: Row) -> str:
    return times(row.latency_ms.image.p50 / teacher.latency_ms.image.p50)


def _points(row: Row, teacher: Row) -> str:
    return f"{mean_r1(row).value - mean_r1(teacher).value:+.1f} points of R@1 from the teacher"


def training(results: Results) -> str:
    """How the students were trained, below the loss curves."""
    settings = results.settings
    if recipe := settings.get("recipe"):
        mix = ", ".join(f"{name} {weight:g}" for name, weight in recipe["weights"].items())
        share = f"{100 * recipe['qad_share']:.0f} % of each stage as int8 computes"
        train = recipe["train"]
        return f"{mix}; {share}; batches of {train['batch_size']}, peak rate {train['lr']:g}."
    return (
        f"alpha {settings['alpha']}, temperature {settings['temperature']}, batches of {settings['batch_size']}, "
        f"peak rate {settings['lr']}."
    )


def why_engines_differ(results: Results, findings: Findings) -> list[str]:
    """Why QNNPACK is slow here, or that it is not."""
    by_name = {engine.engine: engine for engine in findings.engines}
    base, slow = by_name["float"], by_name.get(PAPER_ENGINE)
    lines = [
        f"One layer of the image tower, {base.rows} tokens by {base.inputs} inputs to {base.outputs} outputs, takes "
        + ", ".join(
            f"{e.milliseconds:.2f} ms {'in float' if e.engine == 'float' else 'on ' + e.engine}"
            for e in findings.engines
        )
        + "."
    ]
    if slow:
        flags = ", ".join(results.environment.get("cpu_flags") or []) or "no int8 instructions"
        slower = slow.milliseconds > base.milliseconds
        lines.append(
            f"QNNPACK is a library for ARM processors; this one is {results.environment.get('machine')} with {flags}."
            f" Its layer is {times(slow.milliseconds / base.milliseconds)} than float's"
            + (", so the more of the model is int8, the slower it gets: smaller is not faster." if slower else " here.")
        )
    lines.append(
        f"{findings.int8_layers} layers with {findings.int8_parameters:,} weights are int8, the patch convolution among"
        " them (PyTorch's dynamic quantization leaves convolutions in float without a word; here it is the Linear layer"
        f" over patches that it amounts to). {findings.float_parameters:,} parameters stay in float: token embedding,"
        " positions and normalisations."
    )
    return lines


def why_distillation_drifts(results: Results, findings: Findings) -> list[str]:
    """What each kind of distillation could train, and what became of it."""
    return [_reach(reach, results) for reach in findings.gradients]


def _reach(reach: GradientReach, results: Results) -> str:
    share = 100 * reach.reached_parameters / reach.parameters
    percent = f"{share:.1f} %" if share >= 0.1 else "less than 0.1 %"
    names = ", ".join(reach.reached[:3]) + (f" and {len(reach.reached) - 3} more" if len(reach.reached) > 3 else "")
    text = (
        f"{reach.variant}: a gradient reaches {len(reach.reached)} of {reach.tensors} tensors, "
        f"{reach.reached_parameters:,} of {reach.parameters:,} parameters ({percent}): {names}."
    )
    if reach.reached_parameters == 1:
        text += (
            " A dynamically quantized layer has no derivative, and the last layer of both towers is one: only the"
            " temperature is trained, which changes no ranking."
        )
    elif reach.gradient_cosine is not None and share < 50:
        text += (
            " It comes through the residual stream alone, as if every int8 layer were constant: its cosine with the"
            f" float model's gradient for the same tensors is {reach.gradient_cosine:.2f}."
        )
    elif share > 99:
        hard = 100 * (1 - results.settings["alpha"])
        text += f" All of it follows {results.data.train:,} pairs, {hard:.0f} % of the loss being their hard labels."
    text += f" After training, image embeddings have a mean cosine of {reach.drift_cosine:.4f} with those before."
    row = row_of(results, "DISTILLED", reach.variant)
    teacher = row_of(results, "TEACHER")
    if row and teacher:
        text += f" R@1: {mean_r1(row).value:.1f}, the teacher's: {mean_r1(teacher).value:.1f}."
    return text
