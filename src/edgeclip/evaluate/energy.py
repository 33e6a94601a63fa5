"""Energy that the processor has used, by the kernel's powercap counters, where they can be read."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
UNREADABLE = f"{POWERCAP} has no counters that this user may read"


def joules(powercap: Path = POWERCAP) -> dict[str, float] | None:
    """What each package has counted so far, by name; None where no counter can be read."""
    found = {}
    for domain in sorted(powercap.glob("*:[0-9]*")):
        if domain.name.count(":") == 1:  # packages; what has two colons is a part of one
            try:
                found[domain.name] = int((domain / "energy_uj").read_text()) / 1e6
            except (OSError, ValueError):
                continue
    return found or None


def joules_since(before: dict[str, float], powercap: Path = POWERCAP) -> float | None:
    """What all packages have used since; None where a counter began anew, or can't be read any more."""
    after = joules(powercap)
    if after is None or after.keys() != before.keys():
        return None
    used = [after[name] - before[name] for name in before]
    return sum(used) if min(used) >= 0 else None
