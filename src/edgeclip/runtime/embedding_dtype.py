"""The types that embeddings are given out in.

Shape legend: N rows, E embedding size.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeclip.inputs import check_choice

EmbeddingDtype = Literal["float32", "float16", "int8"]
INT8_SCALE = 127
"""An int8 component is round(127 x) of the unit vector, so that int8 vectors of all images share one scale: the dot
product of two divided by 127^2 is their cosine. Rounding is off by 1/12 of a step squared per component, hence the
cosine of an embedding with its own int8 form is about 1 - E / (24 * 127^2): 0.9987 at E = 512, 0.9980 at E = 768.
"""


def check_dtype(dtype: str) -> None:
    """Refuse a type that embeddings are not given out in.

    Raises:
        ConfigError: the type is none of `EmbeddingDtype`.
    """
    check_choice("`dtype`", dtype, get_args(EmbeddingDtype))


def as_dtype(embeds_NE: NDArray[np.float32], dtype: EmbeddingDtype) -> NDArray[Any]:
    """Unit vectors (N, E) in another type: float16 by rounding, int8 as round(127 x).

    Raises:
        ConfigError: the type is none of these.
    """
    check_dtype(dtype)
    if dtype == "int8":
        return np.rint(embeds_NE * INT8_SCALE).clip(-INT8_SCALE, INT8_SCALE).astype(np.int8)
    return embeds_NE.astype(dtype, copy=False)


def as_float32(embeds: NDArray[Any]) -> NDArray[np.float32]:
    """Embeddings of any of these types as float32, int8 ones to scale again."""
    return embeds.astype(np.float32, copy=False) / (INT8_SCALE if embeds.dtype == np.int8 else np.float32(1))
