"""Paths as text that any program reads, and back.

A path is bytes on most systems, UTF-8 or not; JSON and CSV hold Unicode. A path in UTF-8 is written as it is. Any other
is written as a `file:` URI whose other bytes are percent-encoded (RFC 3986), such as `file:photos/%E9t%E9.jpg`; so is a
path that itself begins with `file:`, which makes the way back unique.
"""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

URI = "file:"


def path_to_text(path: str) -> str:
    """A path from the operating system, surrogates and all, as valid Unicode."""
    data = os.fsencode(path)
    text = data.decode("utf-8", "ignore")  # which is not the path itself in a narrower locale
    return text if text.encode() == data and not text.startswith(URI) else URI + quote_from_bytes(data)


def path_from_text(text: str) -> str:
    """The path that `path_to_text` was given."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(URI)) if text.startswith(URI) else text.encode())
