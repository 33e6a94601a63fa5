"""Rows of two small models: a checkpoint, and the bundle that is made of it."""

from pathlib import Path

import numpy as np
import pytest

from edgeclip.checkpoint import Checkpoint
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.table import Contender
from edgeclip.export.samples import Samples
from edgeclip.measure.rows import bundle_contender, measured_rows


@pytest.mark.slow
def test_models_are_measured_on_the_same_pairs(
    bundles: dict[str, Path], mini_checkpoint: Path, checkpoint: Checkpoint, few_pairs: Samples
):
    pairs = few_pairs.measure
    bundle = bundle_contender("BUNDLE", "fp32", bundles["fp32"])
    teacher = Contender("TEACHER", "checkpoint", mini_checkpoint, "fp32", params=bundle.params, size_mb=1.5)
    rows = measured_rows([teacher, bundle], pairs, pairs.pixels[0], threads=1, repeats=2)
    assert [(row.name, row.variant, row.precision, row.params) for row in rows] == [
        ("TEACHER", "checkpoint", "fp32", bundle.params),
        ("BUNDLE", "fp32", "fp32", bundle.params),
    ]
    assert [row.size_mb for row in rows] == [1.5, round(bytes_on_disk(bundles["fp32"]) / 1e6, 3)]
    assert rows[0].peak_rss_mb > rows[1].peak_rss_mb > 20  # only the checkpoint's process imports PyTorch
    # The same model: it ranks alike whoever runs it.
    assert (rows[0].i2t, rows[0].t2i, rows[0].caption) == (rows[1].i2t, rows[1].t2i, rows[1].caption)
    texts = checkpoint.encode_text(pairs.first_captions)
    best = int(np.argmax(texts @ checkpoint.encode_image([pairs.crops[0]])[0]))
    assert rows[0].caption == pairs.first_captions[best]
    assert rows[0].standard.captions == len(pairs.all_captions[0])


def test_a_bundle_says_of_itself_what_its_row_needs(bundles: dict[str, Path], checkpoint: Checkpoint):
    contender = bundle_contender("STUDENT", "int8", bundles["int8"])
    assert contender.precision == "int8"
    assert contender.params == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert contender.size_mb < bundle_contender("TEACHER", "fp32", bundles["fp32"]).size_mb
