"""What commands on many images share: reading the list of them, and telling of broken ones."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, FileIO
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.listing import STDIN, check_paths, find_images
from edgeclip.errors import ConfigError, DataError, ImageError
from edgeclip.files import printable
from edgeclip.runtime.stream import Embedded, Flush
from edgeclip.settings import OnBadImage

logger = logging.getLogger(__name__)

T = TypeVar("T")


def open_stdin() -> FileIO:
    """Standard input without a buffer, so that what has come can be told from what has not.

    Raises:
        ConfigError: there is none, as in some services.
    """
    if sys.stdin is None:
        raise ConfigError("a closed standard input", expected="a list on it", fix="name files or folders instead of -")
    return FileIO(sys.stdin.fileno(), closefd=False)


def list_images(arguments: Sequence[str]) -> Iterator[str | Flush]:
    """The images that the arguments of a command name; see `bulk.listing`, also for the errors."""
    check_paths(arguments)
    return find_images(arguments, open_stdin() if STDIN in arguments else BytesIO())


def count_images(arguments: Sequence[str]) -> int | None:
    """How many images that are, where no list has to be waited for."""
    return None if STDIN in arguments else sum(1 for _ in list_images(arguments))


def not_empty(items: Iterable[T | Flush], what: str) -> Iterator[T | Flush]:
    """The same items, the first of which is read at once.

    Raises:
        DataError: there is none.
    """
    items = iter(items)
    first = next((item for item in items if not isinstance(item, Flush)), None)
    if first is None:
        raise DataError(f"no {what}", expected="at least one", fix=f"name a folder or list that has {what}")
    return chain([first], items)


def intact(images: Iterable[Embedded], on_bad_image: OnBadImage) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Paths and embeddings of the intact images; a warning for each of the others, and for their number.

    Raises:
        ImageError: one is broken and `on_bad_image` is "fail".
    """
    broken = 0
    for source, embeds in images:
        if not isinstance(embeds, ImageError):
            yield str(source), embeds
        elif on_bad_image == "fail":
            raise embeds
        else:
            broken += 1
            logger.warning("left out: %s", " ".join(printable(embeds.got).split()))
    if broken:
        logger.warning("broken images left out: %d", broken)
