import numpy as np
import pytest

from edgeclip.errors import ConfigError
from edgeclip.runtime.embedding_dtype import as_dtype


def unit(*shape: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def cosine_error(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    others = others.astype(np.float64)
    return 1 - (rows * others).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(others, axis=1)


def test_by_hand():
    row = np.array([[0.6, -0.8, 0.0, 1.0, -1.0]], np.float32)
    assert as_dtype(row, "int8").tolist() == [[76, -102, 0, 127, -127]]
    assert as_dtype(row, "float32") is row
    assert as_dtype(row, "float16").dtype == np.float16


@pytest.mark.parametrize("size", [256, 512, 768])
def test_the_documented_errors(size: int):
    rows = unit(500, size)
    error = cosine_error(rows, as_dtype(rows, "int8"))
    assert error.mean() == pytest.approx(size / (24 * 127**2), rel=0.02)
    assert cosine_error(rows, as_dtype(rows, "float16")).max() < 1e-6


def test_the_product_of_int8_rows_is_their_cosine():
    rows = unit(50, 512)
    quantized = as_dtype(rows, "int8").astype(np.int32)
    # each product is off by the rounding of 512 terms: a standard deviation of sqrt(2/12)/127 = 0.0032
    np.testing.assert_allclose(quantized @ quantized.T / 127**2, rows @ rows.T, atol=5 * 0.0032)


def test_another_type():
    with pytest.raises(ConfigError, match="float64"):
        as_dtype(unit(1, 4), "float64")
