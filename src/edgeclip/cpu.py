"""This machine's processor: how many there are, what they can do, and what that means for int8."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgeclip.errors import ConfigError

SIXTEEN_BITS = "AVX2 (vpmaddubsw), pairs summed in 16 bits: exact with the weights of a bundle"
KINDS = (
    ({"amx_int8"}, "AMX tiles, exact"),
    ({"avx512_vnni"}, "AVX-512 VNNI (vpdpbusd), exact"),
    ({"avx_vnni"}, "AVX VNNI (vpdpbusd), exact"),
    ({"avx2"}, SIXTEEN_BITS),
    ({"i8mm"}, "Arm i8mm (smmla), exact"),
    ({"asimddp"}, "Arm dot product (sdot), exact"),
    ({"asimd"}, "Arm NEON (smlal), exact"),
)
"""Features that a processor must have, the fastest first, and what ONNX Runtime then uses."""
MOST = 256
"""Threads or workers of one process; more don't make a model of CLIP's size faster."""
UNLIMITED = 1 << 20
"""More processors than any machine has."""


def processors() -> int:
    """How many processors to use by default.

    It is at most `MOST`: OMP_NUM_THREADS where that is set; else those that this process may run on, within the time
    that its cgroups grant it; where `torchrun` has started several processes, one's share of them (`torchrun` sets
    OMP_NUM_THREADS too).

    Raises:
        ConfigError: one of the two variables is no number above 0.
    """
    if (started := _number("LOCAL_WORLD_SIZE", "the processes on this machine")) is not None:
        return min(max(granted_processors() // started, 1), MOST)
    return min(_number("OMP_NUM_THREADS", "a number of threads") or granted_processors(), MOST)


def _number(variable: str, expected: str) -> int | None:
    value = os.environ.get(variable)
    if not value:  # set to nothing in many a container
        return None
    first = value.split(",")[0].strip()  # OMP_NUM_THREADS may have more, for threads within threads
    if not first.isdecimal() or int(first) == 0:
        raise ConfigError(f"{variable}={value}", expected=expected, fix="unset it")
    return int(first)


def granted_processors() -> int:
    """The processors that this process may run on (affinity and cpuset), within its cgroups' quota, rounded down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(allowed, int(cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))), 1)


def cgroup_quota(mounted: Path, membership: Path) -> float:
    """Processors' worth of time that cgroups grant, versions 1 and 2; as many as one likes where they limit nothing.

    A group's ancestors limit it too. In a container the groups' paths may be the host's, and only the mounted root is
    its own.
    """
    quotas = [float(UNLIMITED)]
    for line in _read(membership).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = [mounted / controllers, mounted / "cpu"] if controllers else [mounted, mounted / "unified"]
        for root in roots:
            path = root / group.strip("/")
            quotas += [_quota(folder) for folder in (path, *path.parents) if folder.is_relative_to(root)]
    return min(quotas)


def _quota(folder: Path) -> float:
    """Processors of one group: "150000 100000" of version 2, microseconds in a period, or version 1's two files."""
    numbers = _read(folder / "cpu.max").split()
    numbers = numbers or (_read(folder / "cpu.cfs_quota_us") + " " + _read(folder / "cpu.cfs_period_us")).split()
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers) or int(numbers[1]) == 0:
        return float(UNLIMITED)  # "max", or -1
    return int(numbers[0]) / int(numbers[1])


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
    return _read(Path("/proc/cpuinfo"))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
