"""What figures depend on: versions, processor, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("edgeclip", "numpy", "pillow", "torch", "onnxruntime", "tokenizers")
INT8_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Processor features that decide how fast int8 is."""


def environment(threads: int) -> dict[str, Any]:
    """What the figures depend on: versions, processor, threads."""
    installed = {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    flags = cpu_flags()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "cpu_flags": [flag for flag in INT8_FLAGS if flag in flags],
        "threads": threads,
        **installed,
    }


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def _processor() -> str:
    for line in _cpuinfo().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def cpu_flags() -> set[str]:
    """Features of this processor as Linux names them; empty elsewhere."""
    for line in _cpuinfo().splitlines():
        if line.lower().startswith(("flags", "features")):
            return set(line.partition(":")[2].split())
    return set()
