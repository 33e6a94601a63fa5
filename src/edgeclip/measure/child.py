"""A module run in a process of its own, told what to do by lines of JSON, with a cap on its memory and a time-out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Self, TextIO

KILLED = -9
"""The exit code of a process that the system ended, for want of memory too."""
LACKED = ("MemoryError", "bad_alloc", "Failed to allocate memory", "can't allocate memory")
"""How Python, C++, ONNX Runtime and PyTorch say that there was no more memory."""


class ChildError(RuntimeError):
    """A process that ended without an answer; says why."""


class Child:
    """A process that nothing else has used; a context manager that ends it."""

    def __init__(
        self, module: str, job: dict[str, Any], *, threads: int, cap_mb: float | None = None, timeout_s: float = 3600
    ) -> None:
        """Start it.

        Args:
            module: what is run, which reads its job with `first_line`.
            job: what it is told first.
            threads: for what computes in it.
            cap_mb: memory that it may take, in MB (10^6 bytes), where the system can hold it to that.
            timeout_s: for each answer.
        """
        self._timeout_s, self._cap_mb, self._late = timeout_s, cap_mb, False
        fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **fixed},
        )
        self._tell({**job, "threads": threads, "cap_mb": cap_mb, "started": time.time(), "parent": os.getpid()})

    def ask(self, **command: Any) -> dict[str, Any]:
        """One more line, and its answer.

        Raises:
            ChildError: the process ended; its own last words are included.
        """
        self._tell(command)
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        timer = threading.Timer(self._timeout_s, self._too_late)
        timer.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        if answer.endswith("\n"):
            return json.loads(answer)
        code = self._process.wait()
        if self._late:
            raise ChildError(f"took more than {self._timeout_s:g} s")
        self._errors.seek(0)
        words = self._errors.read().strip()
        if self._cap_mb is not None and (code == KILLED or any(said in words for said in LACKED)):
            raise ChildError(f"needed more than {self._cap_mb:.0f} MB")
        raise ChildError(f"the process ended with {code}: {words.splitlines()[-1][-500:] if words else 'no word'}")

    def _too_late(self) -> None:
        self._late = True
        self._process.kill()

    def _tell(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has failed; `ask` tells how

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """End the process; nothing can be asked of it then."""
        if self._errors.closed:
            return
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def first_line() -> tuple[dict[str, Any], TextIO]:
    """In the process: its job, and where answers go. Whatever a library prints goes elsewhere.

    The process ends with its parent, even one that was killed: it would take the next run's memory, or write beside it.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    job = json.loads(sys.stdin.readline())
    if job["cap_mb"] is not None and sys.platform == "linux":
        import resource  # which Windows has not

        limit = int(job["cap_mb"] * 1e6)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if os.name == "posix":  # elsewhere a process keeps the number of a parent that is gone
        threading.Thread(target=_end_with, args=[job["parent"]], daemon=True).start()
    return job, answers


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
