"""Draw a scene as pixels.

Only +, -, *, /, sqrt, floor, comparisons and integers are used, all of which IEEE 754 defines exactly, and random bytes
come from PCG64's raw stream, which NumPy promises to keep: the same seed gives the same pixels on every machine.

Shape legend: S image side in pixels; arrays are (S, S) or (3, S, S) float32 in grey levels until the last step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeclip.data.tabletop.scene import Scene, Thing
from edgeclip.data.tabletop.shapes import signed_distance

Array = NDArray[np.float32]

IMAGE_SIZE = 224

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (208, 32, 36),
    "orange": (242, 128, 22),
    "yellow": (244, 214, 36),
    "green": (36, 146, 60),
    "cyan": (44, 196, 204),
    "blue": (36, 74, 200),
    "purple": (124, 48, 162),
    "pink": (244, 140, 186),
    "brown": (116, 70, 34),
    "black": (30, 30, 34),
    "white": (240, 240, 236),
}
GROUND: dict[str, tuple[int, int, int]] = {
    "wood": (170, 120, 74),
    "grass": (92, 142, 66),
    "sand": (216, 190, 138),
    "concrete": (148, 148, 146),
    "tiles": (126, 160, 190),
    "checkered cloth": (214, 214, 208),
    "blue carpet": (44, 54, 92),
    "snow": (226, 232, 240),
}
LIGHT: dict[str, tuple[float, float, float]] = {
    "normal": (1.0, 1.0, 1.0),
    "bright": (1.22, 1.22, 1.2),
    "dim": (0.6, 0.6, 0.64),
    "warm": (1.12, 0.98, 0.78),
}


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw the scene.

    Returns:
        (224, 224, 3) uint8 RGB.
    """
    noise = np.random.PCG64(scene.seed)
    canvas = _ground(scene.background, noise)
    for thing in scene.things:
        _draw_shadow(canvas, thing, scene.light_from_left)
        _draw_thing(canvas, thing, scene.light_from_left)
    across = np.arange(IMAGE_SIZE, dtype=np.float32)
    falloff = np.float32(1.1) - (across if scene.light_from_left else across[::-1]) * np.float32(0.25 / IMAGE_SIZE)
    canvas *= falloff * _channels(LIGHT[scene.light])
    for _ in range(scene.blur):
        canvas = _smooth(canvas)
    canvas += _bell_noise(noise) * np.float32(scene.noise)
    np.clip(canvas, 0, 255, out=canvas)
    canvas += np.float32(0.5)
    pixels = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for channel in range(3):
        np.copyto(pixels[..., channel], canvas[channel], casting="unsafe")
    return pixels


def _channels(color: tuple[float, float, float]) -> Array:
    """(3, 1, 1), to be broadcast over pixels."""
    return np.asarray(color, np.float32)[:, None, None]


def _random_bytes(noise: np.random.PCG64, *shape: int) -> NDArray[np.uint8]:
    count = int(np.prod(shape))
    raw = np.asarray(noise.random_raw((count + 7) // 8), dtype="<u8")
    return raw.view(np.uint8)[:count].reshape(shape)


def _bell_noise(noise: np.random.PCG64) -> Array:
    """(S, S) nearly normal noise of standard deviation 1: the sum of four uniform bytes, centred."""
    total = _random_bytes(noise, 4, IMAGE_SIZE, IMAGE_SIZE).sum(axis=0, dtype=np.int16)
    return (total - np.int16(510)).astype(np.float32) * np.float32(1 / 147.8)


def _smooth(image: Array) -> Array:
    """One pass of the (1, 2, 1) / 4 filter both ways on (3, S, S); edges are repeated."""
    for axis in (1, 2):
        smoothed = np.empty_like(image)
        lines, sums = np.moveaxis(image, axis, 0), np.moveaxis(smoothed, axis, 0)
        np.add(lines[:-1], lines[1:], out=sums[1:])
        np.add(lines[0], lines[0], out=sums[0])
        smoothed += image
        sums[:-1] += lines[1:]
        sums[-1] += lines[-1]
        smoothed *= np.float32(0.25)
        image = smoothed
    return image


def _cloud(noise: np.random.PCG64, cells_y: int, cells_x: int) -> Array:
    """(S, S) smooth random field in [-1, 1]: a coarse grid of random values, bilinearly enlarged."""
    grid = _random_bytes(noise, cells_y + 1, cells_x + 1).astype(np.float32) * np.float32(2 / 255) - 1
    rows = np.arange(IMAGE_SIZE, dtype=np.float32) * np.float32(cells_y / IMAGE_SIZE)
    columns = np.arange(IMAGE_SIZE, dtype=np.float32) * np.float32(cells_x / IMAGE_SIZE)
    r, c = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    fr, fc = (rows - r)[:, None].astype(np.float32), (columns - c)[None].astype(np.float32)
    lines = grid[:, c] * (1 - fc) + grid[:, c + 1] * fc
    return lines[r] * (1 - fr) + lines[r + 1] * fr


def _ground(background: str, noise: np.random.PCG64) -> Array:
    """(3, S, S): the surface that the objects lie on, each with a texture of its own."""
    cells = {"wood": (28, 3), "grass": (20, 56), "sand": (8, 8), "concrete": (6, 6), "snow": (3, 3)}
    cloud = _cloud(noise, *cells.get(background, (4, 4)))
    amplitude = {"wood": 26, "grass": 30, "sand": 12, "concrete": 18, "blue carpet": 8}.get(background, 7)
    shade = cloud * np.float32(amplitude)
    if background in ("sand", "concrete", "blue carpet"):
        shade = shade + _bell_noise(noise) * np.float32(7)
    ground = _channels(GROUND[background]) + shade
    offset = _random_bytes(noise, 2).astype(np.float32) * np.float32(1 / 4)
    x = np.arange(IMAGE_SIZE, dtype=np.float32)[None, :] + offset[0]
    y = np.arange(IMAGE_SIZE, dtype=np.float32)[:, None] + offset[1]
    if background == "tiles":
        joint = (_phase(x, 40) < 0.07) | (_phase(y, 40) < 0.07)
        np.copyto(ground, _channels((208, 214, 218)), where=joint)
    if background == "checkered cloth":
        red = (_phase(x, 48) < 0.5) ^ (_phase(y, 48) < 0.5)
        np.subtract(ground, _channels((24, 118, 112)), out=ground, where=red)
    if background == "wood":
        np.subtract(ground, np.float32(50), out=ground, where=_phase(y, 56) < 0.03)
    return ground


def _phase(value: Array, period: float) -> Array:
    """The position within a period, in [0, 1)."""
    turns = value * np.float32(1 / period)
    return turns - np.floor(turns)


def _window(x: float, y: float, reach: float) -> tuple[slice, slice, Array, Array]:
    """Slices of the pixels within `reach` of a centre (in pixels) and their offsets from it."""
    x0, x1 = max(int(x - reach), 0), min(int(x + reach) + 2, IMAGE_SIZE)
    y0, y1 = max(int(y - reach), 0), min(int(y + reach) + 2, IMAGE_SIZE)
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(x)
    dy = np.arange(y0, y1, dtype=np.float32) - np.float32(y)
    return slice(y0, y1), slice(x0, x1), dx[None, :], dy[:, None]


def _draw_shadow(canvas: Array, thing: Thing, light_from_left: bool) -> None:
    radius = thing.radius * IMAGE_SIZE
    shift = radius * (0.28 if light_from_left else -0.28)
    rows, columns, dx, dy = _window(thing.x * IMAGE_SIZE + shift, thing.y * IMAGE_SIZE + 0.35 * radius, 1.2 * radius)
    scale = np.float32(1 / radius)
    squared = (dx * scale) ** 2 + (dy * scale * np.float32(1.25)) ** 2
    dark = np.clip(np.float32(1.25) - squared, 0, 1) * np.float32(0.4)
    canvas[:, rows, columns] *= 1 - dark


def _draw_thing(canvas: Array, thing: Thing, light_from_left: bool) -> None:
    radius = thing.radius * IMAGE_SIZE
    rows, columns, dx, dy = _window(thing.x * IMAGE_SIZE, thing.y * IMAGE_SIZE, 1.3 * radius)
    t = thing.turn
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    u = (dx * np.float32(cosine) + dy * np.float32(sine)) * np.float32(1 / radius)
    v = (dy * np.float32(cosine) - dx * np.float32(sine)) * np.float32(1 / radius)
    distance, relief = signed_distance(thing.kind, u, v)
    lit = -u if light_from_left else u
    rim = np.clip(np.float32(0.62) - distance * 4, 0, 1)
    shade = np.clip((0.85 + 0.14 * lit - 0.1 * v + relief) * (0.55 + 0.45 * rim), 0.15, 1.35)
    surface = _surface(thing, u, v) * shade
    if thing.material == "shiny":
        hu = u + np.float32(0.3 if light_from_left else -0.3)
        glint = np.clip(np.float32(1.3) - (hu * hu + (v + np.float32(0.3)) ** 2) * 12, 0, 1)
        surface += (255 - surface) * (glint * np.float32(0.9))
    cover = np.clip(np.float32(0.5) - distance * np.float32(radius), 0, 1)
    target = canvas[:, rows, columns]
    target += (surface - target) * cover


def _surface(thing: Thing, u: Array, v: Array) -> Array:
    """The colours of the material before shading, (3, h, w) or (3, 1, 1)."""
    base = _channels(PALETTE[thing.color])
    second = _channels(PALETTE["black" if thing.color in ("white", "yellow", "pink", "cyan") else "white"])
    if thing.material == "striped":
        marked = _phase(u + v, 0.5) < 0.42
    elif thing.material == "spotted":
        cu, cv = _phase(u, 0.5) - np.float32(0.5), _phase(v, 0.5) - np.float32(0.5)
        marked = cu * cu + cv * cv < np.float32(0.085)
    else:
        return base
    return np.where(marked, second, base)
