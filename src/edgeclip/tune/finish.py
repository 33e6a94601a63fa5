"""The bundle that was chosen, proved on pairs that no choice has seen; where nothing fits, the one that is closest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import ceil, floor, inf, log10
from pathlib import Path

from edgeclip.data.prepare import Prepared
from edgeclip.errors import ConfigError
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.judge import TeachersRanking, own_pairs
from edgeclip.evaluate.paired import drop
from edgeclip.evaluate.release_card import card_of, embed_pairs
from edgeclip.export.measure import finished
from edgeclip.files import as_json, folder_written_atomically, scratch_folder
from edgeclip.manifest import COMPRESS_CARD, MANIFEST
from edgeclip.runtime import load
from edgeclip.tune.candidates import TEACHER
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.contest import hold_contest, loses
from edgeclip.tune.drafts import put_together
from edgeclip.tune.record import SCHEMA, Candidate, Compressed, Contest, Failure, Figures, Proof, Tried
from edgeclip.tune.search import NOISE, WHOLE, Search


def finish(
    settings: CompressSettings, report: Prepared, data: str, search: Search, out: Path, start: float
) -> Compressed:
    """Choose, write the bundle, and prove it.

    Args:
        settings: what was asked for.
        report: the pairs that no choice has seen.
        data: their name.
        search: with the figures of all candidates.
        out: the bundle's folder.
        start: of the run, by the monotonic clock.
    """
    winner, figures, contests = choose(search)
    teacher = search.drafts.models[TEACHER]
    with folder_written_atomically(out) as folder:
        put_together(search.drafts, winner, folder)
        clip = load(folder, threads=winner.threads, cache=None)
        images, texts = report.crops, report.first_captions
        theirs = embed_pairs(teacher, images, texts, "teacher")
        ours = embed_pairs(clip, images, texts, "bundle")
        ranking = TeachersRanking(theirs, search.logit_scale) if search.truth == "teacher" else None
        judge = ranking or own_pairs
        lost = drop(judge(theirs), judge(ours))
        over = figures.over(search.budget)
        if lost.most > search.budget.max_drop:
            over["max_drop"] = lost.most
        card = Compressed(
            schema=SCHEMA,
            model=teacher.name,
            budget=search.budget,
            winner=winner,
            figures=figures,
            teacher=search.figures.get(Candidate(image=WHOLE, text=WHOLE, threads=winner.threads)),
            proof=Proof(
                data=data,
                truth=search.truth,
                chosen_on=search.pairs,
                reported_on=len(report),
                seed=settings.seed,
                drop=lost,
                same_first=ranking.same_first(ours) if ranking else None,
            ),
            over=over,
            relax=_relaxed(search, winner, over) if over else {},
            tried=_tried(search),
            failures=[Failure(trial=trial.name, reason=trial.failed or "") for trial in search.costs.trials.failures],
            contests=contests,
            sensitivity=search.drafts.sensitivity,
            environment=environment(winner.threads),
            seconds=round(time.monotonic() - start, 1),
            trials=len(search.costs.trials.done) - 1,
            students=search.drafts.students,
        )
        (folder / COMPRESS_CARD).write_bytes(as_json(card))
        manifest = finished(clip, card_of(theirs, ours, data=data, seed=settings.seed, judge=judge))
        (folder / MANIFEST).write_bytes(as_json(manifest))
    return card


def choose(search: Search) -> tuple[Candidate, Figures, list[Contest]]:
    """The fastest that keeps every limit and the accuracy, else the one that is closest to it."""
    contests: list[Contest] = []
    if contenders := search.contenders():
        sizes = {candidate: figures.size_mb for candidate, figures in search.figures.items()}
        order, contests = hold_contest(contenders, sizes, search.costs.rounds)
        for candidate in order:
            figures = _whole(search, candidate)
            if figures is None:
                search.outcomes[candidate] = "failed with both towers"
            elif over := figures.over(search.budget):
                name, value = next(iter(over.items()))
                search.outcomes[candidate] = f"{name} {value:.4g} over {getattr(search.budget, name):g}"
            else:
                search.outcomes[candidate] = "chosen"
                _tell_losers(search, candidate, contests)
                return candidate, figures, contests
    for candidate in _closest(search):
        if figures := _whole(search, candidate):
            search.outcomes[candidate] = f"closest to the budget: {search.outcomes.get(candidate, '')}".rstrip(": ")
            return candidate, figures, contests
    raise ConfigError(
        "no candidate that runs on this device", expected="one", fix="see the failures in the trials beside `out`"
    )


def _tell_losers(search: Search, winner: Candidate, contests: Sequence[Contest]) -> None:
    for contest in contests:
        slower = contest.slower
        said = (
            f"{slower.value:.2f} times slower ({slower.low:.2f} to {slower.high:.2f})"
            if loses(slower)
            else f"a tie with {winner.name} ({slower.low:.2f} to {slower.high:.2f}), and not smaller"
        )
        search.outcomes.setdefault(contest.candidate, said)


def _closest(search: Search) -> list[Candidate]:
    """All candidates, the one first whose worst limit needs the least relaxing; of equals, that which exceeds fewer."""

    def excess(candidate: Candidate) -> tuple[float, int]:
        over = search.figures[candidate].over(search.budget)
        factors = [value / getattr(search.budget, name) for name, value in over.items()]
        lost = search.drop(candidate)
        factors.append(inf if lost is None else lost.most / search.budget.max_drop)
        return max(*factors, 1.0), sum(factor > 1 for factor in factors)

    return sorted(search.figures, key=lambda c: (excess(c), search.figures[c].size_mb, c.name))


def _relaxed(search: Search, winner: Candidate, over: Mapping[str, float]) -> dict[str, float]:
    """By limit that is exceeded, the least that it could be while all others stay; left out where none is enough."""
    found: dict[str, float] = {}
    for candidate, estimate in search.figures.items():
        if candidate == winner:
            needs = dict(over)
        elif lost := search.drops.get((candidate.image, candidate.text)):
            needs = estimate.over(search.budget)
            if lost.most > search.budget.max_drop:
                needs["max_drop"] = lost.most
        else:
            continue
        if len(needs) == 1 and (name := next(iter(needs))) in over:
            found[name] = min(found.get(name, inf), needs[name] if candidate == winner else NOISE * needs[name])
    return {name: _up(value) for name, value in found.items()}


def _up(value: float) -> float:
    """Rounded up to three digits."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return float(f"{ceil(value / unit) * unit:.6g}")


def _tried(search: Search) -> list[Tried]:
    return [
        Tried(
            candidate=candidate,
            figures=search.figures[candidate],
            drop=search.drops.get((candidate.image, candidate.text)),
            outcome=search.outcomes.get(candidate, "not needed"),
        )
        for candidate in search.by_speed()
    ]


def _whole(search: Search, candidate: Candidate) -> Figures | None:
    """The figures of a candidate as one bundle."""
    place = search.costs.trials.folder
    with scratch_folder(place) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        put_together(search.drafts, candidate, folder)
        return search.costs.whole(candidate, folder)
