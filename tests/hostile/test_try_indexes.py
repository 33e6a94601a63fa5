"""A sample of `tests.hostile.try_indexes`."""

import pytest

from tests.hostile import try_indexes


@pytest.mark.slow
def test_a_tampered_index_works_or_is_one_line():
    summary = try_indexes.run(30, seed=0)
    assert summary["wrong"] == []
    assert summary["works"] > 0 < summary["errors"]
