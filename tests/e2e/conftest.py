from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.step_by_step import StepByStep, untraced
from tests.once import MadeOnce


@pytest.fixture(scope="session")
def edgeclip() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a user does."""

    def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgeclip.cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=untraced(), input=stdin, check=False)

    return run


@pytest.fixture(scope="session")
def stop() -> Callable[..., tuple[int, str]]:
    """Run the command until something is so after a call of a function, and send it a signal then."""

    def run(*arguments: object, after: str, when: Callable[[], bool], sign: signal.Signals) -> tuple[int, str]:
        with StepByStep(after, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as command:
            for _ in command:
                if when():
                    command.send(sign)
                    break
            errors = command.process.stderr.read()
        return command.process.returncode, errors

    return run


@pytest.fixture(scope="session")
def bundle(edgeclip, mini_checkpoint: Path, once: MadeOnce) -> Path:
    def export(folder: Path) -> None:
        command = ("export", mini_checkpoint, "--out", folder / "mini", "--samples", 6, "--threads", 1)
        done = edgeclip(*command, "--with-joint-graph")
        assert done.returncode == 0, done.stderr
        assert "int8" in done.stdout

    return once("bundle", export) / "mini"
