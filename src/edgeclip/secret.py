"""What only its owner may know: from a file or the environment, never from an argument, which a machine's users see."""

from __future__ import annotations

import os
from pathlib import Path

from edgeclip.errors import ConfigError
from edgeclip.files import read_whole

MAX_BYTES = 4096


def secret_of(variable: str, file: Path | None, file_name: str, *, fix: str) -> str | None:
    """A token or key that a header can hold; None where there is none.

    Args:
        variable: of the environment, looked at where no file is given.
        file: its file.
        file_name: what the file is called in messages.
        fix: how to get one, for messages.

    Raises:
        ConfigError: it is empty, or nothing that a header can hold.
        OSError: the file can't be read.
    """
    if file is not None:
        name, secret = f"{file_name} {file}", read_whole(file, MAX_BYTES).strip()
    elif variable in os.environ:
        name, secret = variable, os.fsencode(os.environ[variable]).strip()
    else:
        return None
    if not secret or not all(0x21 <= byte <= 0x7E for byte in secret):
        raise ConfigError(f"{name} without a token in it", expected="one line of letters, digits and signs", fix=fix)
    return secret.decode("ascii")
