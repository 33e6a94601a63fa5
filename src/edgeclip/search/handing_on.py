"""What is done with pictures that were found: copies in a folder, or another program."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from edgeclip.errors import ConfigError
from edgeclip.files import output_folder, printable

logger = logging.getLogger(__name__)


def copy(paths: Sequence[str], folder: Path) -> None:
    """Copy files into a folder, with their dates; one whose name is taken there gets a number.

    Raises:
        ConfigError: the folder can't be made.
        OSError: it can't be written to.
    """
    output_folder(folder)
    for path in paths:
        try:
            source = Path(path).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            logger.warning("not copied: %s (%s)", printable(path), error.strerror)
            continue
        with source, _new_file(folder, Path(path)).open("xb") as copied:
            shutil.copyfileobj(source, copied)
        shutil.copystat(path, copied.name)


def _new_file(folder: Path, path: Path) -> Path:
    names = (path.name if number == 1 else f"{path.stem}-{number}{path.suffix}" for number in count(1))
    return next(folder / name for name in names if not os.path.lexists(folder / name))


def open_each(paths: Sequence[str]) -> None:
    """Open files with the programs that the desktop has for them.

    Raises:
        ConfigError: there is no desktop.
    """
    if sys.platform == "win32":
        for path in paths:
            os.startfile(path)  # noqa: S606
        return
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener is None:
        raise ConfigError(
            "no program that opens pictures", expected="xdg-open", fix="install xdg-utils, or use --html FILE instead"
        )
    for path in paths:
        subprocess.run([opener, path], check=False)
