"""This machine's processor: how many there are, what they can do, and what that means for int8."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgeclip.errors import ConfigError

KINDS = (
    ({"amx_int8"}, "AMX tiles, exact"),
    ({"avx512_vnni"}, "AVX-512 VNNI (vpdpbusd), exact"),
    ({"avx_vnni"}, "AVX VNNI (vpdpbusd), exact"),
    ({"avx2"}, "AVX2 (vpmaddubsw), pairs summed in 16 bits: exact with the 7-bit weights of a bundle"),
    ({"i8mm"}, "Arm i8mm (smmla), exact"),
    ({"asimddp"}, "Arm dot product (sdot), exact"),
    ({"asimd"}, "Arm NEON (smlal), exact"),
)
"""Features that a processor must have, the fastest first, and what ONNX Runtime then uses."""


def processors() -> int:
    """How many processors to use by default: all, or one's share of them where `torchrun` has started several.

    Raises:
        ConfigError: the environment's LOCAL_WORLD_SIZE is no number of processes.
    """
    started = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not started.isdecimal() or int(started) == 0:
        raise ConfigError(f"LOCAL_WORLD_SIZE={started}", expected="the processes on this machine", fix="unset it")
    return max((os.cpu_count() or 1) // int(started), 1)


def cpu_flags() -> set[str]:
    """Features of this processor as Linux names them; empty elsewhere."""
    for line in _cpuinfo().splitlines():
        if line.lower().startswith(("flags", "features")):
            return set(line.partition(":")[2].split())
    return set()


def processor_name() -> str:
    """What the processor calls itself."""
    for line in _cpuinfo().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def int8_arithmetic() -> str:
    """In words, what int8 layers are computed with here."""
    flags = cpu_flags()
    return next((words for needed, words in KINDS if needed <= flags), "the compiler's choice of instructions, exact")


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""
