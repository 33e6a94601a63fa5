"""What figures depend on: versions, processor, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from edgeclip.cpu import cpu_flags, granted_processors, processor_name

PACKAGES = ("edgeclip", "numpy", "pillow", "torch", "onnxruntime", "openvino", "tokenizers")
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
        "processor": processor_name(),
        "cpu_count": os.cpu_count(),
        "granted_processors": granted_processors(),
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
