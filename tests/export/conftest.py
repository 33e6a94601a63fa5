"""Bundles of the small model in both precisions, made once."""

from pathlib import Path

import pytest

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.samples import SampleSettings, load_samples


@pytest.fixture(scope="session", params=["fp32", "int8"])
def joint_bundle(
    request: pytest.FixtureRequest, mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """With the joint graph, in each precision."""
    folder = tmp_path_factory.mktemp("joint") / request.param
    loaded = load_checkpoint(mini_checkpoint)
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=2, workers=0), loaded.preprocess_config)
    export_bundle(loaded, folder, samples, precision=request.param, threads=1, joint_graph=True)
    return read_bundle(folder)
