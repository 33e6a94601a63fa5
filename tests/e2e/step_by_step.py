"""The command line in a process of its own that waits at a named point, however fast or slow it is on its way there.

Run as `... FILENO MODULE:NAME ARGUMENTS`, it tells a socket of every call of a function and waits for an answer.
"""

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeclip.cli.main import main

ROOT = Path(__file__).parents[2]


def untraced() -> dict[str, str]:
    """The environment of a command that coverage leaves alone: what it reaches, quicker tests reach too."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


class StepByStep:
    """A command that waits after every call of a function, such as `package.module:Class.method`.

    Iterating lets it go on until it waits again, or ends.
    """

    def __init__(self, after: str, *arguments: object, **options: Any) -> None:
        """Start it, with `options` of `subprocess.Popen`."""
        self._ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "tests.e2e.step_by_step", number, after, *arguments]
            self.process = subprocess.Popen(
                [*map(str, command)], pass_fds=[number], cwd=ROOT, env=untraced(), start_new_session=True, **options
            )

    def __iter__(self) -> Iterator[None]:
        while self._ours.recv(1):
            yield
            self._ours.sendall(b".")

    def send(self, sign: signal.Signals) -> None:
        """Send a signal to the command and the processes that it has started, as a terminal does."""
        os.killpg(self.process.pid, sign)

    def __enter__(self) -> "StepByStep":
        return self

    def __exit__(self, *error: object) -> None:
        self._ours.close()
        self.process.__exit__(*error)


def wait_after(place: str, parent: socket.socket) -> None:
    """Let a function wait when it has done its work."""
    module, _, name = place.partition(":")
    *path, name = name.split(".")
    owner = functools.reduce(getattr, path, import_module(module))
    function = getattr(owner, name)

    @functools.wraps(function)
    def wait(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        parent.sendall(b".")
        parent.recv(1)
        return result

    setattr(owner, name, wait)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
    wait_after(sys.argv.pop(2), socket.socket(fileno=int(sys.argv.pop(1))))
    main()
