from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def edgeclip() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a user does."""

    def run(*arguments: object, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgeclip.cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, input=stdin, timeout=600, check=False)

    return run


@pytest.fixture(scope="session")
def bundle(edgeclip, mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "mini"
    done = edgeclip("export", mini_checkpoint, "--out", out, "--samples", 6, "--threads", 1, "--with-joint-graph")
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    return out
