"""What this device gives and allows: memory for trials, room on the disk, the instructions that int8 needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeclip.cpu import cpu_flags
from edgeclip.errors import ConfigError

MEMORY_SHARE = 0.8
"""Of the memory that is free as a run begins; a trial that needs more has failed."""
ROOM, ROOM_OF_FUSED, ROOM_OF_STUDENTS = 5, 6, 4
"""Times the checkpoint's bytes in float32: the float graphs, every kind of them, and the bundle; then those of two
schedules, and two students with the states of their training.
"""
NEEDED = ({"avx2"}, {"asimd"})
"""Any of these; ONNX Runtime's int8 is slow without."""


def memory_cap_mb() -> float | None:
    """MB (10^6 bytes) that a trial may take; None where the system does not tell what is free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else MEMORY_SHARE * free * 1024 / 1e6


def check_processor() -> None:
    """Refuse a processor on which no choice would be worth its time.

    Raises:
        ConfigError: it has neither AVX2 nor NEON.
    """
    flags = cpu_flags()
    if flags and not any(needed <= flags for needed in NEEDED):
        raise ConfigError(
            "a processor without AVX2 or NEON",
            expected="one of them, for int8",
            fix="use edgeclip export with `precision` fp32",
        )


def check_room(place: Path, fp32_bytes: int, *, fused: bool = False, students: bool = False) -> None:
    """Refuse a disk on which the candidates will not fit.

    Args:
        place: where they are to be.
        fp32_bytes: of the checkpoint in float32.
        fused: whether some fuse tokens.
        students: whether some are trained.

    Raises:
        ConfigError: naming what is free and what is needed.
    """
    existing = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free, needed = (
        shutil.disk_usage(existing).free,
        (ROOM + fused * ROOM_OF_FUSED + students * ROOM_OF_STUDENTS) * fp32_bytes,
    )
    if free < needed:
        raise ConfigError(
            f"{free / 1e6:.0f} MB free in {existing}",
            expected=f"{needed / 1e6:.0f} MB for the candidates",
            fix="make room, or give `out` on another disk",
        )
