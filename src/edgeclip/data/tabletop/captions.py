"""Five captions for a scene, in different styles and levels of detail."""

from __future__ import annotations

from edgeclip.data.tabletop.scene import Draw, Group, Scene

NUMBERS = ("no", "one", "two", "three", "four", "five")
PLURALS = {"box": "boxes", "leaf": "leaves", "cross": "crosses"}
PLACES = {
    "wood": ("on a wooden table", "on wood", "on the wooden tabletop"),
    "grass": ("on green grass", "on the lawn", "lying in the grass"),
    "sand": ("on sand", "on the beach", "lying in the sand"),
    "concrete": ("on concrete", "on a grey concrete floor", "on the pavement"),
    "tiles": ("on blue tiles", "on a tiled floor", "on the tiles"),
    "checkered cloth": ("on a checkered cloth", "on a checkered tablecloth", "on a chequered picnic blanket"),
    "blue carpet": ("on a dark blue carpet", "on a rug", "on the carpet"),
    "snow": ("on snow", "in the snow", "on white snow"),
}
LIGHTING = {"normal": "", "bright": "in bright light", "dim": "in dim light", "warm": "in warm evening light"}


def describe(scene: Scene) -> list[str]:
    """Five captions, always in this order: plain, relational, a list of tags, counted, and brief.

    All but the brief one name every object with its colour; the brief one keeps the colour of at most two groups and
    may leave the place out, so that even a perfect model is sometimes wrong.
    """
    draw = Draw("captions", scene.seed)
    return [
        _plain(scene, draw),
        _relational(scene, draw),
        _tags(scene, draw),
        _counted(scene, draw),
        _brief(scene, draw),
    ]


def _noun(group: Group, *, size: bool = True, material: bool = True, color: bool = True, article: bool = True) -> str:
    """A noun phrase such as "two small striped red mugs"."""
    thing, count = group.first, len(group.things)
    words = [
        thing.size if size and thing.size != "medium" else "",
        thing.material if material and thing.material != "matte" else "",
        thing.color if color else "",
        thing.kind if count == 1 else PLURALS.get(thing.kind, thing.kind + "s"),
    ]
    phrase = " ".join(word for word in words if word)
    if not article:
        return phrase
    return f"{_article(phrase) if count == 1 else NUMBERS[count]} {phrase}"


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _join(phrases: list[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _place(scene: Scene, draw: Draw) -> str:
    return draw.choice(PLACES[scene.background])


def _plain(scene: Scene, draw: Draw) -> str:
    there = "there is " if len(scene.groups[0].things) == 1 else "there are "
    opening = draw.choice(("", "", "a photo of ", there))
    return f"{opening}{_join([_noun(g) for g in scene.groups])} {_place(scene, draw)}"


def _relation(a: Group, b: Group, draw: Draw) -> str:
    """How a stands to b, by the larger of the two offsets; image y grows toward the viewer."""
    (ax, ay), (bx, by) = a.center, b.center
    if abs(ax - bx) >= abs(ay - by):
        return draw.choice(("to the left of", "left of")) if ax < bx else draw.choice(("to the right of", "right of"))
    return draw.choice(("behind", "above")) if ay < by else draw.choice(("in front of", "below"))


def _relational(scene: Scene, draw: Draw) -> str:
    light = LIGHTING[scene.light]
    ending = f"{_place(scene, draw)}{', ' + light if light else ''}"
    first, *others = scene.groups
    if not others:
        (x, _), things = first.center, len(first.things)
        side = "on the left" if x < 0.4 else "on the right" if x > 0.6 else "in the middle"
        return f"{_noun(first)} {side if things == 1 else 'together'}, {ending}"
    second, *rest = others
    tail = f", with {_join([_noun(g) for g in rest])}" if rest else ""
    return f"{_noun(first)} {_relation(first, second, draw)} {_noun(second)}{tail}, {ending}"


def _tags(scene: Scene, draw: Draw) -> str:
    tags = [_noun(g, article=False) + (f" x{len(g.things)}" if len(g.things) > 1 else "") for g in scene.groups]
    start = draw.index(len(tags))
    return ", ".join([*tags[start:], *tags[:start], scene.background])


def _counted(scene: Scene, draw: Draw) -> str:
    count = len(scene.things)
    head = "one object" if count == 1 else f"{NUMBERS[count]} objects"
    verb = draw.choice(("I can see", "we see", "the picture shows"))
    nouns = [_noun(g, size=draw.index(2) == 0) for g in reversed(scene.groups)]
    return f"{verb} {head} {_place(scene, draw)}: {_join(nouns)}"


def _brief(scene: Scene, draw: Draw) -> str:
    nouns = [_noun(g, size=False, material=False, color=i < 2) for i, g in enumerate(scene.groups)]
    place = f" {_place(scene, draw)}" if draw.index(3) else ""
    return _join(nouns) + place
