"""What a model finds of its own pairs, and of what its teacher finds where nothing is known of the pictures."""

import numpy as np
import pytest

from edgeclip.errors import DataError
from edgeclip.evaluate.judge import TeachersRanking, check_better_than_chance, own_pairs

LIKELY = np.log(3)
"""A logit that is so much larger is three times as likely."""


def embeds(scores: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Images and texts whose cosines, but for their length, are these."""
    return np.array(scores, np.float32), np.eye(len(scores), dtype=np.float32)


def test_own_pairs_are_found_or_not():
    found = own_pairs(embeds([[1.0, 0.2], [0.9, 0.5]]))
    assert found.shape == (3, 2, 2)
    assert found[0].tolist() == [[1, 0], [1, 1]]
    assert found[1].tolist() == [[1, 1], [1, 1]]


def test_what_a_model_ranks_first_is_worth_what_its_teacher_gives_it():
    teacher = embeds([[LIKELY, 0.0], [0.0, 0.0]])
    ranking = TeachersRanking(teacher, 1.0)
    np.testing.assert_allclose(ranking(teacher), 1)
    other = embeds([[0.0, 1.0], [1.0, 0.0]])
    # the image that was sure finds a third of it; the other was not; a text each likewise
    np.testing.assert_allclose(ranking(other)[0], [[1 / 3, 1], [1 / 3, 1]], rtol=1e-6)
    np.testing.assert_allclose(ranking(other)[1], 1)
    assert ranking.same_first(teacher) == 100
    assert ranking.same_first(embeds([[1.0, 0.0], [0.0, 1.0]])) == 50


def test_a_tie_counts_against_the_model_and_so_does_what_is_no_number():
    ranking = TeachersRanking(embeds([[LIKELY, 0.0], [0.0, LIKELY]]), 1.0)
    np.testing.assert_allclose(ranking(embeds([[0.5, 0.5], [0.5, 0.5]]))[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(ranking(embeds([[np.nan, 0.0], [0.0, 0.0]]))[0, 0, 0], 1 / 3, rtol=1e-6)


def test_it_costs_less_to_change_places_with_what_is_as_likely():
    rng = np.random.default_rng(0)
    teacher = embeds(rng.standard_normal((50, 50)).tolist())
    near = embeds((teacher[0] + 0.02 * rng.standard_normal((50, 50))).tolist())
    ranking = TeachersRanking(teacher, 20.0)
    assert ranking.same_first(near) < 100
    assert 100 * (1 - ranking(near)[0].mean()) < (100 - ranking.same_first(near)) / 2


def test_a_teacher_that_guesses_is_refused():
    known = np.ones((3, 2, 300))
    check_better_than_chance(known)
    guess = known.copy()
    guess[0, 1] = np.random.default_rng(0).permutation(300) < 1
    with pytest.raises(DataError, match="guessing reaches too"):
        check_better_than_chance(guess)


@pytest.mark.parametrize(
    ("scores", "what"),
    [
        (np.zeros((20, 20)), "one text for every picture agrees by 100 %"),
        (np.tile(np.linspace(0, 1, 20), (20, 1)), "one text for every picture agrees by 100 %"),
        (0.01 * np.eye(20), "one text for every picture agrees by 9. %"),
        (np.tile(np.linspace(0, 5, 20), (20, 1)).T + 0.3 * np.eye(20), "one picture for every text agrees by 9. %"),
        (np.full((20, 20), np.nan), "agrees by nan %"),
    ],
)
def test_a_teacher_that_tells_nothing_apart_is_refused(scores: np.ndarray, what: str):
    with pytest.raises(DataError, match=what):
        TeachersRanking(embeds(scores.tolist()), 10.0).check()


def test_one_that_does_is_not():
    TeachersRanking(embeds(np.eye(20).tolist()), 10.0).check()
