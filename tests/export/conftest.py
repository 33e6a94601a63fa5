"""Bundles of the small model in both precisions, made once."""

from pathlib import Path

import pytest

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.export import export_bundle


@pytest.fixture(scope="session", params=["fp32", "int8"])
def joint_bundle(
    request: pytest.FixtureRequest, mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """With the joint graph, in each precision."""
    folder = tmp_path_factory.mktemp("joint") / request.param
    export_bundle(load_checkpoint(mini_checkpoint), folder, precision=request.param, threads=1, joint_graph=True)
    return read_bundle(folder)
