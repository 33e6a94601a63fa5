"""Graphs of two precisions: which layers are in the other one, and that the bundle says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeclip import tune
from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.runtime import load
from edgeclip.tune.candidates import KINDS
from edgeclip.tune.drafts import draft_folder
from tests.tune.conftest import SETTINGS, StandIn

FASTEST = {"image": KINDS["int8, 1/4 int4"], "text": KINDS["int8, 1/8 float"]}


def test_the_least_sensitive_layers_are_in_4_bits_and_the_most_sensitive_in_float(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drafts = {tower: draft_folder(Path(), kind.name).name for tower, kind in FASTEST.items()}
    for kind in FASTEST.values():
        monkeypatch.setitem(KINDS, kind.name, kind)

    def time(self: StandIn, calls: int, **options: object) -> dict[str, list[float]]:
        return {tower: [0.5 if self.folder.name == drafts[tower] else 2.0] * calls for tower in self.towers}

    monkeypatch.setattr(stand_in, "time", time)
    card = tune.compress(mini_checkpoint, tmp_path / "out", **SETTINGS)
    assert (card.winner.image, card.winner.text) == (FASTEST["image"].name, FASTEST["text"].name)
    images, texts = (list(card.sensitivity[tower]) for tower in ("image", "text"))
    manifest = read_bundle(tmp_path / "out").manifest
    least = images[-(len(images) // 4) :]
    assert manifest.int4_layers == [f"image: {layer}" for layer in least]
    assert manifest.float_layers == [f"text: {layer}" for layer in texts[: len(texts) // 8 or 1]]
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "out" / manifest.graphs["image"]).graph.node)
    assert kinds["MatMulNBits"] == len(least)
    assert kinds["MatMulInteger"] == len(images) - len(least)
    pictures = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)
    with load(tmp_path / "out", cache=None) as clip:
        exact_NE = load_checkpoint(mini_checkpoint).encode_image(pictures)
        assert (clip.encode_image(pictures) * exact_NE).sum(axis=1).min() > 0.97
