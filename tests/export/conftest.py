"""Bundles of the small model in both precisions, made once."""

import pytest

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.checkpoint import Checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from tests.once import MadeOnce


@pytest.fixture(scope="session", params=["fp32", "int8"])
def joint_bundle(request: pytest.FixtureRequest, checkpoint: Checkpoint, few_pairs: Samples, once: MadeOnce) -> Bundle:
    """With the joint graph, in each precision."""
    options = {"precision": request.param, "threads": 1, "combined_graph": True}
    folder = once(
        f"joint-{request.param}", lambda folder: export_bundle(checkpoint, folder / "bundle", few_pairs, **options)
    )
    return read_bundle(folder / "bundle")
