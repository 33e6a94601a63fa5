"""Bundles of the small model in both precisions, made once."""

from pathlib import Path

import pytest

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples


@pytest.fixture(scope="session", params=["fp32", "int8"])
def joint_bundle(
    request: pytest.FixtureRequest, mini_checkpoint: Path, few_pairs: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """With the joint graph, in each precision."""
    folder = tmp_path_factory.mktemp("joint") / request.param
    checkpoint = load_checkpoint(mini_checkpoint)
    export_bundle(checkpoint, folder, few_pairs, precision=request.param, threads=1, combined_graph=True)
    return read_bundle(folder)
