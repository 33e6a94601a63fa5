"""What commands on many images share: reading the list of them, and telling of broken ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, FileIO
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeVar

from edgeclip.errors import ConfigError, DataError, ImageError
from edgeclip.files import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeclip.runtime.stream import Embedded

T = TypeVar("T")


def open_stdin() -> FileIO:
    """Standard input without a buffer, so that what has come can be told from what has not.

    Raises:
        ConfigError: there is none, as in some services.
    """
    if sys.stdin is None:
        raise ConfigError("a closed standard input", expected="a list on it", fix="name files or folders instead of -")
    return FileIO(sys.stdin.fileno(), closefd=False)


def list_images(arguments: Sequence[str]) -> Iterator[str | None]:
    """The images that the arguments of a command name; see `runtime.listing`, also for the errors."""
    from edgeclip.runtime.listing import STDIN, check_paths, find_images

    check_paths(arguments)
    return find_images(arguments, open_stdin() if STDIN in arguments else BytesIO())


def count_images(arguments: Sequence[str]) -> int | None:
    """How many images that are, where no list has to be waited for."""
    from edgeclip.runtime.listing import STDIN

    return None if STDIN in arguments else sum(1 for _ in list_images(arguments))


def not_empty(items: Iterable[T | None], what: str) -> Iterator[T | None]:
    """The same items, the first of which is read at once.

    Raises:
        DataError: there is none.
    """
    items = iter(items)
    first = next((item for item in items if item is not None), None)
    if first is None:
        raise DataError(f"no {what}", expected="at least one", fix="check what was named or listed")
    return chain([first], items)


def intact(
    images: Iterable[Embedded], on_bad_image: Literal["skip", "fail"]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Paths and embeddings of the intact images; a line on stderr for each of the others, and for their number.

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
            print(f"left out: {' '.join(printable(embeds.got).split())}", file=sys.stderr)
    if broken:
        print(f"broken images left out: {broken}", file=sys.stderr)
