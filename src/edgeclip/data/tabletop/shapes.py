"""Signed distances of the object kinds.

Each function takes coordinates u (right) and v (down) in which the object has about radius 1, and returns the distance
to its outline (negative inside) and a relief that brightens or darkens parts of it. Formulas after I. Quilez's
catalogue of two-dimensional distance functions, with plain arithmetic only (see `render`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _circle(u: Array, v: Array, radius: float) -> Array:
    return np.sqrt(u * u + v * v) - np.float32(radius)


def _rectangle(u: Array, v: Array, half_width: float, half_height: float, round_: float = 0.0) -> Array:
    du = np.abs(u) - np.float32(half_width - round_)
    dv = np.abs(v) - np.float32(half_height - round_)
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - np.float32(round_)


def _half_planes(u: Array, v: Array, lines: tuple[tuple[float, float, float], ...]) -> Array:
    """The intersection of half-planes a*u + b*v <= c, each with a unit normal (a, b)."""
    distance = np.full(np.broadcast_shapes(u.shape, v.shape), -np.inf, np.float32)
    for a, b, c in lines:
        distance = np.maximum(distance, u * np.float32(a) + v * np.float32(b) - np.float32(c))
    return distance


def _ball(u: Array, v: Array) -> tuple[Array, Array]:
    height = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    return _circle(u, v, 0.92), (height - np.float32(0.6)) * np.float32(0.5)


def _box(u: Array, v: Array) -> tuple[Array, Array]:
    relief = np.where(v < np.float32(-0.38) + 0 * u, 0.3, np.where(u > np.float32(0.42) + 0 * v, -0.25, 0.0))
    return _rectangle(u, v, 0.82, 0.82, 0.06), relief.astype(np.float32)


def _ring(u: Array, v: Array) -> tuple[Array, Array]:
    off_axis = np.abs(_circle(u, v, 0.66))
    return off_axis - np.float32(0.27), (np.float32(0.14) - off_axis) * np.float32(0.9)


def _star(u: Array, v: Array) -> tuple[Array, Array]:
    """Five points: the union of five thin kites, one for each fifth of a turn."""
    tips = ((0.0, -1.0), (0.951057, -0.309017), (0.587785, 0.809017), (-0.587785, 0.809017), (-0.951057, -0.309017))
    distance = np.full(np.broadcast_shapes(u.shape, v.shape), np.inf, np.float32)
    for a, b in tips:
        along = u * np.float32(a) + v * np.float32(b)
        across = np.abs(v * np.float32(a) - u * np.float32(b))
        kite = np.maximum(
            (across * np.float32(0.951) + along * np.float32(0.309)) - np.float32(0.31), -along - np.float32(0.05)
        )
        distance = np.minimum(distance, kite)
    return distance, np.zeros_like(distance)


def _heart(u: Array, v: Array) -> tuple[Array, Array]:
    lobe = _circle(np.abs(u) - np.float32(0.42), v + np.float32(0.36), 0.46)
    side = np.abs(u)
    wedge = np.maximum(side * np.float32(0.78) + v * np.float32(0.625) - np.float32(0.43), -v - np.float32(0.4))
    wedge = np.maximum(wedge, side - np.float32(0.86))
    distance = np.minimum(lobe, wedge)
    return distance, np.zeros_like(distance)


def _pyramid(u: Array, v: Array) -> tuple[Array, Array]:
    distance = _half_planes(u, v, ((0.8944, -0.4472, 0.40), (-0.8944, -0.4472, 0.40), (0.0, 1.0, 0.72)))
    return distance, np.where(u > np.float32(0.15) + 0 * v, np.float32(-0.3), np.float32(0.1))


def _cross(u: Array, v: Array) -> tuple[Array, Array]:
    distance = np.minimum(_rectangle(u, v, 0.92, 0.3, 0.05), _rectangle(u, v, 0.3, 0.92, 0.05))
    return distance, np.zeros_like(distance)


def _moon(u: Array, v: Array) -> tuple[Array, Array]:
    distance = np.maximum(_circle(u, v, 0.92), -_circle(u - np.float32(0.46), v + np.float32(0.1), 0.74))
    return distance, np.zeros_like(distance)


def _mug(u: Array, v: Array) -> tuple[Array, Array]:
    body = _rectangle(u + np.float32(0.2), v, 0.6, 0.78, 0.1)
    handle = np.abs(_circle(u - np.float32(0.42), v, 0.38)) - np.float32(0.11)
    mouth = (np.abs(u + np.float32(0.2)) < 0.48) & (np.abs(v + np.float32(0.62)) < 0.09)
    return np.minimum(body, handle), np.where(mouth, np.float32(-0.5), np.float32(0.0))


def _bottle(u: Array, v: Array) -> tuple[Array, Array]:
    body = _rectangle(u, v - np.float32(0.3), 0.46, 0.66, 0.16)
    neck = _rectangle(u, v + np.float32(0.6), 0.17, 0.36, 0.03)
    cap = np.where(v < np.float32(-0.72) + 0 * u, np.float32(-0.35), np.float32(0.0))
    return np.minimum(body, neck), cap


def _leaf(u: Array, v: Array) -> tuple[Array, Array]:
    distance = np.maximum(_circle(u - np.float32(0.62), v, 1.12), _circle(u + np.float32(0.62), v, 1.12))
    vein = (np.abs(u) < 0.045 + 0 * v) | (_rib(u, v) < 0.1)
    return distance, np.where(vein, np.float32(-0.28), np.float32(0.05))


def _rib(u: Array, v: Array) -> Array:
    turns = (v + np.abs(u)) * np.float32(3.2)
    return turns - np.floor(turns)


def _arrow(u: Array, v: Array) -> tuple[Array, Array]:
    shaft = _rectangle(u + np.float32(0.35), v, 0.58, 0.2)
    head = _half_planes(u, v, ((0.7071, 0.7071, 0.64), (0.7071, -0.7071, 0.64), (-1.0, 0.0, -0.1)))
    distance = np.minimum(shaft, head)
    return distance, np.zeros_like(distance)


_SHAPES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "ball": _ball,
    "box": _box,
    "ring": _ring,
    "star": _star,
    "heart": _heart,
    "pyramid": _pyramid,
    "cross": _cross,
    "moon": _moon,
    "mug": _mug,
    "bottle": _bottle,
    "leaf": _leaf,
    "arrow": _arrow,
}


def signed_distance(kind: str, u: Array, v: Array) -> tuple[Array, Array]:
    """Distance to the outline of a kind and the relief of its surface, both (h, w) float32, broadcast from u and v."""
    return _SHAPES[kind](u, v)
