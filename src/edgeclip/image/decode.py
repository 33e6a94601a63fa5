"""Open images that anyone may have made: an allow-list of formats, limits on what decoding may cost, one error.

Pillow reads some forty formats. Only those that hold pictures in practice are accepted: EPS starts Ghostscript, WMF
asks Windows to draw, BUFR, GRIB and HDF5 call whatever handler is registered, ICO and ICNS wrap other files whose size
they do not tell, JPEG 2000 takes 25 bytes and half a microsecond a pixel, and the rest is hardly ever a photograph.
Whoever needs one of them opens it with Pillow and passes the picture. (Of a damaged compressed TIFF, libtiff prints a
line on standard error beside the error that is raised here; Pillow gives no means to stop it.)
"""

from __future__ import annotations

import io
import logging
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from edgeclip.errors import ImageError
from edgeclip.image.guards import Metered, check_tiff, count_scans

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")  # MPO is a JPEG

MAX_DECODE_BYTES = 440_000_000
"""Memory for the decoded picture and the decoder's own buffers."""
BYTES_A_PIXEL = {"TIFF": 15, "WEBP": 17, "AVIF": 17}
"""What decoding and conversion to RGB take at most, measured; 9 in the formats that are not listed."""
READ_WHOLE = ("WEBP", "AVIF")
"""Formats of which Pillow holds two copies of the encoded file."""
MAX_FILE_BYTES = 200_000_000
MAX_SCANNED_PIXELS = 600_000_000
"""Pixels times scans of a JPEG: each scan of a progressive one may visit every pixel for a few bytes of file."""
MIN_SHRINK = {8: 3.5, 4: 3.0, 2: 2.4}
"""How many times larger than its target a JPEG must still be after DCT scaling by 8, 4 or 2.

Measured on 224-pixel crops against the full decode, as mean absolute difference in grey levels: photographs that were
enlarged 0.15 to 0.3, photographs sharp to the pixel 0.4 to 0.6, those with noise of 10 levels 0.5 to 0.8, those
sharpened by 200 % 0.7 to 1.1. Beyond that are only noise of 25 levels without chroma subsampling, and pages of text
(1.3 to 1.5). Scaling by 8 or 4 saves little beyond scaling by 2, for entropy decoding remains, and blurs more: hence
the larger margins.
"""

TURNED, FROM_THE_RIGHT, FROM_THE_BOTTOM = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations that swap the axes, and those that bring a stored picture's end to the left or to the top."""

# Pillow warns of odd metadata and sizes, and logs; neither concerns the pixels. `catch_warnings` isn't thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What Pillow's decoders are known to raise for damaged files, beside OSError and its own errors.
DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Opened:
    """A decoded picture, upright.

    Attributes:
        image: its pixels, in any mode; fewer than `size` where they were scaled in decoding.
        size: (width, height) of the original.
        box: (left, top, width, height) of what the original covers in `image`. Scaling rounds the size up, and turning
            can bring the surplus to the left or the top.
    """

    image: Image.Image
    size: Size
    box: tuple[float, float, float, float]

    @property
    def is_scaled(self) -> bool:
        """Whether pixels were left out."""
        return self.image.size != self.size


@contextmanager
def opened(source: str | Path | bytes | Image.Image, target: Callable[[Size], Size] | None = None) -> Iterator[Opened]:
    """Decode an image.

    Args:
        source: path, encoded bytes, or a picture, which is left as it is and never scaled.
        target: from (width, height) of the original to the size it will be resized to. A JPEG is then decoded at the
            smallest scale that is still so much larger that the result is the same within a grey level on average;
            None decodes every pixel.

    Raises:
        ImageError: it is missing, damaged, too large, or of an unknown format; also if what is done with it fails.
    """
    try:
        if isinstance(source, Image.Image):
            image = source if _orientation(source) == 1 else ImageOps.exif_transpose(source)
            yield Opened(image, image.size, (0, 0, *image.size))
            return
        with _stream(source) as file:
            check_tiff(file)
            with Image.open(file, formats=FORMATS) as image:
                yield _load(image, file, _name(source), target)
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{_name(source)} cannot be decoded ({_reason(error)})",
            expected=f"an intact image, one of {', '.join(FORMATS)}",
            fix="replace or remove it",
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (error.strerror if isinstance(error, OSError) else None) or str(error).split("\n")[0] or type(error).__name__


def _name(source: str | Path | bytes | Image.Image) -> str:
    if isinstance(source, Image.Image):
        return f"a {source.width}x{source.height} picture"
    return str(source) if isinstance(source, str | Path) else f"{len(source)} bytes"


def _stream(source: str | Path | bytes) -> Metered:
    if isinstance(source, bytes):
        return Metered(io.BytesIO(source))
    status = Path(source).stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device might never end
        raise OSError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(f"a file of more than {MAX_FILE_BYTES // 10**6} MB")
    # A file that Pillow opens by name it may map into memory, where truncation by another process is fatal.
    return Metered(io.FileIO(source))


def _load(image: Image.Image, file: Metered, name: str, target: Callable[[Size], Size] | None) -> Opened:
    stored, scale, coefficients = image.size, 1, 0
    if isinstance(image, JpegImageFile):
        coefficients = _coefficient_bytes(image, file, name)
        if target:
            scale = _draft(image, target)
    need = image.width * image.height * BYTES_A_PIXEL.get(image.format or "", 9) + coefficients
    if image.format in READ_WHOLE:
        need += 2 * file.seek(0, io.SEEK_END)
    if need > MAX_DECODE_BYTES:
        raise ImageError(
            f"{name}, {stored[0]}x{stored[1]} pixels of {image.format} that may take {need // 10**6} MB to decode",
            expected=f"at most {MAX_DECODE_BYTES // 10**6} MB",
            fix="scale it down first",
        )
    image.load()
    orientation = _orientation(image)
    ImageOps.exif_transpose(image, in_place=True)
    size = stored[::-1] if orientation in TURNED else stored
    width, height = size[0] / scale, size[1] / scale
    left = image.width - width if orientation in FROM_THE_RIGHT else 0
    top = image.height - height if orientation in FROM_THE_BOTTOM else 0
    return Opened(image, size, (left, top, width, height))


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _draft(image: JpegImageFile, target: Callable[[Size], Size]) -> int:
    """Have a JPEG decoded at 1/8, 1/4, 1/2 or all of its size, and say which."""
    width, height = image.size
    if _orientation(image) in TURNED:
        wanted_height, wanted_width = target((height, width))
    else:
        wanted_width, wanted_height = target((width, height))
    for scale, margin in MIN_SHRINK.items():
        if width >= scale * margin * wanted_width and height >= scale * margin * wanted_height:
            # Pillow picks the largest scale that leaves at least the size it is given, or refuses.
            return scale if image.draft(None, (width // scale, height // scale)) else 1
    return 1


def _coefficient_bytes(image: JpegImageFile, file: Metered, name: str) -> int:
    """Memory for the coefficients of a JPEG in several scans, which are all kept until the last one.

    Raises:
        ImageError: it has too many of them.
    """
    file.seek(0)
    scans, pixels = count_scans(file.read()), image.width * image.height
    if scans * pixels > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"{name}, a JPEG of {image.width}x{image.height} pixels in {scans} scans",
            expected=f"at most {MAX_SCANNED_PIXELS // 10**6} million pixels in all scans",
            fix="save it again, or scale it down",
        )
    return 2 * image.layers * pixels if scans > 1 else 0
