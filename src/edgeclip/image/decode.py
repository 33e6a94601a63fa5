"""Open images that anyone may have made: limits on what decoding may cost, metadata that can't cost the picture.

What a decoder will do is known beforehand for most files (`formats`); the others are decoded in a process of their own
(`apart`), where the kernel keeps the limits.
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
from typing import BinaryIO, TypeAlias

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from edgeclip.errors import ImageError, MissingExtraError
from edgeclip.image import apart, extras, formats, orientation
from edgeclip.image.formats import FORMATS as FORMATS
from edgeclip.image.formats import heif
from edgeclip.image.formats.bare import Bare
from edgeclip.image.rgb import bands

# Called directly: `Image.open` would apply Pillow's own limit, which knows nothing of scaled decoding.
PLUGINS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "PPM": PpmImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "HEIF": lambda file: heif.plugin()(file),
}
MAX_DECODE_BYTES = 440_000_000
"""Memory for the decoded picture and the decoder's own buffers."""
BYTES_A_PIXEL, WEBP_BYTES_A_PIXEL = 9, 17
"""What decoding and conversion to RGB take at most, measured."""
BYTES_A_ROW = 32
MAX_FILE_BYTES = 200_000_000
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
        target: from (width, height) of the original to the size it will be resized to. A JPEG is then decoded, and a
            HEIF scaled once it is, at the smallest scale that is still so much larger that the result is the same
            within a grey level on average; None keeps every pixel.

    Raises:
        ImageError: it is missing, damaged, too large, or of an unknown format; also if what is done with it fails.
    """
    try:
        if isinstance(source, Image.Image):
            source.load()
            yield whole(orientation.turned(source, _orientation(source)))
            return
        with _stream(source) as file:
            kind = formats.kind_of(file)
            if extras.is_missing(kind):
                raise _missing(_name(source), kind)
            yield _decode(kind, file, target)
    except (apart.TooCostlyError, MemoryError) as error:
        raise ImageError(
            f"{_name(source)}, {error or 'a picture that takes more memory than there is'}",
            expected=f"at most {MAX_DECODE_BYTES // 10**6} MB and {apart.MAX_SECONDS} s",
            fix="scale it down, or save it again as JPEG",
        ) from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{_name(source)} cannot be decoded ({reason(error)})",
            expected=f"an intact image, one of {', '.join(FORMATS)}",
            fix="replace or remove it",
        ) from error


def _missing(name: str, kind: str) -> MissingExtraError:
    extra, package = extras.PACKAGES[kind]
    return MissingExtraError(
        f"{name}, a {kind} picture without the extra `{extra}`",
        expected=f"the package {package}, which reads it",
        fix=f"pip install 'edgeclip[{extra}]'",
    )


def _decode(kind: str, file: BinaryIO, target: Callable[[Size], Size] | None) -> Opened:
    bare = None if kind in formats.APART else formats.read(kind, file)
    if bare and not bare.isolated:
        return load(bare, target)
    found = apart.decode(file, lambda size: _scale(size, 1, target) if target else 1)
    if isinstance(found, bytes):
        return _decode_preview(io.BytesIO(found), target)
    width, height = found.size
    return Opened(found.image, found.size, (0, 0, width / found.scale, height / found.scale))


def _decode_preview(file: BinaryIO, target: Callable[[Size], Size] | None) -> Opened:
    """The picture that was in a camera's raw file."""
    if formats.kind_of(file) != "JPEG":
        raise OSError("a raw file whose picture is no JPEG")
    return load(formats.read("JPEG", file), target)


def whole(image: Image.Image) -> Opened:
    """All pixels of a picture."""
    return Opened(image, image.size, (0, 0, *image.size))


def reason(error: BaseException) -> str:
    """What a decoder says of a file, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (error.strerror if isinstance(error, OSError) else None) or str(error).split("\n")[0] or type(error).__name__


def _name(source: str | Path | bytes | Image.Image) -> str:
    if isinstance(source, Image.Image):
        return f"a {source.width}x{source.height} picture"
    return str(source) if isinstance(source, str | Path) else f"{len(source)} bytes"


def _stream(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    status = Path(source).stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device might never end
        raise OSError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(f"a file of more than {MAX_FILE_BYTES // 10**6} MB")
    return Path(source).open("rb")


def _orientation(image: Image.Image) -> int:
    """That of a picture someone else has opened."""
    try:
        return orientation.valid(image.getexif().get(orientation.ORIENTATION))
    except DECODER_ERRORS:
        return orientation.of_exif(image.info.get("exif", b""))


def load(
    bare: Bare,
    target: Callable[[Size], Size] | None = None,
    *,
    before_pixels: Callable[[Size], None] | None = None,
) -> Opened:
    """Decode what `formats.read` has left of a file.

    Args:
        bare: what it has left.
        target: as for `opened`.
        before_pixels: called with (width, height) before the pixels are decoded.

    Raises:
        apart.TooCostlyError: it would take too much memory.
        Exception: one of `DECODER_ERRORS`: it is damaged.
    """
    file, stored, scale = _begin(bare, bare.file, target)
    if before_pixels:
        before_pixels(stored)
    try:
        file.load()
    except DECODER_ERRORS:
        whole_file = _load_repaired(bare, bare.repaired(), target) if bare.repaired else None
        if whole_file is None:
            raise
        file = whole_file
    turn = bare.orientation
    if bare.kind == "AVIF":  # which the decoder has made of the file's own boxes
        turn = orientation.of_exif(file.info.get("exif", b""))
    size = stored[::-1] if turn in TURNED else stored
    image = orientation.turned(file, turn)
    width, height = size[0] / scale, size[1] / scale
    left = image.width - width if turn in FROM_THE_RIGHT else 0
    top = image.height - height if turn in FROM_THE_BOTTOM else 0
    return Opened(image, size, (left, top, width, height))


def _begin(bare: Bare, file: BinaryIO, target: Callable[[Size], Size] | None) -> tuple[ImageFile.ImageFile, Size, int]:
    """A picture whose pixels are not decoded yet, its stored size, and the scale at which it will be."""
    image = PLUGINS[bare.kind](file)
    stored = image.size
    scale = _scale(stored, bare.orientation, target) if target and bare.can_scale else 1
    # Pillow picks the largest scale that leaves at least the size it is given, or refuses.
    if scale > 1 and not image.draft(None, (stored[0] // scale, stored[1] // scale)):
        scale = 1
    each = WEBP_BYTES_A_PIXEL if bare.kind == "WEBP" and not bare.isolated else BYTES_A_PIXEL
    need = image.width * image.height * each + image.height * BYTES_A_ROW + bare.working_bytes
    if need > MAX_DECODE_BYTES:
        raise apart.TooCostlyError(
            f"{stored[0]}x{stored[1]} pixels of {bare.kind} that may take {need // 10**6} MB to decode"
        )
    return image, stored, scale


def _load_repaired(
    bare: Bare, trials: list[BinaryIO], target: Callable[[Size], Size] | None
) -> ImageFile.ImageFile | None:
    """The picture, if all of its coded data are there: what follows them makes no difference then, at full size."""
    first = None
    for file in trials:
        image, _, _ = _begin(bare, file, None)
        image.load()
        first = first or image
        pairs = zip(bands(first), bands(image), strict=True)
        if any(one.tobytes() != other.tobytes() for (_, one), (_, other) in pairs):
            return None
    trials[0].seek(0)
    image, _, _ = _begin(bare, trials[0], target)
    image.load()
    return image


def _scale(stored: Size, turn: int, target: Callable[[Size], Size]) -> int:
    """By what a picture may be scaled down before it is resized to its target: 8, 4, 2 or 1."""
    width, height = stored
    if turn in TURNED:
        wanted_height, wanted_width = target((height, width))
    else:
        wanted_width, wanted_height = target((width, height))
    for scale, margin in MIN_SHRINK.items():
        if width >= scale * margin * wanted_width and height >= scale * margin * wanted_height:
            return scale
    return 1
