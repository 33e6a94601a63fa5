"""Bytes on disk, peak memory, and how to measure both cleanly: in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def bytes_on_disk(path: Path) -> int:
    """Size of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes).

    `ru_maxrss` survives exec and so may be the parent's peak; Linux's VmHWM is this program's own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def run_fresh(module: str, job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run `python -m module` in a new process with its threads fixed; the job goes in and the answer comes out as JSON.

    Raises:
        RuntimeError: the process failed; its own message is included.
    """
    count = str(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(job), capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
