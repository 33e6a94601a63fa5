"""Thousands of warnings are no news here."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("edgeclip")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's words to itself until the block ends."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
