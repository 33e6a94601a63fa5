"""Which script a piece of a vocabulary is written in, by Unicode's own property of its letters.

A language can't be told from a piece: "die" is English and German. A script can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Regex, normalizers

SCRIPTS = (
    "arabic",
    "armenian",
    "bengali",
    "bopomofo",
    "cherokee",
    "cyrillic",
    "devanagari",
    "ethiopic",
    "georgian",
    "greek",
    "gujarati",
    "gurmukhi",
    "han",
    "hangul",
    "hebrew",
    "hiragana",
    "kannada",
    "katakana",
    "khmer",
    "lao",
    "latin",
    "malayalam",
    "mongolian",
    "myanmar",
    "oriya",
    "sinhala",
    "syriac",
    "tamil",
    "telugu",
    "thaana",
    "thai",
    "tibetan",
)
"""Of those that vocabularies have words in; Japanese is han, hiragana and katakana."""


def written_in(scripts: Sequence[str]) -> Callable[[str], bool]:
    """A test whether a text has letters of these scripts alone; digits, marks and signs belong to all."""
    names = "".join(rf"\p{{{name.title()}}}" for name in ("common", "inherited", *scripts))
    without = normalizers.Replace(Regex(f"[{names}]"), "")
    return lambda text: not without.normalize_str(text)


def scripts_of(text: str) -> list[str]:
    """The scripts of `SCRIPTS` that a text has letters of."""
    return [
        name for name in SCRIPTS if normalizers.Replace(Regex(rf"\p{{{name.title()}}}"), "").normalize_str(text) != text
    ]
