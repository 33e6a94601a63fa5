"""Bits and their candidates against counting one by one, and the file of them against everything that can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeclip.search import sign_bits
from edgeclip.search.sign_bits import Code, SignBits, bit_count, packed


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def pictures() -> np.ndarray:
    """3,000 vectors of 96, most of whose variance is in few directions, about a mean."""
    rng = np.random.default_rng(0)
    axes = np.arange(1, 97)[:, None] ** -0.5 * np.linalg.qr(rng.standard_normal((96, 96)))[0]
    return unit(0.3 * rng.standard_normal((3000, 96)) @ axes + rng.standard_normal(96) / 12)


@pytest.fixture
def bits(pictures: np.ndarray) -> SignBits:
    code = Code.of(pictures)
    return SignBits(np.arange(1, 3001) * 3, code, code.words(pictures).T.copy())


def test_bits_are_counted():
    words = np.array([0, 1, 2**64 - 1, 0x8000000000000001, 0x5555555555555555], np.uint64)
    assert bit_count(words).tolist() == [0, 1, 64, 2, 32]


def test_vectors_that_do_not_fill_their_words():
    words = packed(np.array([[1.0, -1.0, 0.5], [-1.0, -1.0, -1.0]], np.float32))
    assert words.shape == (2, 1)
    assert bit_count(words).ravel().tolist() == [2, 0]


def test_the_nearest_are_those_of_counting_and_fitting_one_by_one(bits: SignBits, pictures: np.ndarray):
    query = pictures[5]
    rotated = (pictures - bits.code.mean) @ bits.code.rotation
    signs = np.where(rotated > 0, 1, -1)
    differing = (signs * rotated[5] < 0).sum(1)
    by_sign, by_large = np.split(query @ bits.code.by_both, 2)
    fit = signs @ by_sign + (signs * (np.abs(rotated) > bits.code.large)) @ by_large
    found = bits.nearest(query, 20, is_picture=True)
    among = np.flatnonzero(differing <= np.sort(differing)[20 * sign_bits.CANDIDATES - 1])
    best = among[np.argsort(-fit[among])[:20]]
    assert set(found.tolist()) == set((3 * (best + 1)).tolist())


def test_the_fit_is_the_least_squares_one(bits: SignBits, pictures: np.ndarray):
    """But for the ridge, what is left of the products is orthogonal to every bit."""
    query = unit(np.random.default_rng(2).standard_normal(96))
    rotated = (pictures - bits.code.mean) @ bits.code.rotation
    signs = np.where(rotated > 0, 1.0, -1.0)
    fit, products = signs @ (query @ bits.code.by_sign), (pictures - bits.code.mean) @ query
    left = products - products.mean() - (fit - fit.mean())
    assert left.var() < 0.5 * products.var()
    assert np.abs((signs - signs.mean(0)).T @ left / len(left)).max() < 0.02 * products.std()


def test_more_are_asked_for_than_there_are(bits: SignBits, pictures: np.ndarray):
    assert sorted(bits.nearest(pictures[5], 5000, is_picture=True).tolist()) == bits.ids_N.tolist()
    among = np.zeros(len(bits), bool)
    assert bits.nearest(pictures[5], 10, is_picture=True, among_N=among).tolist() == []
    among[[7, 9]] = True
    assert sorted(bits.nearest(pictures[5], 10, is_picture=True, among_N=among).tolist()) == [24, 30]


def test_texts_are_compared_by_what_pictures_differ_by(
    bits: SignBits, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """A text's vector is in a cone of its own: by its own signs, fewer of its nearest pictures are candidates."""
    monkeypatch.setattr(sign_bits, "CANDIDATES", 2)
    rng = np.random.default_rng(1)
    cone = 3 * unit(rng.standard_normal(96))
    recalls: dict[bool, list[float]] = {True: [], False: []}
    for picture in pictures[:40]:
        query = unit(cone + 0.5 * (picture - bits.code.mean) + 0.05 * rng.standard_normal(96))
        nearest = set((3 * (np.argsort(-(pictures @ query))[:10] + 1)).tolist())
        for is_picture, recall in recalls.items():
            found = bits.nearest(query, 60, is_picture=is_picture)
            recall.append(len(nearest & set(found.tolist())) / 10)
    assert np.mean(recalls[False]) > np.mean(recalls[True]) + 0.1


def test_the_file_gives_the_same_candidates(bits: SignBits, pictures: np.ndarray, tmp_path: Path):
    bits.write(tmp_path / "bits", "a database")
    read = sign_bits.read(tmp_path / "bits", "a database", 96)
    assert read is not None
    for is_picture in (True, False):
        expected = bits.nearest(pictures[8], 30, is_picture=is_picture).tolist()
        assert read.nearest(pictures[8], 30, is_picture=is_picture).tolist() == expected


def test_a_file_of_something_else_is_none(bits: SignBits, tmp_path: Path):
    path = tmp_path / "bits"
    assert sign_bits.read(path, "a database", 96) is None
    bits.write(path, "a database")
    data = path.read_bytes()
    assert sign_bits.read(path, "another", 96) is None
    assert sign_bits.read(path, "a database", 128) is None
    start = len(sign_bits.MAGIC)
    for damaged in (
        b"",
        data[:10],
        data[:-1],
        data + b"\0",
        b"x" + data[1:],
        data[:start] + b"[" + data[start + 1 :],
        data.replace(b'"rows":3000', b'"rows":4000'),
        data.replace(b'"rows":3000', b'"rows":-300'),
        data.replace(bits.ids_N[-1].tobytes(), b"\xff" * 7 + b"\x7f"),
        data.replace(bits.code.mean[:2].tobytes(), b"\xff" * 8),
    ):
        path.write_bytes(damaged)
        assert sign_bits.read(path, "a database", 96) is None
