"""The process in which `apart` has files decoded: files come by standard input, RGB rows go by standard output."""

from __future__ import annotations

import io
import resource
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
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each takes address space; files are decoded side by side instead
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = address_space() + max_bytes

    def leave_room(size: tuple[int, int]) -> None:
        limit_memory(limit - BYTES_SENT_A_PIXEL * size[0] * size[1] - BYTES_A_ROW * size[1])

    while header := requests.read(apart.REQUEST.size):
        limit_memory(limit)
        limit_time(max_seconds)
        answer(requests, apart.REQUEST.unpack(header)[0], replies, leave_room)
        replies.flush()


def address_space() -> int:
    """Bytes that the process has."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limit_memory(size: int) -> None:
    """Have the kernel refuse more, which decoders meet as a lack of memory."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (max(size, 0), resource.RLIM_INFINITY))


def limit_time(max_seconds: int) -> None:
    """Have the kernel end the process when it has worked so long from now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + max_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def answer(requests: BinaryIO, size: int, replies: BinaryIO, leave_room: Callable[[tuple[int, int]], None]) -> None:
    """Read one file and write its picture, or what is wrong with it."""
    try:
        image = decoded(io.BytesIO(requests.read(size)), leave_room)
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


def decoded(file: BinaryIO, leave_room: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Upright RGB."""
    image = load(formats.read(formats.kind_of(file), file), before_pixels=leave_room).image
    image = image._new(image.im)  # without its decoder, which keeps the file and a frame
    return to_rgb(image)


def _tell(replies: BinaryIO, kind: bytes, message: str) -> None:
    data = message.encode()
    replies.write(apart.REPLY.pack(kind, len(data), 0) + data)
