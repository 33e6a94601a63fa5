"""A sample of `tests.hostile.try_rows`."""

from tests.hostile.try_rows import run


def test_mutated_data_sets_are_read_with_every_row_counted_or_end_in_one_line():
    summary = run(400, seed=0)
    assert summary["wrong"] == []
    assert summary["read"] > 10
    assert summary["errors"] > 10
