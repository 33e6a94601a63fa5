"""Decoding in a process of its own, where the kernel limits memory and processor time.

For files whose cost no header tells: an AVIF or HEIF can hold larger frames than it says, a lossless WebP tens of
thousands of code tables, a TIFF any other codec's data, a camera's raw file any maker's. A process starts with the
first such file and then waits for the next; as many are kept as were at work at a time, and they end with this one. A
process starts in 0.1 s. Measured for crops of 3 megapixels, on 2 cores: AVIF 62 ms and 55 without, lossless WebP 111
and 94, TIFF 31 and 19.

Request: the number of bytes, and the file. Reply: `REPLY`, and a message, the rows of an RGB picture in bands, or a
JPEG file that was in it. A HEIF's size is replied first, and is answered with a byte: by what the picture is to be
scaled down.
"""

from __future__ import annotations

import atexit
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, BinaryIO, NamedTuple

from PIL import Image

from edgeclip.image.formats.bare import size_of
from edgeclip.image.rgb import band_rows

MAX_BYTES = 400_000_000
"""Memory for one picture here and there, beyond what the process has anyway, which is some 35 MB."""
MAX_SECONDS = 17
"""Processor time for one picture there; reading and sending it come on top."""
REQUEST, REPLY = struct.Struct("<Q"), struct.Struct("<cII")
PICTURE, JPEG, SIZE, DAMAGED, COSTLY = b"P", b"J", b"S", b"D", b"C"
PROGRAM = """import sys
limits, sys.path[:] = map(int, sys.argv[1:3]), sys.argv[3:]
from edgeclip.image.child import serve
serve(*limits)"""
PIPE_BYTES = 1 << 20
"""Measured: half the time of a pipe of 64 kB for what is sent."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class TooCostlyError(Exception):
    """A picture that takes more memory or time than there is for one."""


class Decoded(NamedTuple):
    """An upright RGB picture, (width, height) of the original, and by what it was scaled down."""

    image: Image.Image
    size: tuple[int, int]
    scale: int


def decode(file: BinaryIO, scale_of: Callable[[tuple[int, int]], int]) -> Decoded | bytes:
    """Decode a file to upright RGB; of a camera's raw file the JPEG in it is given, where there is one.

    Args:
        file: any of a format that is accepted.
        scale_of: from (width, height) to the scale at which a HEIF is wanted: 1, 2, 4 or 8.

    Raises:
        TooCostlyError: it takes more than `MAX_BYTES` or `MAX_SECONDS`.
        OSError: it is damaged; the message is its decoder's.
    """
    try:
        process = _idle.pop()
    except IndexError:  # asked for, not looked for: another thread may take the last one in between
        process = _start()
    try:
        found = _ask(process, file, scale_of)
    except _EndedError:
        _end(process)
        if process.returncode == -signal.SIGXCPU:
            raise TooCostlyError(f"a picture that takes more than {MAX_SECONDS} s of processor time") from None
        raise OSError("its decoder broke down") from None
    except (TooCostlyError, OSError):
        _idle.append(process)
        raise
    except BaseException:  # a reply that nobody waits for
        _end(process)
        raise
    _idle.append(process)
    return found


class _EndedError(Exception):
    pass


_idle: list[subprocess.Popen[bytes]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def _start() -> subprocess.Popen[bytes]:
    # Isolated: neither the working folder nor the user's settings decide what is imported.
    paths = [path or str(os.getcwd()) for path in sys.path]  # noqa: PTH109
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", PROGRAM, str(MAX_BYTES), str(MAX_SECONDS), *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where libtiff prints
        env={**os.environ, **ONE_THREAD},
    )
    if sys.platform == "linux":
        import fcntl

        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(PermissionError):  # where the user has many pipes
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process


def _ask(
    process: subprocess.Popen[bytes], file: BinaryIO, scale_of: Callable[[tuple[int, int]], int]
) -> Decoded | bytes:
    if process.stdin is None or process.stdout is None:
        raise _EndedError
    file_bytes = size_of(file)
    file.seek(0)
    try:
        process.stdin.write(REQUEST.pack(file_bytes))
        while block := file.read(1 << 20):
            process.stdin.write(block)
        process.stdin.flush()
    except BrokenPipeError:
        raise _EndedError from None
    kind, width, height = REPLY.unpack(_read(process.stdout, REPLY.size))
    size, scale = (width, height), 1
    if kind == SIZE:
        scale = scale_of(size)
        process.stdin.write(bytes((scale,)))
        process.stdin.flush()
        kind, width, height = REPLY.unpack(_read(process.stdout, REPLY.size))
    if kind == PICTURE:
        image = Image.new("RGB", (width, height))
        for top, rows in band_rows(image.size):
            pixels = _read(process.stdout, 3 * width * rows)
            image.paste(Image.frombuffer("RGB", (width, rows), pixels), (0, top))
        return Decoded(image, size, scale)
    if kind == JPEG:
        return _read(process.stdout, width)
    message = _read(process.stdout, width).decode()
    raise (TooCostlyError if kind == COSTLY else OSError)(message)


def _read(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise _EndedError
    return data


@atexit.register
def close() -> None:
    """End all processes that wait for a file."""
    while _idle:
        _end(_idle.pop())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
