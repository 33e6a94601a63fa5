"""Who is fastest, measured in turn until it is known, or known to be a tie that the smaller wins.

A candidate's time is the geometric mean of its image and its text, so that either counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from edgeclip.evaluate.ratio import FEWEST_ROUNDS, TIE, Ratio, ratio
from edgeclip.progress import task
from edgeclip.tune.costs import Member
from edgeclip.tune.record import Candidate, Contest

MOST_ROUNDS = 40
STEP = 4
FIRST = max(2 * STEP, FEWEST_ROUNDS)
UNKNOWN = Ratio(value=1.0, low=0.0, high=1e9)
"""Of two that were never measured in one round; JSON has no infinity."""
Rounds = Callable[[int, int, Sequence[Member]], list[dict[Member, float]]]
"""See `Costs.rounds`."""


def members_of(candidate: Candidate) -> tuple[Member, Member]:
    """The two graphs that a candidate is made of."""
    return ("image", candidate.image, candidate.threads), ("text", candidate.text, candidate.threads)


def hold_contest(
    contenders: Sequence[Candidate], size_mb: Mapping[Candidate, float], rounds: Rounds
) -> tuple[list[Candidate], list[Contest]]:
    """Measure contenders in turn.

    Args:
        contenders: at least one.
        size_mb: of each, which decides among those that tie.
        rounds: measures some members in turn.

    Returns:
        The contenders, the winner first: those that tie with the fastest by size, then the others by their times; and
        how each of them compares with the winner.
    """
    times: dict[Candidate, list[float]] = {candidate: [] for candidate in contenders}
    running, done = list(contenders), 0
    with task("measuring in turn", MOST_ROUNDS if len(contenders) > 1 else FIRST) as advance:
        while done < MOST_ROUNDS:
            count = FIRST if done == 0 else STEP
            members = sorted({member for candidate in running for member in members_of(candidate)})
            for found in rounds(done, count, members):
                for candidate in running:
                    times[candidate].append(math.sqrt(math.prod(found[m] for m in members_of(candidate))))
            done += count
            advance(count)
            fastest = _fastest(times, running)
            slower = {candidate: _ratio(times, candidate, fastest) for candidate in running}
            if all(candidate == fastest or _is_decided(slower[candidate]) for candidate in running):
                break
            running = [c for c in running if c == fastest or not loses(slower[c])]
    fastest = _fastest(times, running)
    tied = [c for c in running if c == fastest or not loses(_ratio(times, c, fastest))]
    tied.sort(key=lambda c: (round(size_mb[c], 3), c.threads, c.name))
    order = [*tied, *sorted(set(contenders) - set(tied), key=lambda c: (_ratio(times, c, fastest).value, c.name))]
    return order, [Contest(candidate=c, slower=_ratio(times, c, order[0])) for c in order[1:]]


def _fastest(times: Mapping[Candidate, Sequence[float]], running: Sequence[Candidate]) -> Candidate:
    """By the median of what all of them were measured in."""
    return min(running, key=lambda candidate: (_median(times[candidate]), candidate.name))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else math.inf


def _ratio(times: Mapping[Candidate, Sequence[float]], ours: Candidate, theirs: Candidate) -> Ratio:
    """Of the rounds that both were in."""
    common = min(len(times[ours]), len(times[theirs]))
    if not common:
        return UNKNOWN
    return ratio(times[ours][:common], times[theirs][:common])


def loses(slower: Ratio) -> bool:
    """Whether something is slower than the fastest by more than a tie allows.

    That it is slower at all would not do. Two processes that compute the same differ by 2 or 3 % for as long as they
    live, by where their memory lies, however often they are measured: the next run would choose the other.
    """
    return slower.low > 1 + TIE


def _is_decided(slower: Ratio) -> bool:
    return slower.is_tie or loses(slower)
