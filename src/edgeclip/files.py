"""Write files and folders whole or not at all, and keep other processes out of them."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from edgeclip.errors import ConfigError

PART, LOCK = ".edgeclip-part", ".edgeclip-lock"
"""How hidden names end of what is being written, and of what keeps other processes out."""
PART_OF = re.compile(rf"\..*\.([0-9a-f]{{8}})-(\d+)-\d+{re.escape(PART)}")
"""A part's name tells the machine and the process that write it."""
FORGOTTEN_S = 24 * 3600
"""After so long a part of another machine's is nobody's."""
SHOWN_NAME = 100
EXCHANGE, THIS_FOLDER = 2, -100
"""RENAME_EXCHANGE and AT_FDCWD of Linux's renameat2."""


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def own_part(path: Path) -> Path:
    """A name of this thread's own beside the target."""
    return path.with_name(f".{path.name[:SHOWN_NAME]}.{_machine()}-{os.getpid()}-{threading.get_ident()}{PART}")


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder what killed processes were writing."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - a million pictures may lie there too
    for path in (folder / name for name in names if name.endswith(PART)):
        said = PART_OF.fullmatch(path.name)
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > FORGOTTEN_S
            if said and (old or (said[1] == _machine() and not _is_running(int(said[2])))):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A folder in `place` for what is needed until the block ends; what a killed run leaves goes with the next run."""
    folder = own_part(place / "scratch")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name of this thread's own beside the target, flush to disk, rename."""
    temporary = own_part(path)
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
    return path.with_name(f".{path.name[:SHOWN_NAME]}.edgeclip-new")


def remove_part(path: Path) -> None:
    """Remove what a killed process has left of writing it; the caller makes sure that none is writing it."""
    part_of(path).unlink(missing_ok=True)


def flush(folder: Path) -> None:
    """Have all files of a folder on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


@contextmanager
def folder_written_atomically(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the target's place when the block ends without an error.

    At every instant, and however the process ends, the earlier folder or the new one is there: `present` finds it.
    """
    temporary, earlier = own_part(folder), _earlier(folder)
    temporary.mkdir(parents=True)
    remove_leftovers(folder.parent)
    if earlier.exists() and not folder.exists():
        earlier.replace(folder)
    try:
        yield temporary
        flush(temporary)
        shutil.rmtree(earlier, ignore_errors=True)
        if not (folder.exists() and _exchange(temporary, folder)):
            if folder.exists():
                folder.replace(earlier)
            temporary.replace(folder)
            shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _earlier(folder: Path) -> Path:
    """Where a folder is, for an instant, while another takes its place and the system cannot exchange them."""
    return folder.with_name(f".{folder.name[:SHOWN_NAME]}.edgeclip-earlier")


def present(folder: Path) -> Path:
    """The folder, or its earlier content where a process was killed, or is, between taking it away and replacing it."""
    try:
        earlier = _earlier(folder)
        return earlier if not folder.exists() and earlier.is_dir() else folder
    except (OSError, ValueError):  # a name that no folder can have
        return folder


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, where the system and the file system can."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library from before 2018
        return False
    return bool(renameat2(THIS_FOLDER, os.fsencode(one), THIS_FOLDER, os.fsencode(other), EXCHANGE) == 0)


def read_whole(path: Path, limit: int = 64 << 20) -> bytes:
    """The content of a file that should be small; devices and pipes, which have no end, are none.

    Raises:
        OSError: it is missing, unreadable, no file, or larger than `limit` bytes.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"of more than {limit >> 20} MB", str(path))
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def printable(text: str) -> str:
    """A text as it can be written to UTF-8: file systems and Python allow bytes and surrogates that it has not.

    Names that Python read in a narrower locale are themselves again.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode("utf-8", "replace").decode("utf-8")


def as_json(value: object) -> bytes:
    """A record as indented JSON; names in it that are not UTF-8 are made printable."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = printable(json.dumps(msgspec.to_builtins(value), ensure_ascii=False)).encode("utf-8")
    return msgspec.json.format(encoded, indent=2) + b"\n"


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
    remove_leftovers(path)
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

    It is a hidden file beside it, which goes with the block; folders that are made for it go too, if they stay empty.

    Raises:
        ConfigError: another process has it, in the words of `taken`, or there is no place for it.
    """
    from filelock import FileLock, Timeout  # takes longer to import than the rest of the command line

    made = [folder for folder in path.parents if not folder.exists()]
    output_folder(path.parent)
    lock = FileLock(path.with_name(f".{path.name[:SHOWN_NAME]}{LOCK}"), timeout=0)
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
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
