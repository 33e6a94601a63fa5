"""What names of models and data sets look like."""

from __future__ import annotations

import re

BUILTIN = "builtin:tabletop"
"""The built-in teacher, and the built-in world."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether a name has the form organisation/name."""
    return len(source) < 200 and _HUB_ID.fullmatch(source) is not None
