import hashlib

import numpy as np
import pytest

from edgeclip.data.load_data import EVALUATION_WORLD, TRAINING_WORLD, load_data
from edgeclip.data.records import TabletopRecords
from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.data.tabletop.scene import (
    BACKGROUNDS,
    COLORS,
    KINDS,
    LIGHTS,
    MATERIALS,
    RADIUS,
    SIZES,
    Draw,
    Group,
    Scene,
    Thing,
)
from edgeclip.data.tabletop.shapes import signed_distance

GOLDEN = "ed7f6fc8907c90f9a2e6f9b8c1c526b168976903eb59a4e89826f7bc90fc18e1"


def test_same_seed_same_pixels_and_words_on_every_machine():
    digest = hashlib.sha256()
    for index in range(32):
        scene = sample_scene(EVALUATION_WORLD, 7, index)
        digest.update(render(scene).tobytes())
        digest.update("\n".join(describe(scene)).encode())
    assert digest.hexdigest() == GOLDEN


def test_the_world_is_as_rich_as_promised():
    assert len(KINDS) >= 10
    assert len(COLORS) >= 10
    assert len(MATERIALS) >= 3
    assert len(SIZES) == 3
    assert len(BACKGROUNDS) >= 8
    scenes = [sample_scene("any", 0, index) for index in range(400)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4, 5}
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.light for scene in scenes} == set(LIGHTS)
    things = [thing for scene in scenes for thing in scene.things]
    for attribute, values in (("kind", KINDS), ("color", COLORS), ("material", MATERIALS), ("size", SIZES)):
        assert {getattr(thing, attribute) for thing in things} == set(values)
    assert any(_overlap(a, b) for scene in scenes for a in scene.things for b in scene.things if a is not b)


def _overlap(a: Thing, b: Thing) -> bool:
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < (0.95 * (a.radius + b.radius)) ** 2


def test_worlds_and_seeds_are_different_streams():
    assert (
        len({sample_scene(w, s, i) for w in (EVALUATION_WORLD, TRAINING_WORLD) for s in range(3) for i in range(20)})
        == 120
    )
    assert load_data("builtin:tabletop", samples=3, seed=1).records.world == EVALUATION_WORLD


def test_captions_tell_what_is_there():
    for index in range(200):
        scene = sample_scene("any", 1, index)
        captions = describe(scene)
        assert len(captions) == 5
        assert len(set(captions[:4])) == 4  # the brief one may say no less of a simple scene than the plain one
        for caption in captions[:4]:
            for group in scene.groups:
                assert group.first.color in caption
                assert group.first.kind[:-1] in caption.replace("leaves", "leaf")
        if len(scene.groups) > 1:
            a, b = scene.groups[0].center, scene.groups[1].center
            if "left of" in captions[1]:
                assert a[0] < b[0]
            if "right of" in captions[1]:
                assert a[0] > b[0]
            if "behind" in captions[1]:
                assert a[1] < b[1]


def test_counts_and_articles():
    thing = Thing("arrow", "orange", "matte", "medium", 0.5, 0.5, 0.1, 0.0)
    scene = Scene(0, (Group((thing,) * 3),), "snow", "normal", True, 0, 0.0)
    assert "three orange arrows" in describe(scene)[3]
    single = Scene(0, (Group((thing,)),), "snow", "normal", True, 0, 0.0)
    assert "an orange arrow" in describe(single)[4]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_visible_and_its_outline_is_inside_the_window(kind: str):
    u, v = (
        np.linspace(-1.3, 1.3, 131, dtype=np.float32)[None, :],
        np.linspace(-1.3, 1.3, 131, dtype=np.float32)[:, None],
    )
    distance, relief = signed_distance(kind, u, v)
    inside = distance < 0
    assert distance.shape == (131, 131)
    assert np.broadcast_shapes(relief.shape, distance.shape) == (131, 131)
    assert 0.08 < inside.mean() < 0.6
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()


def test_an_object_has_its_colour_where_it_stands():
    thing = Thing("ball", "red", "matte", "large", 0.5, 0.5, RADIUS["large"], 0.0)
    pixels = render(Scene(1, (Group((thing,)),), "snow", "normal", True, 0, 0.0))
    red, green, blue = pixels[112, 112]
    assert pixels.shape == (224, 224, 3)
    assert red > 150
    assert max(green, blue) < 80


def test_draws_are_uniform_enough():
    draw = Draw("test")
    picks = [draw.weighted("ab", (0.25, 0.75)) for _ in range(4000)]
    assert 0.22 < picks.count("a") / 4000 < 0.28
    assert set(np.bincount([draw.index(4) for _ in range(400)]) > 60) == {True}


def test_records_are_made_lazily_and_bounded():
    records = TabletopRecords("any", 0, 5)
    assert len(records) == 5
    assert len(records[4].captions) == 5
    with pytest.raises(IndexError):
        records[5]
