"""A sample of `tests.hostile.kill_index`."""

from pathlib import Path

import pytest

from tests.hostile.kill_index import World


@pytest.mark.slow
def test_an_index_that_is_killed_loses_nothing_that_was_committed(tmp_path: Path):
    world = World(tmp_path, is_second=True)
    for point, calls, least in (
        ("edgeclip.search.adding:Adding._store_photo", 20, 80),
        ("edgeclip.search.adding:Adding._store", 1, 80),
        ("edgeclip.search.index:Index._settle", 1, 80),
    ):
        killed, kept, wrong = world.kill((point, calls))
        assert (killed, wrong) == (True, ""), point
        assert kept >= least
