"""What commands on many images share: reading the list of them, and telling of broken ones."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, FileIO
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.listing import STDIN, check_paths, find_images, in_words
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


def open_list(source: str) -> FileIO:
    """A list in a file, from a pipe, or "-" for standard input.

    Raises:
        ConfigError: it is none of these, such as a device, which has no end.
        DataError: it can't be opened.
    """
    if source == STDIN:
        return open_stdin()
    try:
        file = FileIO(source)
    except OSError as error:
        raise DataError(
            f"`texts` {source} ({error.strerror})", expected="a file with one text a line", fix="give the path of one"
        ) from error
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        file.close()
        raise ConfigError(f"`texts` {source}, a device", expected="a file or a pipe", fix="give the path of a file")
    return file


def list_images(arguments: Sequence[str], skipped: Counter[str] | None = None) -> Iterator[str | Flush]:
    """The images that the arguments of a command name; see `bulk.listing.find_images`, also for the errors."""
    check_paths(arguments)
    return find_images(arguments, open_stdin() if STDIN in arguments else BytesIO(), skipped)


def count_images(arguments: Sequence[str]) -> int | None:
    """How many images that are, where no list has to be waited for."""
    return None if STDIN in arguments else sum(1 for _ in list_images(arguments))


def not_empty(items: Iterable[T | Flush], what: str, skipped: Counter[str] | None = None) -> Iterator[T | Flush]:
    """The same items, the first of which is read at once.

    Raises:
        DataError: there is none; `skipped` is what there was instead.
    """
    items = iter(items)
    first = next((item for item in items if not isinstance(item, Flush)), None)
    if first is None:
        instead = in_words(skipped or Counter())
        raise DataError(
            f"no {what}" + (f" among {instead}" if instead else ""),
            expected="at least one",
            fix=f"name a folder or list that has {what}",
        )
    return chain([first], items)


def root_of(arguments: Sequence[str]) -> Path:
    """The folder that holds all that the arguments of a command name; a list is taken to be of the current folder."""
    folders = [
        os.path.realpath("." if path == STDIN else path if Path(path).is_dir() else Path(path).parent)
        for path in arguments
    ]
    return Path(os.path.commonpath(folders))


class Intact:
    """Paths and embeddings of the intact images; a warning for each of the others, and at the end for their number.

    Attributes:
        left_out: how many were broken so far.
    """

    def __init__(self, images: Iterable[Embedded], on_bad_image: OnBadImage, skipped: Counter[str]) -> None:
        """Iterating raises an ImageError where one is broken and `on_bad_image` is "fail"; at its end `skipped` is told
        of, which `list_images` has counted.
        """
        self._images, self._on_bad_image, self._skipped = images, on_bad_image, skipped
        self.left_out = 0

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for source, embeds in self._images:
            if not isinstance(embeds, ImageError):
                yield str(source), embeds
            elif self._on_bad_image == "fail":
                raise embeds
            else:
                self.left_out += 1
                logger.warning("left out: %s", " ".join(printable(embeds.got).split()))
        if told := in_words(self._skipped):
            logger.info("not read by this version: %s", told)
        if self.left_out:
            logger.warning("broken images left out: %d", self.left_out)
