"""A picture file without its metadata, as every reader of a format gives it to the decoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class Bare:
    """What decides a picture's pixels, and how it is to be turned.

    Attributes:
        kind: Pillow's name of the format.
        file: only what the decoder needs, from the start.
        orientation: EXIF's, 1 to 8.
        isolated: whether what its decoder does can't be told beforehand, and a process of its own is to do it.
        working_bytes: memory that the decoder takes beside that for pixels and rows.
        can_scale: whether the decoder can leave out pixels.
        repaired: where a decoder refuses what follows the coded data, or that nothing does: the file up to their end,
            with different paddings. They give the same picture unless coded data are missing.
    """

    kind: str
    file: BinaryIO
    orientation: int = 1
    isolated: bool = False
    working_bytes: int = 0
    can_scale: bool = False
    repaired: Callable[[], list[BinaryIO]] | None = None


class _Spliced(io.RawIOBase):
    def __init__(self, pieces: list[tuple[BinaryIO, int, int]]) -> None:
        self._pieces, self._position = pieces, 0
        self._size = sum(stop - start for _, start, stop in pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(origin + offset, 0)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        at = self._position
        for file, start, stop in self._pieces:
            if at < stop - start:
                file.seek(start + at)
                part = file.read(min(len(view), stop - start - at))
                view[: len(part)] = part
                self._position += len(part)
                return len(part)
            at -= stop - start
        return 0


def spliced(*pieces: bytes | tuple[BinaryIO, int, int]) -> BinaryIO:
    """A file of bytes and of parts (file, start, stop) of others; small ones are copied, which is quicker."""
    if sum(len(piece) if isinstance(piece, bytes) else piece[2] - piece[1] for piece in pieces) <= COPIED_BYTES:
        return io.BytesIO(b"".join(piece if isinstance(piece, bytes) else _part(*piece) for piece in pieces))
    parts = [(io.BytesIO(piece), 0, len(piece)) if isinstance(piece, bytes) else piece for piece in pieces]
    return io.BufferedReader(_Spliced(parts))


def _part(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(max(stop - start, 0))


def size_of(file: BinaryIO) -> int:
    """Bytes of a file, which is then at its end."""
    return file.seek(0, io.SEEK_END)
