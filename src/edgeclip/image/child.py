"""The process in which `apart` has files decoded: files come by standard input, RGB rows go by standard output."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin, Image

from edgeclip.image import apart, extras, formats
from edgeclip.image.decode import BYTES_A_ROW, DECODER_ERRORS, load, reason
from edgeclip.image.formats import camera_raw, heif
from edgeclip.image.rgb import bands, to_rgb

BYTES_SENT_A_PIXEL = 4
"""What Pillow keeps of an RGB picture."""
MAX_THREADS = 4
"""Of the AVIF decoder; each takes 8 MB of address space."""
OUT_OF_MEMORY = re.compile(
    r"decoder error -9$|Out of memory$|^Memory allocation error|^Security limit exceeded|unexpected C\+\+ exception"
)
"""How the decoders of TIFF, AVIF and HEIF say so."""
SCALABLE = ("HEIF",)
TOO_MUCH = "a picture that takes too much memory"


def serve(max_bytes: int, max_seconds: int) -> None:
    """Answer until standard input ends.

    Args:
        max_bytes: of address space for one picture, beyond what the process has now; what the picture takes where it
            is sent to counts too.
        max_seconds: of processor time for one picture.
    """
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    AvifImagePlugin.DEFAULT_MAX_THREADS = min(AvifImagePlugin._get_default_max_threads(), MAX_THREADS)
    if not extras.is_missing("HEIF"):
        heif.plugin()  # so that it doesn't count as the first picture's memory
    limits = KernelLimits(max_bytes, max_seconds) if sys.platform == "linux" else None
    while header := requests.read(apart.REQUEST.size):
        if limits:
            limits.begin()
        file = io.BytesIO(requests.read(apart.REQUEST.unpack(header)[0]))
        answer(file, Line(requests, replies, limits))
        replies.flush()


class KernelLimits:
    """What the kernel lets this process have for one picture (Linux)."""

    def __init__(self, max_bytes: int, max_seconds: int) -> None:
        import resource

        self._resource, self._max_seconds = resource, max_seconds
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        self._max_bytes = pages * resource.getpagesize() + max_bytes

    def begin(self) -> None:
        """Start to count: past its time the kernel ends the process, past its memory decoders meet a lack of it."""
        used = self._resource.getrusage(self._resource.RUSAGE_SELF)
        self._set(self._resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + self._max_seconds)
        self._set(self._resource.RLIMIT_AS, self._max_bytes)

    def leave_room(self, size: tuple[int, int]) -> None:
        """Set memory aside for a picture (width, height) where it will be sent to."""
        rgb = size[1] * (BYTES_SENT_A_PIXEL * size[0] + BYTES_A_ROW)
        self._set(self._resource.RLIMIT_AS, max(self._max_bytes - rgb, 0))

    def _set(self, limit: int, value: int) -> None:
        _, most = self._resource.getrlimit(limit)  # which may be the user's
        value = value if most == self._resource.RLIM_INFINITY else min(value, most)
        self._resource.setrlimit(limit, (value, most))


class Line:
    """To the process that waits for a picture."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO, limits: KernelLimits | None) -> None:
        self.replies, self._requests, self._limits = replies, requests, limits

    def scale(self, size: tuple[int, int]) -> int:
        """By what a picture (width, height) is to be scaled down."""
        self.replies.write(apart.REPLY.pack(apart.SIZE, *size))
        self.replies.flush()
        return self._requests.read(1)[0]

    def leave_room(self, size: tuple[int, int]) -> None:
        """Set memory aside for a picture (width, height) where it will be sent to."""
        if self._limits:
            self._limits.leave_room(size)


def answer(file: BinaryIO, line: Line) -> None:
    """Write a file's picture, or what is wrong with it."""
    try:
        found = decoded(file, line)
    except MemoryError:
        _tell(line.replies, apart.COSTLY, TOO_MUCH)
    except apart.TooCostlyError as error:
        _tell(line.replies, apart.COSTLY, str(error))
    except DECODER_ERRORS as error:
        if OUT_OF_MEMORY.search(str(error)):
            _tell(line.replies, apart.COSTLY, TOO_MUCH)
        else:
            _tell(line.replies, apart.DAMAGED, reason(error))
    else:
        if isinstance(found, bytes):
            line.replies.write(apart.REPLY.pack(apart.JPEG, len(found), 0) + found)
            return
        line.replies.write(apart.REPLY.pack(apart.PICTURE, *found.size))
        for _, band in bands(found):
            line.replies.write(band.tobytes())


def decoded(file: BinaryIO, line: Line) -> Image.Image | bytes:
    """Upright RGB, scaled where that is wanted, or the JPEG file in a camera's raw file."""
    kind, scale = formats.kind_of(file), 1
    if kind == formats.RAW:
        found = camera_raw.preview(file)
        return found if isinstance(found, bytes) else to_rgb(found)

    def begin(size: tuple[int, int]) -> None:
        nonlocal scale
        scale = line.scale(size) if kind in SCALABLE else 1
        line.leave_room((-(-size[0] // scale), -(-size[1] // scale)))

    image = load(formats.read(kind, file), before_pixels=begin).image
    image = image._new(image.im)  # without its decoder, which keeps the file and a frame
    return to_rgb(image.reduce(scale) if scale > 1 else image)


def _tell(replies: BinaryIO, kind: bytes, message: str) -> None:
    data = message.encode()
    replies.write(apart.REPLY.pack(kind, len(data), 0) + data)
