"""Write files and folders whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeclip.errors import ConfigError


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name of this thread's own beside the target, flush to disk, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_atomically(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the target's place when the block ends without an error."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        earlier = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(earlier, ignore_errors=True)
        if folder.exists():
            folder.replace(earlier)
        temporary.replace(folder)
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def printable(text: str) -> str:
    """A text as it can be written to UTF-8: file systems and Python allow bytes and surrogates that it has not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def output_folder(path: Path) -> Path:
    """Make an output folder.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path} ({error.strerror})", expected="a writable place", fix="choose another --out"
        ) from error
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{path} is not writable", expected="a writable folder", fix="choose another --out")
    return path


@contextmanager
def own_output_folder(path: Path) -> Iterator[None]:
    """Make an output folder, and keep other runs out of it until the block ends or the process does.

    Of several processes that `torchrun` has started for one run, the first keeps it.

    Raises:
        ConfigError: it cannot be made or written to, or another run has it.
    """
    folder = os.open(output_folder(path), os.O_RDONLY)
    try:
        if os.environ.get("RANK", "0") == "0":
            lock(folder, f"{path}, to which another run writes", fix="wait for it, or choose another --out")
        yield
    finally:
        os.close(folder)


def lock(descriptor: int, taken: str, *, fix: str) -> None:
    """Lock an open file or folder until it is closed, however the process ends.

    Raises:
        ConfigError: another process has locked it, in the words of `taken`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(taken, expected="one at a time", fix=fix) from error
