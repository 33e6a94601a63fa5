"""How glibc keeps memory that was freed, which on a small device is better given back."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


@contextmanager
def weights_apart() -> Iterator[None]:
    """Have every weight get pages of its own while a graph is opened, which go back once it is packed.

    glibc starts so, but once a large array was freed it takes blocks up to that size from the heap. Between packed
    weights the heap then keeps the holes of the unpacked ones: 90 of 260 MB for the image graph of ViT-B/32.
    """
    if not _is_glibc():
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, 128 * 1024)
    try:
        yield
    finally:
        # What a call needs may come from the heap again, and stay there for the next one.
        mallopt(M_MMAP_THRESHOLD, 4 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 8 * 2**20)
        trim()


def trim() -> None:
    """Give back what was freed: reading CLIP's vocabulary takes 43 MB, of which 16 are kept."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)
