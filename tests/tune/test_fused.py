"""Fused tokens as candidates: only of image towers with many, and as bundles that say so."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgeclip import tune
from edgeclip.bundle import read_bundle
from edgeclip.runtime import load, self_test
from edgeclip.tune import fused
from edgeclip.tune.candidates import KINDS
from tests.tune.conftest import SETTINGS, StandIn

NAME = "int8, 50% fused"
KIND = replace(KINDS[NAME], fuse="1@1")
"""The tiny tower has few tokens and layers."""


@pytest.fixture
def with_fused(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """A kind of fused tokens, twice as fast as int8."""
    monkeypatch.setitem(KINDS, NAME, KIND)
    stand_in.times = stand_in.times | {"int8-50-fused": 1.0}
    return stand_in


def test_few_tokens_are_not_fused_and_the_card_says_why(
    with_fused: type[StandIn], mini_checkpoint: Path, tmp_path: Path
):
    card = tune.compress(mini_checkpoint, tmp_path / "small", **SETTINGS)
    assert (card.winner.image, len(card.tried)) == ("int8", 9)
    assert [failure.trial for failure in card.failures] == ["fusing tokens by 1@1"]
    assert "an image of 5 tokens, of which fusing takes as long as it saves below 100" in card.failures[0].reason


def test_images_of_fused_tokens_pair_with_every_text_of_the_teacher(
    with_fused: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fused, "FEWEST_TOKENS", 2)
    card = tune.compress(mini_checkpoint, tmp_path / "small", **SETTINGS)
    assert len(card.tried) == 3 * 3 + 3
    assert (card.winner.image, card.winner.text) == (NAME, "int8")
    assert not with_fused.asked["open text int8-50-fused 1"]
    bundle = read_bundle(tmp_path / "small")
    assert bundle.manifest.fusion == bundle.config.vision.fusion
    assert bundle.manifest.fusion.steps
    with load(tmp_path / "small", cache=None) as clip:
        self_test(clip)


def test_a_schedule_that_the_tower_has_no_tokens_for_is_a_recorded_failure(
    with_fused: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fused, "FEWEST_TOKENS", 2)
    monkeypatch.setitem(KINDS, NAME, replace(KIND, fuse="900@1"))
    card = tune.compress(mini_checkpoint, tmp_path / "small", **SETTINGS)
    assert [failure.trial for failure in card.failures] == ["fusing tokens by 900@1"]
    assert card.winner.image == "int8"
