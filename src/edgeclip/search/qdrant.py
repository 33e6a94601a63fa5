"""Where a Qdrant server is, the way to it, and what is said where it can't be used. Extra `scale`."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from edgeclip.errors import DAMAGED, ConfigError, DataError, InputError
from edgeclip.files import printable
from edgeclip.secret import secret_of

logger = logging.getLogger(__name__)

SCHEMES = {"qdrant": "http", "qdrants": "https"}
"""As of Redis: the s is for TLS."""
PORT = 6333
KEY, KEY_FILE = "QDRANT_API_KEY", "QDRANT_API_KEY_FILE"
"""Environment variables: the key itself, or the file that it is in."""
NAME = re.compile(r"[^\s/\\<>:\"|?*\x00-\x1f]{1,255}")
EXAMPLE = "qdrant://localhost:6333/photos"
SECONDS = 30
REFUSED = (401, 403)
SHOWN = 200


class Address(msgspec.Struct, frozen=True):
    """A collection of a server."""

    scheme: str
    host: str
    port: int
    collection: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self._place}/{self.collection}"

    @property
    def _place(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The server's."""
        return f"{SCHEMES[self.scheme]}://{self._place}"


def address_of(text: str, name: str) -> Address:
    """Read `qdrant://host:port/collection`.

    Args:
        text: what was given.
        name: of the setting, in backquotes.

    Raises:
        ConfigError: it is something else, or holds a user or a key, which is not repeated.
        InputError: it is no string.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} of the type {type(text).__name__}", expected="a string", fix=f"give {EXAMPLE!r}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _malformed(text, name) from None
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"{name} with a user, a key or options in it",
            expected="an address alone",
            fix=f"give {name} {EXAMPLE}, and the key in {KEY} or in the file that {KEY_FILE} names",
        )
    collection = parts.path.removeprefix("/")
    if parts.scheme not in SCHEMES or not parts.hostname or not NAME.fullmatch(collection):
        raise _malformed(text, name)
    return Address(parts.scheme, parts.hostname, PORT if port is None else port, collection)


def _malformed(text: str, name: str) -> ConfigError:
    return ConfigError(
        name if set(text) & set("@?#") else f"{name} {printable(text)}",  # where a key might be
        expected="qdrant://HOST:PORT/COLLECTION, or qdrants:// for TLS",
        fix=f"give {name} {EXAMPLE}",
    )


def connected(address: Address) -> QdrantClient:
    """A client; the first request tells whether there is a server.

    Raises:
        ConfigError: the API key can't be used.
        OSError: its file can't be read.
    """
    file = os.environ.get(KEY_FILE)
    key = secret_of(KEY, Path(file) if file else None, KEY_FILE, fix=f"put the server's API key into {KEY}")
    if key and address.scheme == "qdrant":
        logger.warning("the API key goes to %s unencrypted: use qdrants:// where others share the network", address)
    with warnings.catch_warnings(action="ignore"):  # which say the same
        return QdrantClient(url=address.url, api_key=key, timeout=SECONDS, check_compatibility=False)


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Say in our words what a server refuses; the block holds the client's calls alone.

    Raises:
        ConfigError: there is no answer, or the API key is refused.
        DataError: the server can't do what it was asked.
    """
    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in REFUSED:
            raise ConfigError(
                f"{address}, which answers {error.status_code} without a key that it accepts",
                expected=f"an API key that may read the collection, and write to it for `to`, in {KEY}",
                fix=f"set {KEY}, or {KEY_FILE} to a file that holds it",
            ) from error
        said = printable(error.content[:SHOWN].decode("utf-8", "replace"))
        raise _unable(address, f"answers {error.status_code}: {said}") from error
    except QdrantException as error:  # too many requests
        raise _unable(address, f"answers: {printable(str(error)[:SHOWN])}") from error
    except (ResponseHandlingException, *DAMAGED) as error:  # no connection, or another program's answer
        cause = error.source if isinstance(error, ResponseHandlingException) else error
        said = str(cause).strip().partition("\n")[0] or type(cause).__name__
        raise ConfigError(
            f"no answer of Qdrant at {address} ({printable(said[:SHOWN])})",
            expected="a Qdrant server there",
            fix="start it, or give another host or port",
        ) from error


def _unable(address: Address, trouble: str) -> DataError:
    return DataError(
        f"{address}, which {trouble}",
        expected="a Qdrant server that can do what it is asked",
        fix="mend that there and run it again: what was written stays",
    )
