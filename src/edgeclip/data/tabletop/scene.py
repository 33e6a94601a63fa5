"""What is in a scene. Everything is drawn from one seed with arithmetic that gives the same result on every machine."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

KINDS = ("ball", "box", "ring", "star", "heart", "pyramid", "cross", "moon", "mug", "bottle", "leaf", "arrow")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "white")
MATERIALS = ("matte", "shiny", "striped", "spotted")
SIZES = ("small", "medium", "large")
BACKGROUNDS = ("wood", "grass", "sand", "concrete", "tiles", "checkered cloth", "blue carpet", "snow")
LIGHTS = ("normal", "bright", "dim", "warm")
RADIUS = {"small": 0.085, "medium": 0.135, "large": 0.2}
"""Half the extent of an object, as a fraction of the image side."""


@dataclass(frozen=True)
class Thing:
    """One object. Position and radius are fractions of the image side; `turn` is tan(angle / 2)."""

    kind: str
    color: str
    material: str
    size: str
    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True)
class Group:
    """Objects alike in kind, colour, material and size, mentioned together: "two small red balls"."""

    things: tuple[Thing, ...]

    @property
    def first(self) -> Thing:
        """A representative, for the attributes that all share."""
        return self.things[0]

    @property
    def center(self) -> tuple[float, float]:
        """Mean position."""
        n = len(self.things)
        return sum(t.x for t in self.things) / n, sum(t.y for t in self.things) / n


@dataclass(frozen=True)
class Scene:
    """A scene before it is drawn. `blur` counts smoothing passes; `noise` is in grey levels (standard deviation)."""

    seed: int
    groups: tuple[Group, ...]
    background: str
    light: str
    light_from_left: bool
    blur: int
    noise: float

    @property
    def things(self) -> list[Thing]:
        """All objects, from the back of the table to the front."""
        return sorted((t for g in self.groups for t in g.things), key=lambda t: t.y)


class Draw:
    """Random choices built on `random.Random.random()` alone, the one method whose stream Python promises to keep."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
        self.seed = int.from_bytes(digest[:16], "big")
        self._random = random.Random(self.seed)

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self._random.random()

    def index(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self._random.random() * n)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.index(len(options))]

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """One of the options, in proportion to weights that sum to 1."""
        left = self._random.random()
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]


def sample_scene(world: str, seed: int, index: int) -> Scene:
    """Scene number `index` of a world.

    Args:
        world: the name of an independent stream; training and evaluation use different ones and so never share a scene.
        seed: which set of scenes.
        index: which scene of the set.
    """
    draw = Draw("tabletop", world, seed, index)
    count = draw.weighted((1, 2, 3, 4, 5), (0.10, 0.25, 0.30, 0.20, 0.15))
    placed: list[Thing] = []
    groups: list[Group] = []
    while len(placed) < count:
        members = min(draw.weighted((1, 2, 3), (0.70, 0.20, 0.10)), count - len(placed))
        groups.append(_sample_group(draw, members, placed, [g.first for g in groups]))
        placed.extend(groups[-1].things)
    return Scene(
        seed=draw.seed,
        groups=tuple(groups),
        background=draw.choice(BACKGROUNDS),
        light=draw.weighted(LIGHTS, (0.55, 0.15, 0.15, 0.15)),
        light_from_left=draw.index(2) == 0,
        blur=draw.weighted((0, 1, 2), (0.6, 0.25, 0.15)),
        noise=draw.uniform(0.0, 6.0),
    )


def _sample_group(draw: Draw, members: int, placed: list[Thing], mentioned: list[Thing]) -> Group:
    """Draw a group whose look differs from every group already mentioned, so that a caption is never ambiguous."""
    while True:
        look = (draw.choice(KINDS), draw.choice(COLORS), draw.weighted(MATERIALS, (0.4, 0.2, 0.2, 0.2)))
        if look[:2] not in [(t.kind, t.color) for t in mentioned]:
            break
    size = draw.choice(SIZES) if members < 3 else draw.choice(SIZES[:2])
    things: list[Thing] = []
    for _ in range(members):
        radius = RADIUS[size] * draw.uniform(0.92, 1.08)
        x, y = _place(draw, radius, [*placed, *things])
        turn = draw.uniform(-0.12, 0.12)
        things.append(Thing(*look, size=size, x=x, y=y, radius=radius, turn=turn))
    return Group(tuple(things))


def _place(draw: Draw, radius: float, placed: list[Thing]) -> tuple[float, float]:
    """Find a place: overlap is allowed, but at most about a third of the smaller object where there is room."""
    x = y = 0.5
    for _ in range(30):
        x, y = draw.uniform(radius, 1 - radius), draw.uniform(radius, 1 - radius)
        if all((x - t.x) ** 2 + (y - t.y) ** 2 >= (0.8 * (radius + t.radius)) ** 2 for t in placed):
            break
    return x, y
