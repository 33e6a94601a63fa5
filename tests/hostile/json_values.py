"""JSON that was changed at random: other values, other keys, and what parsers don't expect."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD = (
    *(None, True, False, 0, 1, -1, 2, 7, 3.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400),
    *("", "a", "1", "gelu", "../../etc/passwd", "\x00", "é\ud800", "x" * 5000, "clip", "true"),
    *([], {}, [0.5, 0.5, 0.5], [1, 2], ["a"] * 3, [[[]]], {"a": {"b": []}}, [None, None, None]),
)
NESTED = "[" * 100_000
"""Deeper than a parser goes; not JSON, since nothing is closed."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every key or index in a value, with what it is in."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in keys for place in [(value, key), *places(inner)]]


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one to three changes: a value replaced, removed, renamed, or nested in a list."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not (found := places(value)):
            break
        holder, key = rng.choice(found)
        change = rng.choice(["replace", "replace", "replace", "remove", "rename", "nest"])
        if change == "replace":
            holder[key] = rng.choice(ODD)
        elif change == "remove":
            del holder[key]
        elif change == "nest":
            holder[key] = [holder[key]] * rng.choice([1, 3])
        elif isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
    return value


def mutated_text(text: str, rng: random.Random) -> bytes:
    """A JSON text whose content, or whose bytes, were changed."""
    way = rng.random()
    if way < 0.8:
        return json.dumps(mutated(json.loads(text), rng)).encode("utf-8", "surrogatepass")
    data = bytearray(text.encode("utf-8"))
    if way < 0.9:
        for _ in range(rng.choice([1, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
    odd = [b"", b"[]", b"3", b"null", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf" + bytes(data)]
    return rng.choice([*odd, NESTED.encode(), b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
