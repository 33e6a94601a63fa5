"""The choice of `edgeclip compress` beside that of measuring every candidate, and what each takes to find.

`python benchmarks/compress_exhaustive.py --model ViT-B-32` has random weights, `--model builtin:tabletop` its own. The
same drafts serve both. The search does what `compress` does after writing them. Then every candidate is put together,
opened, timed, and embeds all pairs, each in processes of its own, as one would who does not search. At last both
choices are timed in turn. Cost is the processor time of all processes, which other work on the machine hardly moves.

Random weights know nothing of pictures: their recall says nothing, so that the gate lets all of them through.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec.structs import replace

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.checkpoint.published import published
from edgeclip.config import PreprocessConfig
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.paired import drop
from edgeclip.evaluate.ratio import FEWEST_ROUNDS, ratio
from edgeclip.files import scratch_folder
from edgeclip.measure.bundle_process import TOWERS
from edgeclip.measure.child import ChildError
from edgeclip.model import Clip
from edgeclip.names import BUILTIN
from edgeclip.tune import run, search
from edgeclip.tune.candidates import KINDS, TEACHER, kinds_of
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.contest import members_of
from edgeclip.tune.costs import CALLS, SECONDS, WARMUP, Member
from edgeclip.tune.device import memory_cap_mb
from edgeclip.tune.drafts import Drafts, put_together
from edgeclip.tune.finish import choose
from edgeclip.tune.fused import write_fused
from edgeclip.tune.record import Budget, Candidate
from edgeclip.tune.trials import Trials


class Found(NamedTuple):
    """A candidate measured for itself: ms of both towers as `Search.time` counts, MB, the most that it may lose."""

    ms: float
    size_mb: float
    most: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=BUILTIN, help="an architecture for random weights, or a checkpoint")
    parser.add_argument("--layers", type=int, help="only so many of each tower's")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--kinds", help="only these of `tune.candidates`, semicolons between them; fp32 among them")
    parser.add_argument("--rounds", type=int, default=40, help="in which both choices are timed in turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name in set(KINDS) - set((arguments.kinds or ";".join(KINDS)).split(";")):
            del KINDS[name]
        is_random = published(arguments.model) is not None
        if is_random:
            search.check_better_than_chance = lambda found: None
        model = random_weights(arguments.model, arguments.layers, place / "model") if is_random else arguments.model
        settings = CompressSettings(
            model=str(model), pairs=arguments.pairs, max_drop=100.0 if is_random else arguments.max_drop
        )
        print(json.dumps(compare(settings, place / "trials", arguments.rounds) | said(arguments), indent=2))


def said(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"environment": environment(1), "arguments": vars(arguments)}


def random_weights(architecture: str, layers: int | None, folder: Path) -> Path:
    """A checkpoint of that architecture, with the built-in teacher's tokenizer."""
    teacher = load_checkpoint(BUILTIN)
    config = published(architecture)
    if config is None:
        raise SystemExit(f"no architecture {architecture}")
    if layers is not None:
        config = replace(
            config,
            vision=replace(config.vision, num_hidden_layers=layers),
            text=replace(config.text, num_hidden_layers=layers),
        )
    words = teacher.config.text
    text = replace(config.text, vocab_size=words.vocab_size, eos_token_id=words.eos_token_id)
    torch.manual_seed(0)
    preprocess = PreprocessConfig.clip(config.vision.image_size)
    save_checkpoint(Clip(replace(config, text=text)), preprocess, teacher.tokenizer, folder)
    return folder


def compare(settings: CompressSettings, place: Path, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(run.granted_processors())
    checkpoint = load_checkpoint(settings.model)
    roles = run.load_roles(settings, checkpoint)
    cap_mb = memory_cap_mb()
    drafts = Drafts(Trials(place, "exhaustive"), cap_mb)
    drafts.export(TEACHER, checkpoint, roles.calibrate)
    drafts.write(TEACHER, kinds_of(TEACHER))
    write_fused(drafts, checkpoint, roles.calibrate)
    searching = search.Search(
        costs=run._costs(drafts.trials, roles.choose, cap_mb),
        drafts=drafts,
        budget=msgspec.convert(settings, Budget, from_attributes=True),
        deadline=time.monotonic() + 1e9,
        truth=roles.truth,
        logit_scale=checkpoint.logit_scale,
    )
    with processor_time() as searched_s:
        searching.measure_towers()
        winner, _, contests = choose(searching)
    tried = len(drafts.trials.done)
    with processor_time() as exhausted_s:
        every = {candidate: measured(searching, candidate) for candidate in searching.figures}
    keeping = {c: found for c, found in every.items() if found and found.most <= settings.max_drop}
    best = min(keeping, key=lambda candidate: keeping[candidate].ms)
    slower = ratio(*in_turn(searching, [winner, best], rounds)) if winner != best else None
    return {
        "candidates": len(every),
        "chosen": winner.name,
        "best_of_all": best.name,
        "chosen_ms": every[winner],
        "best_ms": every[best],
        "chosen_over_best": slower and [slower.value, slower.low, slower.high],
        "processor_s": {"search": searched_s(), "exhaustive": exhausted_s()},
        "times_cheaper": round(exhausted_s() / searched_s(), 1),
        "trials": tried,
        "in_contest": 1 + len(contests),
        "all": {candidate.name: found for candidate, found in every.items()},
    }


@contextmanager
def processor_time() -> Iterator[Callable[[], float]]:
    """Seconds of this process and of those that it started and that have ended."""

    def now() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    start, took = now(), list[float]()
    yield lambda: round(took[0], 1)
    took.append(now() - start)


def measured(searching: search.Search, candidate: Candidate) -> Found | None:
    """One candidate as a bundle, opened and timed, and its embeddings of all pairs; None where it failed."""
    costs, place = searching.costs, searching.drafts.trials.folder
    with scratch_folder(place) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        put_together(searching.drafts, candidate, folder)
        try:
            with costs.process(folder, candidate.threads, TOWERS) as process:
                process.open()
                times = process.time(CALLS, warmup=WARMUP, seconds=2 * SECONDS)
            for tower in TOWERS:
                with costs.process(folder, candidate.threads, [tower]) as process:
                    process.embed(scratch / f"{tower}.npy")
        except ChildError:
            return None
        images_NE, texts_NE = (np.load(scratch / f"{tower}.npy") for tower in TOWERS)
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    lost = drop(searching._teacher_finds, searching._judge((images_NE, texts_NE)))
    image_ms, text_ms = (quantiles(times[tower], n=4)[0] for tower in TOWERS)
    return Found(round(sqrt(image_ms * text_ms), 3), round(size_mb, 2), lost.most)


def in_turn(searching: search.Search, candidates: list[Candidate], rounds: int) -> list[list[float]]:
    """Milliseconds of each candidate in every round, as the contest measures them."""
    members: list[Member] = sorted({member for candidate in candidates for member in members_of(candidate)})
    found = searching.costs.rounds(10_000, max(rounds, FEWEST_ROUNDS), members)
    return [[sqrt(np.prod([each[m] for m in members_of(candidate)])) for each in found] for candidate in candidates]


if __name__ == "__main__":
    main()
