"""How many of its tokens an image tower fuses, and where, as a user writes it:

    50%                half of the tokens' work in all, wherever that costs least
    35%x3, 35%@3,6,9   35 % of the patches that are left, at 3 layers evenly spread, or at these, counted from 1
    8, 8x3, 8@3,6,9    8 of them, at every layer but the last, at 3 layers evenly spread, or at these

With `tome:` or `mctf:` before it the criterion is that one; else the better one is chosen.

Shape legend: D hidden size, F intermediate size, L layers.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

from edgeclip.config import Config, Fusion, TowerConfig, VisionConfig
from edgeclip.errors import ConfigError

Criterion: TypeAlias = Literal["tome", "mctf"]
Steps: TypeAlias = tuple[tuple[int, int], ...]
FORMS = "50%, 35%x3, 35%@3,6,9, 8, 8x3 or 8@3,6,9, with tome: or mctf: before it or not"
_NUMBER = "[1-9][0-9]{0,5}"
_FORM = re.compile(
    rf"(?:(tome|mctf):)?(?:([0-9]{{1,2}}(?:\.[0-9]{{1,3}})?)%|({_NUMBER}))(?:x({_NUMBER})|@({_NUMBER}(?:,{_NUMBER})*))?"
)
FINEST = 1000
"""The share for each layer is searched for in steps of one in so many."""


class FusionSchedule(Config, frozen=True, kw_only=True):
    """A schedule that was read: a `share` or so many `tokens`, at so many layers (`spread`) or at these (`at`)."""

    text: str
    criterion: Criterion | None
    share: float | None
    tokens: int | None
    spread: int | None
    at: tuple[int, ...]

    @property
    def of_all_work(self) -> bool:
        """Whether the share is one of the work in all, and not of the tokens at a layer."""
        return self.share is not None and self.spread is None and not self.at


def read_schedule(text: str) -> FusionSchedule:
    """Read a schedule.

    Raises:
        ConfigError: it has none of the forms, or numbers that none can have.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise _refused(f"{text!r}", FORMS, "give one of these, such as 50%")
    criterion, share, tokens, spread, at = match.groups()
    schedule = FusionSchedule(
        text=text,
        criterion=cast(Criterion | None, criterion),
        share=float(share) / 100 if share else None,
        tokens=int(tokens) if tokens else None,
        spread=int(spread) if spread else None,
        at=tuple(map(int, at.split(","))) if at else (),
    )
    if list(schedule.at) != sorted(set(schedule.at)):
        raise _refused(text, "ascending layers", "write them in order, each once")
    if schedule.share is not None and not 0 < schedule.share <= (1 if schedule.of_all_work else 0.5):
        raise _refused(
            text, "more than 0 %, and of the tokens at one layer at most 50 %", "give 50%, or 35%x3 for 3 layers"
        )
    return schedule


def steps_of(schedule: FusionSchedule, tower: TowerConfig) -> list[Steps]:
    """What a schedule means for a tower: its steps, or of a share of all work those to choose from.

    Raises:
        ConfigError: the tower is causal, or has not the layers or the tokens.
    """
    if not isinstance(tower, VisionConfig):
        raise _refused(
            f"{schedule.text} for a causal text tower", "an image tower", "leave it out: texts are cut at their end"
        )
    L, patches = tower.num_hidden_layers, tower.num_patches
    if schedule.of_all_work:
        return _sparing(schedule, tower)
    layers = schedule.at or evenly_spread(schedule, L)
    if schedule.share is not None:
        steps = _shares(layers, schedule.share, patches)
        if not steps:
            raise _refused(f"{schedule.text} of {patches} patches", "a patch or more at a layer", "give a larger share")
    else:
        assert schedule.tokens is not None  # noqa: S101 - it is one of the two
        most = patches // (len(layers) + 1)
        if schedule.tokens > most:
            raise _refused(
                f"{schedule.text} for {patches} patches, of which a layer can fuse half of those that are left",
                f"at most {most} at each of {len(layers)}" if most else "fewer layers",
                f"give {most} in place of {schedule.tokens}" if most else "give 1x3, or leave it out",
            )
        steps = tuple((layer, schedule.tokens) for layer in layers)
    Fusion(criterion="tome", steps=steps).check(tower)
    return [steps]


def evenly_spread(schedule: FusionSchedule, L: int) -> tuple[int, ...]:
    """So many of the layers 1 to L - 1 as a schedule says, at equal distances: 3, 6 and 9 of 12."""
    count = L - 1 if schedule.spread is None else schedule.spread
    if not 1 <= count < L:
        raise _refused(
            f"{schedule.text} for an image tower of {L} layers",
            f"at most {L - 1} of them, as of the last one only the class token is used",
            f"give x{L - 1}" if L > 1 else "leave it out",
        )
    return _evenly(L, count)


def _evenly(L: int, count: int) -> tuple[int, ...]:
    return tuple(-(-L * i // (count + 1)) for i in range(1, count + 1))


def _shares(layers: Sequence[int], share: float, patches: int) -> Steps:
    """At each layer the share of the patches that are left, where that is one or more."""
    steps = []
    for layer in layers:
        merged = min(round(share * patches), patches // 2)
        steps += [(layer, merged)] if merged else []
        patches -= merged
    return tuple(steps)


def _sparing(schedule: FusionSchedule, tower: VisionConfig) -> list[Steps]:
    """At a few layers and at all of them, the smallest shares that spare enough."""
    L, found, most = tower.num_hidden_layers, dict[Steps, None](), 0.0
    assert schedule.share is not None  # noqa: S101 - of all work
    for count in sorted({min(3, L - 1), L - 1} - {0}):
        by_share = [_shares(_evenly(L, count), n / FINEST, tower.num_patches) for n in range(FINEST // 2 + 1)]
        index = bisect_left(by_share, schedule.share, key=lambda steps: spared(tower, steps))
        most = max(most, spared(tower, by_share[-1]))
        if index < len(by_share):
            found[by_share[index]] = None
    if not found:
        limit = int(100 * most)
        raise _refused(
            f"{schedule.text} for an image tower of {tower.num_patches} patches and {L} layers",
            f"at most {limit}%" if limit else "a tower of more layers and patches",
            f"give {limit}%" if limit else "leave it out",
        )
    return list(found)


def spared(tower: VisionConfig, steps: Steps) -> float:
    """The share of the tokens' work that fusing spares: of the products of blocks with weights, as they are exported.

    A step counts from the MLP of its block on; of the last block all tokens have key and value, and nothing else.
    """
    D, F, tokens = tower.hidden_size, tower.intermediate_size, tower.num_patches + 1
    attention, mlp, merged, last = 4 * D * D, 2 * D * F, dict(steps), tower.num_hidden_layers
    left, work = tokens, 0
    for layer in range(1, last):
        work += left * attention
        left -= merged.get(layer, 0)
        work += left * mlp
    return 1 - (work + left * 2 * D * D) / (tokens * ((last - 1) * (attention + mlp) + 2 * D * D))


def _refused(got: str, expected: str, fix: str) -> ConfigError:
    return ConfigError(f"`fuse_tokens` {got}", expected=expected, fix=fix)
