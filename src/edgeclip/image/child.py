"""The process in which `apart` has files decoded: files come by standard input, RGB rows go by standard output."""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin

from edgeclip.image import apart, formats
from edgeclip.image.decode import DECODER_ERRORS, load, reason
from edgeclip.image.rgb import bands, to_rgb


def serve() -> None:
    """Answer until standard input ends."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each takes address space; files are decoded side by side instead
    limit_memory()
    while header := requests.read(apart.REQUEST.size):
        limit_time()
        answer(requests, apart.REQUEST.unpack(header)[0], replies)
        replies.flush()


def limit_memory() -> None:
    """Leave `MAX_BYTES` beyond what the process has now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + apart.MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_time() -> None:
    """Leave `MAX_SECONDS` from now; after them the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + apart.MAX_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def answer(requests: BinaryIO, size: int, replies: BinaryIO) -> None:
    """Read one file and write its picture, or what is wrong with it."""
    try:
        file = io.BytesIO(requests.read(size))
        image = to_rgb(load(formats.read(formats.kind_of(file), file)).image)
    except MemoryError:
        _tell(replies, apart.COSTLY, f"a picture that takes more than {apart.MAX_BYTES // 10**6} MB to decode")
    except apart.TooCostlyError as error:
        _tell(replies, apart.COSTLY, str(error))
    except DECODER_ERRORS as error:
        _tell(replies, apart.DAMAGED, reason(error))
    else:
        replies.write(apart.REPLY.pack(apart.PICTURE, *image.size))
        for _, band in bands(image):
            replies.write(band.tobytes())


def _tell(replies: BinaryIO, kind: bytes, message: str) -> None:
    data = message.encode()
    replies.write(apart.REPLY.pack(kind, len(data), 0) + data)
