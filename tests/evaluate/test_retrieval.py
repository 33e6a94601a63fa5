"""Recall on matrices made by hand."""

import numpy as np
import pytest

from edgeclip.evaluate.retrieval import BLOCK, ranks, recalls, retrieval


def embeddings(similarity: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Image and text embeddings whose products are the given matrix (images by captions)."""
    matrix = np.asarray(similarity, np.float32)
    return matrix, np.eye(matrix.shape[1], dtype=np.float32)


def test_ranks_by_hand():
    images, texts = embeddings([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8], [0.1, 0.7, 0.6]])
    image_ranks, caption_ranks = ranks(images, texts, np.arange(3))
    assert image_ranks.tolist() == [0, 1, 1]
    assert caption_ranks.tolist() == [0, 1, 1]


def test_ties_count_against_the_model():
    images, texts = embeddings([[0.5, 0.5], [0.5, 0.5]])
    image_ranks, caption_ranks = ranks(images, texts, np.arange(2))
    assert image_ranks.tolist() == [1, 1]
    assert caption_ranks.tolist() == [1, 1]


def test_a_model_that_says_the_same_of_everything_has_no_recall():
    same = np.full((20, 4), 0.5, np.float32)
    i2t, t2i = retrieval(same, same, np.arange(20))
    assert i2t.r10.value == t2i.r10.value == 0.0


def test_duplicates_are_ties_however_their_products_are_rounded():
    rng = np.random.default_rng(1)
    images, texts = rng.standard_normal((2, 150, 512)).astype(np.float32)
    images, texts = (np.tile(x / np.linalg.norm(x, axis=1, keepdims=True), (2, 1)) for x in (images, texts))
    image_ranks, caption_ranks = ranks(images, texts, np.arange(300))
    assert image_ranks.min() > 0
    assert caption_ranks.min() > 0


def test_not_a_number_counts_against_the_model():
    images = np.full((3, 2), np.nan, np.float32)
    texts = np.ones((3, 2), np.float32)
    image_ranks, caption_ranks = ranks(images, texts, np.arange(3))
    assert image_ranks.tolist() == [2, 2, 2]
    assert caption_ranks.tolist() == [2, 2, 2]


def test_any_caption_of_an_image_counts_and_its_others_do_no_harm():
    # Captions 0 and 1 belong to image 0, captions 2 and 3 to image 1.
    images, texts = embeddings([[0.1, 0.9, 0.5, 0.4], [0.2, 0.6, 0.3, 0.7]])
    image_ranks, caption_ranks = ranks(images, texts, np.array([0, 0, 1, 1]))
    assert image_ranks.tolist() == [0, 0]
    assert caption_ranks.tolist() == [1, 0, 1, 0]
    images, texts = embeddings([[0.1, 0.4, 0.5, 0.2], [0.2, 0.6, 0.3, 0.7]])
    assert ranks(images, texts, np.array([0, 0, 1, 1]))[0].tolist() == [1, 0]


def test_blocks_do_not_change_the_result():
    rng = np.random.default_rng(0)
    count = BLOCK + 37
    images, texts = rng.standard_normal((2, count, 8)).astype(np.float32)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts + 0.7 * images))
    similarity = images @ texts.T
    own = np.diag(similarity)
    image_ranks, caption_ranks = ranks(images, texts, np.arange(count))
    np.testing.assert_array_equal(image_ranks, (similarity > own[:, None]).sum(axis=1))
    np.testing.assert_array_equal(caption_ranks, (similarity > own[None, :]).sum(axis=0))


def test_recall_values_and_intervals():
    hits = np.array([0] * 30 + [3] * 20 + [50] * 50)
    result = recalls(hits, np.arange(100))
    assert (result.r1.value, result.r5.value, result.r10.value) == (30.0, 50.0, 50.0)
    # The normal approximation of a binomial interval: 30 +- 1.96 * sqrt(0.3 * 0.7 / 100).
    assert result.r1.low == pytest.approx(30 - 8.98, abs=1.5)
    assert result.r1.high == pytest.approx(30 + 8.98, abs=1.5)


def test_captions_of_one_image_are_resampled_together():
    # Five captions that always agree carry no more information than one.
    outcome = np.random.default_rng(0).integers(0, 2, 100) * 9
    single = recalls(outcome, np.arange(100))
    repeated = recalls(np.repeat(outcome, 5), np.repeat(np.arange(100), 5))
    assert repeated == single


def test_intervals_are_repeatable():
    ranks_ = np.arange(50) % 7
    assert recalls(ranks_, np.arange(50)) == recalls(ranks_, np.arange(50))
