"""A sample of `tests.hostile.kill_embed`."""

from pathlib import Path

import pytest

from tests.hostile.kill_embed import World


@pytest.mark.slow
def test_a_killed_run_that_puts_rows_in_place_of_others_is_completed_by_the_next(bundles: dict, tmp_path: Path):
    world = World(tmp_path, bundles["int8"], "npy", batch_size=4, is_second=True)
    for point, calls in (
        ("edgeclip.bulk.embedding_file:EmbeddingFile.append", 6),
        ("edgeclip.bulk.npy_file:NpyFile.copy", 1),
        ("pathlib:Path.replace", 2),
    ):
        assert world.kill(point, calls) == (True, ""), point
