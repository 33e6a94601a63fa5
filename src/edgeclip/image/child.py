"""The process in which `apart` has files decoded: files come by standard input, RGB rows go by standard output."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin, Image

from edgeclip.image import apart, formats
from edgeclip.image.decode import BYTES_A_ROW, DECODER_ERRORS, load, reason
from edgeclip.image.rgb import bands, to_rgb

BYTES_SENT_A_PIXEL = 4
"""What Pillow keeps of an RGB picture."""
MAX_THREADS = 4
"""Of the AVIF decoder; each takes 8 MB of address space."""
OUT_OF_MEMORY = ("decoder error -9", "Out of memory")
"""How Pillow's TIFF and AVIF decoders say so."""
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
    limits = KernelLimits(max_bytes, max_seconds) if sys.platform == "linux" else None
    while header := requests.read(apart.REQUEST.size):
        if limits:
            limits.begin()
        file = io.BytesIO(requests.read(apart.REQUEST.unpack(header)[0]))
        answer(file, replies, limits.leave_room if limits else None)
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


def answer(file: BinaryIO, replies: BinaryIO, leave_room: Callable[[tuple[int, int]], None] | None) -> None:
    """Write a file's picture, or what is wrong with it."""
    try:
        image = decoded(file, leave_room)
    except MemoryError:
        _tell(replies, apart.COSTLY, TOO_MUCH)
    except apart.TooCostlyError as error:
        _tell(replies, apart.COSTLY, str(error))
    except DECODER_ERRORS as error:
        if str(error).endswith(OUT_OF_MEMORY):
            _tell(replies, apart.COSTLY, TOO_MUCH)
        else:
            _tell(replies, apart.DAMAGED, reason(error))
    else:
        replies.write(apart.REPLY.pack(apart.PICTURE, *image.size))
        for _, band in bands(image):
            replies.write(band.tobytes())


def decoded(file: BinaryIO, leave_room: Callable[[tuple[int, int]], None] | None) -> Image.Image:
    """Upright RGB."""
    image = load(formats.read(formats.kind_of(file), file), before_pixels=leave_room).image
    image = image._new(image.im)  # without its decoder, which keeps the file and a frame
    return to_rgb(image)


def _tell(replies: BinaryIO, kind: bytes, message: str) -> None:
    data = message.encode()
    replies.write(apart.REPLY.pack(kind, len(data), 0) + data)
