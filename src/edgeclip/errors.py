"""Every error a user can meet. One base class, one line: what was got, what was expected, what to do."""

from __future__ import annotations

import struct
from functools import partial

DAMAGED = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)
"""What a library's parser may raise, beside errors of its own, for a file that is damaged or hostile: a boundary around
one call of it, never around our own code, makes an `EdgeclipError` of them."""
MALFORMED = (ValueError, RecursionError)
"""What parsers of JSON and TOML raise for text that is none, for other fields, and for nesting without an end."""
LONGEST = 400
"""Letters of what was got: a name of 5,000 would hide the rest of the line."""


class EdgeclipError(Exception):
    """A mistake the user can mend. The command line prints it as one line and exits with code 2."""

    def __init__(self, got: str, *, expected: str, fix: str) -> None:
        """Compose the one line from its three parts; line breaks are folded, the middle of a long `got` is left out."""
        got = got if len(got) <= LONGEST else f"{got[: LONGEST // 2]} ... {got[-LONGEST // 2 :]}"
        self.got, self.expected, self.fix = got, expected, fix
        super().__init__(" ".join(f"{got}; expected {expected}; {fix}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        """By its parts, so that it reaches the process that waits for a worker's result."""
        return partial(type(self), self.got, expected=self.expected, fix=self.fix), ()


class InputError(EdgeclipError, TypeError):
    """An argument of a type that has no plain meaning there."""


class ConfigError(EdgeclipError):
    """A recipe, an option or a configuration file that cannot be used."""


class CheckpointError(EdgeclipError):
    """A model that is missing, damaged, or of another architecture."""


class TokenizerError(EdgeclipError):
    """Tokenizer files that are missing or malformed."""


class BundleError(EdgeclipError):
    """A bundle that is incomplete, was changed, or is of a newer version."""


class ImageError(EdgeclipError):
    """An image that cannot be decoded."""


class MissingExtraError(ImageError):
    """An image of a format that takes a package more."""


class DataError(EdgeclipError):
    """A data set that is missing, empty, malformed, or too small for what was asked."""


class ReplacedError(DataError):
    """An index that was made anew with another bundle while it was open."""


class HubError(EdgeclipError):
    """A hub id that cannot be fetched and is not in the cache."""


class TrainingError(EdgeclipError):
    """Training that cannot start, go on or be resumed."""
