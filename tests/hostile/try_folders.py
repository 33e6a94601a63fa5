"""Give mutated bundles and checkpoints to their readers: each works, or ends in one line, within memory and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeclip.bundle import find_bundle
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from tests.hostile import bundles, checkpoints
from tests.hostile.meter import measured
from tests.hostile.quiet import quiet
from tests.hostile.try_images import MAX_PEAK, MAX_SECONDS

WORDS = ["a red ball on the table", "two blue boxes", "large white mug in the snow"]


def try_bundles(count: int, seed: int) -> dict[str, object]:
    """Try so many, made of the built-in one."""
    with TemporaryDirectory() as folder:
        builtin = find_bundle("builtin:tabletop")
        return _tried(bundles.mutated_bundles(builtin, Path(folder, "bundle"), seed, count), bundles.attempt)


def try_checkpoints(count: int, seed: int) -> dict[str, object]:
    """Try so many, in every layout."""
    with TemporaryDirectory() as folder:
        tokenizer = learn_vocabulary(WORDS, 600, context_length=16)
        layouts = checkpoints.make_layouts(Path(folder), tokenizer)
        made = checkpoints.mutated_checkpoints(layouts, Path(folder, "mutated"), seed, count)
        return _tried(made, checkpoints.attempt)


def _tried(made: Iterable[tuple[str, Path]], attempt: Callable[[Path], bool]) -> dict[str, object]:
    count = {"works": 0, "errors": 0}
    wrong: list[str] = []
    largest, slowest = (0, ""), (0.0, "")
    for name, place in made:

        def once(name: str = name, place: Path = place) -> None:
            try:
                count["works" if attempt(place) else "errors"] += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                wrong.append(f"{name}: {error!r}"[:300])

        with quiet():
            cost = measured(once)
        largest, slowest = max(largest, (cost.peak, name)), max(slowest, (cost.seconds, name))
        if cost.peak > MAX_PEAK or cost.seconds > MAX_SECONDS:
            wrong.append(f"{name}: {cost.peak / 1e6:.0f} MB, {cost.seconds:.1f} s")
    return {
        **count,
        "wrong": wrong,
        "largest": [round(largest[0] / 1e6), largest[1]],
        "slowest": [round(slowest[0], 2), slowest[1]],
    }
