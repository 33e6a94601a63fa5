"""Write files and folders whole or not at all, and keep other processes out of them."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def part_of(path: Path) -> Path:
    """Where a file is written that takes another's place later; one process at a time."""
    return path.with_name(f".{path.name}.part")


def remove_parts(path: Path) -> None:
    """Remove what killed processes have left of writing a file; the caller makes sure that none is writing it."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d+-\d+\.)?part")
    for name in os.listdir(path.parent):  # noqa: PTH208 - a million pictures may lie there too
        if ours.fullmatch(name):
            (path.parent / name).unlink(missing_ok=True)


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
    fix = "give `out` a folder that can be written to"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path} ({error.strerror})", expected="a writable place", fix=fix
        ) from error
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{path} is not writable", expected="a writable folder", fix=fix)
    return path


@contextmanager
def own_output_folder(path: Path) -> Iterator[None]:
    """Make an output folder, and keep other runs out of it until the block ends or the process does.

    Of several processes that `torchrun` has started for one run, the first keeps it.

    Raises:
        ConfigError: it cannot be made or written to, or another run has it.
    """
    output_folder(path)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with locked(path, f"{path}, to which another run writes", fix=f"wait for it, or give `out` {path}-2"):
        yield


@contextmanager
def locked(path: Path, taken: str, *, fix: str) -> Iterator[None]:
    """Hold the lock of a file or folder until the block ends, however the process ends.

    It is a hidden file beside it, which goes with the block.

    Raises:
        ConfigError: another process has it, in the words of `taken`.
    """
    from filelock import FileLock, Timeout  # takes longer to import than the rest of the command line

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(taken, expected="one at a time", fix=fix) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps open files
            Path(lock.lock_file).unlink()  # while it is held: whoever waits for it notices, and makes a new one
        lock.release()
