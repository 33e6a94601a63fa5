"""Pictures made smaller to be looked at, upright and without metadata."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from edgeclip.image.decode import Size, opened
from edgeclip.image.rgb import to_rgb

QUALITY = 82


def open_small(source: str | Path | bytes, side: int) -> Image.Image:
    """RGB of at most `side` pixels each way, decoded at a smaller scale where that is possible.

    Raises:
        ImageError: the picture can't be decoded.
    """

    def fit(size: Size) -> Size:
        scale = min(1.0, side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    with opened(source, fit) as picture:
        left, top, width, height = picture.box
        box = (left, top, left + width, top + height)
        return to_rgb(picture.image).resize(fit(picture.size), Image.Resampling.BICUBIC, box)


def small_jpeg(source: str | Path | bytes, side: int) -> bytes:
    """The same as a JPEG file.

    Raises:
        ImageError: the picture can't be decoded.
    """
    data = io.BytesIO()
    open_small(source, side).save(data, "JPEG", quality=QUALITY, optimize=True)
    return data.getvalue()
