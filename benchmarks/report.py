"""A dated report of `peers.py`: `python benchmarks/report.py results.json > benchmarks/peers_MACHINE_DATE.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peer_models import OURS, TRANSFORMERS

MEMORY_GOALS = {"image": 220.0, "both": 320.0}
DISK_GOAL = 3.9


def markdown(results: dict[str, Any]) -> str:
    """Every figure as the run printed it."""
    machine = results["environment"]
    lines = [
        f"# ViT-B/32 on {machine['processor']}, {machine['threads']} threads, {results['date']}",
        "",
        f"`{results['command']}`",
        "",
        ", ".join(f"{key} {value}" for key, value in machine.items() if key not in ("processor", "threads")),
        "",
        "Random weights, the same for all. Median milliseconds, the fastest in brackets; only ratios mean anything.",
        "",
        *_times(results["milliseconds"]),
        "",
        "The same in milliseconds of processor time, of all threads together:",
        "",
        *_times(results["cpu_milliseconds"]),
        "",
        "How many times faster edgeclip's int8 bundle is:",
        "",
        "| work | against | times faster | of the fastest calls | goal | met |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['work']} | {r['against']} | {r['times faster']} | {r['of the fastest']} | {r['goal']} | "
            f"{'yes' if r['met'] else '**no**'} |"
            for r in results["ratios"]
        ),
        "",
        *_memory_and_disk(results),
        "",
        "Images a second over a folder of photographs of about 500 by 375: "
        + ", ".join(f"{name} {rate}" for name, rate in results["bulk_images_per_second"].items())
        + ".",
        "",
        *_bounds(results["bounds"]),
    ]
    return "\n".join(lines) + "\n"


def _times(milliseconds: dict[str, Any]) -> list[str]:
    works = list(milliseconds)
    names = list(dict.fromkeys(name for times in milliseconds.values() for name in times))
    rows = [f"| | {' | '.join(works)} |", "|---" * (len(works) + 1) + "|"]
    for name in names:
        cells = [milliseconds[work].get(name) for work in works]
        rows.append(f"| {name} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


def _cell(time: dict[str, float] | None) -> str:
    return f"{time['median']:.1f} ({time['fastest']:.1f})" if time else ""


def _memory_and_disk(results: dict[str, Any]) -> list[str]:
    memory, pss, disk = results["peak_rss_mb"], results["pss_mb"], results["disk_mb"]
    share = memory[OURS]["both"] / memory[TRANSFORMERS]["both"]
    times_smaller = disk["the fp32 weights over our int8 bundle"]
    return [
        "| memory, MB | peak, image only | peak, both towers | then, in one process | in each of two |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {peak['image']} | {peak.get('both', '')} | "
            + (f"{pss[name]['one process']} | {pss[name]['each of two']} |" if name in pss else "| |")
            for name, peak in memory.items()
        ),
        "",
        f"Goals: {MEMORY_GOALS['image']:.0f} and {MEMORY_GOALS['both']:.0f} MB, and a quarter of transformers' both "
        f"towers; measured {memory[OURS]['image']} and {memory[OURS]['both']}, {share:.2f} of transformers'.",
        "",
        "On disk, MB: "
        + ", ".join(f"{name} {size}" for name, size in disk.items() if not name.startswith("the "))
        + f". The fp32 weights are {times_smaller} times larger than the int8 bundle, tokenizer included (goal "
        f"{DISK_GOAL}).",
    ]


def _bounds(bounds: dict[str, Any]) -> list[str]:
    rates = bounds["billions of products a second, one thread"]
    decoder = bounds["JPEG decoder alone, ms"]
    lines = [
        "What bounds the figures:",
        "",
        f"- One thread multiplies {rates['int8']} billion int8 pairs a second ({rates['int8, 50 rows']} with the 50 "
        f"rows of one image, {rates['fp32']} in fp32). Our image graph has "
        f"{bounds['billions of products of our image graph']} billion: "
        f"{bounds['its products at the rate of 50 rows, ms']} of the {bounds['our image graph on one thread, ms']} ms "
        "that it takes on one thread.",
        f"- With the 14 rows of a caption the rate is {rates['int8, 14 rows']}, as each weight is read for few rows. "
        f"Our text graph has {bounds['billions of products of our text graph']} billion: "
        f"{bounds['its products at the rate of 14 rows, ms']} of the {bounds['our text graph on one thread, ms']} ms "
        "that it takes on one thread.",
        "- The JPEG decoder alone takes " + ", ".join(f"{ms} ms for {name}" for name, ms in decoder.items()) + ".",
        "",
        "| an image and a text in turn, ms | image | text | image, beside a busy program | text, beside it |",
        "|---|---|---|---|---|",
    ]
    for name, found in bounds["waiting threads, median ms"].items():
        alone, beside = found["alone"], found["beside a busy program"]
        lines.append(f"| {name} | {alone['image']} | {alone['text']} | {beside['image']} | {beside['text']} |")
    return lines


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())), end="")
