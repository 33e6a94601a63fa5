"""What names of models and data sets look like."""

from __future__ import annotations

import os
import re

BUILTIN = "builtin:tabletop"
"""The built-in teacher, and the built-in world."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether a name has the form organisation/name."""
    return len(source) < 200 and _HUB_ID.fullmatch(source) is not None


def joined_parts(source: str) -> tuple[str, str] | None:
    """The two sources with a + between them; None for a single one, whose name may have one too."""
    if os.path.exists(source):  # noqa: PTH110 - for which no name is too long
        return None
    places = (index for index, char in enumerate(source) if char == "+")
    parts = ((source[:index], source[index + 1 :]) for index in places)
    return next((pair for pair in parts if all(map(_may_be_source, pair))), None)


def _may_be_source(name: str) -> bool:
    return name == BUILTIN or is_hub_id(name) or (name != "" and os.path.exists(name))  # noqa: PTH110 - the same
