"""Bytes on disk and memory."""

from __future__ import annotations

import sys
from pathlib import Path


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
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    import resource  # which Windows has not

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def pss_mb() -> float | None:
    """Memory of this process in MB (10^6 bytes), pages that n processes share counted as 1/n; None but on Linux."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:")), None)
