"""Which candidate is closest where none fits."""

from types import SimpleNamespace

from edgeclip.evaluate.paired import Drop
from edgeclip.results import Interval
from edgeclip.tune.finish import _closest
from edgeclip.tune.record import Budget, Candidate, Figures

BUDGET = Budget(max_image_ms=1.0, max_text_ms=None, max_size_mb=None, max_rss_mb=None, max_open_ms=None, max_drop=1.0)


def test_of_those_that_exceed_one_limit_alike_the_one_that_keeps_the_others_is_closest():
    small, exact, slow = (Candidate(image=name, text=name, threads=1) for name in ("small", "exact", "slow"))
    costs = {small: (2.0, 1.0, 1.5), exact: (2.0, 5.0, 0.5), slow: (4.0, 0.5, 0.5)}
    figures = {c: Figures(image_ms=ms, text_ms=1, size_mb=mb, rss_mb=1, open_ms=1) for c, (ms, mb, _) in costs.items()}

    def drop(candidate: Candidate) -> Drop:
        return Drop(**dict.fromkeys(("r1", "r5", "r10"), Interval(value=0, low=0, high=costs[candidate][2])))

    assert _closest(SimpleNamespace(figures=figures, budget=BUDGET, drop=drop)) == [exact, small, slow]
