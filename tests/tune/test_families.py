"""SigLIP and SigLIP 2 in their published layout, as a user inspects, measures and compresses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from edgeclip import tune
from edgeclip.checkpoint import load_checkpoint
from edgeclip.runtime import load
from tests import published
from tests.tune.conftest import SETTINGS, StandIn

WRITE = {"siglip": published.write_siglip, "siglip 2": published.write_siglip2}
SCENES = ["--samples", 6, "--threads", 1, "--workers", 0]


@pytest.mark.parametrize("family", WRITE)
def test_a_checkpoint_is_inspected_and_evaluated(
    family: str, tmp_path: Path, edgeclip_here: Callable[..., CompletedProcess[str]]
):
    folder = WRITE[family](tmp_path / "checkpoint")
    shown = edgeclip_here("inspect", folder)
    assert shown.returncode == 0, shown.stderr
    assert "image: attention pooling" in shown.stdout
    assert "a sigmoid for each pair" in shown.stdout
    measured = edgeclip_here("evaluate", folder, *SCENES, "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["images"] == 6


@pytest.mark.slow
def test_a_checkpoint_is_compressed(stand_in: type[StandIn], tmp_path: Path):
    folder = published.write_siglip2(tmp_path / "checkpoint")
    card = tune.compress(folder, tmp_path / "small", **SETTINGS)
    assert card.winner.image == card.winner.text == "int8"
    checkpoint = load_checkpoint(folder)
    pictures = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)
    with load(tmp_path / "small", cache=None) as clip:
        assert (clip.encode_image(pictures) * checkpoint.encode_image(pictures)).sum(axis=1).min() > 0.995
        texts = published.SENTENCES
        assert (clip.encode_text(texts) * checkpoint.encode_text(texts)).sum(axis=1).min() > 0.995
        assert clip.logit_bias == pytest.approx(checkpoint.logit_bias)
