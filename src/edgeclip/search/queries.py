"""What is searched for, from words, pictures and their weights to one vector.

Shape legend: E embedding size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.listing import image_suffixes
from edgeclip.errors import ConfigError, InputError
from edgeclip.files import printable
from edgeclip.image import ImageSource
from edgeclip.inputs import check_item, items_of
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.given_images import KINDS

PARTS = "a text, a picture, or pairs of a weight and one of these"

WEIGHT = re.compile(r"(\d+(?:\.\d+)?):(.+)", re.DOTALL)
OPERATOR = re.compile(r"(?<=\s)([+-])(?=\s)")
MAX_LETTERS = 10_000
NOUN_WORDS = 3
TEMPLATES = ("{}", "a photo of a {}", "a picture of the {}", "a close-up photo of a {}")
"""Of CLIP's 80 for ImageNet (Radford et al. 2021, 3.1.4), which agree with pictures' captions more than a bare noun."""
DETERMINERS = {
    "a",
    "an",
    "the",
    "my",
    "our",
    "his",
    "her",
    "their",
    "some",
    "one",
    "two",
    "three",
    "four",
    "five",
    "no",
}
PREPOSITIONS = {"in", "on", "at", "under", "with", "without", "of", "and", "or", "is", "are", "by", "from", "to"}
NO_NOUN = DETERMINERS | PREPOSITIONS | {"photo", "picture", "people", "someone"}
"""Words that make a phrase of what they are in; templates don't fit those."""


class Term(msgspec.Struct, frozen=True):
    """A part of a query.

    Attributes:
        weight: negative ones take away.
        what: a text, or a picture's source.
        embeds: its unit vector (E,), where that is known already.
    """

    weight: float
    what: Any
    embeds: NDArray[np.float32] | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is words."""
        return isinstance(self.what, str)


Query: TypeAlias = ImageSource | Iterable[Term | tuple[float, ImageSource]]
"""A text (`str`); a picture (`Path`, encoded bytes, a Pillow image, an array); or several of both with weights."""


def terms_of(query: Query) -> list[Term]:
    """The parts of what a caller gave.

    Raises:
        InputError: it is, or holds, something else.
        ConfigError: an empty text, or one of more than `MAX_LETTERS`, or a weight that is no finite number.
    """
    terms = []
    for item in [Term(1.0, query)] if isinstance(query, KINDS) else items_of(query, (Term,), "`query`", PARTS):
        if isinstance(item, Term):
            terms.append(item)
            continue
        if not (isinstance(item, Sequence) and len(item) == 2 and isinstance(item[0], int | float)):
            raise InputError(
                f"`query` with {item!r}", expected="pairs of a weight and a text or picture", fix="use [(1.0, 'a dog')]"
            )
        check_item(item[1], KINDS, len(terms), "`query`", "a text or a picture")
        terms.append(Term(float(item[0]), item[1]))
    for term in terms:
        _check(term)
    if not terms:
        raise ConfigError("an empty `query`", expected="a text or a picture", fix="add one")
    return terms


def _check(term: Term) -> None:
    if not np.isfinite(term.weight) or term.weight == 0:
        raise ConfigError(f"the weight {term.weight} in `query`", expected="a number other than 0", fix="use 1")
    if term.is_text and not term.what.strip():
        raise ConfigError("an empty text in `query`", expected="words", fix="say what to search for")
    if term.is_text and len(term.what) > MAX_LETTERS:
        raise ConfigError(
            f"a `query` of {len(term.what)} letters", expected=f"at most {MAX_LETTERS}", fix="shorten it to a sentence"
        )


def parse(words: Sequence[str], without: Sequence[str] = ()) -> list[Term]:
    """The query of a command line: `horse + stripes`, `apple - fruit`, `"2:golden retriever" + ./pool.jpg`.

    Words without an operator between them are one text. A part is a picture where a file is called so and its suffix is
    a picture's, or where it begins as a path does.

    Args:
        words: arguments; one may hold all.
        without: more that is taken away.

    Raises:
        ConfigError: an operator without a part, a path at which there is nothing, or as for `terms_of`.
    """
    signs, parts = [1.0], [[]]  # type: tuple[list[float], list[list[str]]]
    for piece in _pieces(words):
        if piece in ("+", "-"):
            signs.append(1.0 if piece == "+" else -1.0)
            parts.append([])
        else:
            parts[-1].append(piece)
    if not parts[0] and (len(parts) > 1 or not words):  # such as "- fruit", which takes away alone
        del parts[0], signs[0]
    terms = [_term(" ".join(part), sign) for part, sign in zip(parts, signs, strict=True)]
    terms += [_term(text, -1.0) for text in without]
    for term in terms:
        _check(term)
    return terms


def _pieces(words: Sequence[str]) -> list[str]:
    pieces: list[str] = []
    for word in words:
        pieces += [word] if word in ("+", "-") or _is_picture(word) else OPERATOR.split(f" {word} ")
    return [piece.strip() if piece not in words else piece for piece in pieces if piece.strip()]


def _is_picture(part: str) -> bool:
    return os.path.splitext(part)[1].lower() in image_suffixes() and os.path.isfile(part)  # noqa: PTH113, PTH122


def _term(part: str, sign: float) -> Term:
    if not part:
        raise ConfigError(
            "`query` with + or - and nothing beside it", expected="words or a picture", fix='write "horse + stripes"'
        )
    weight = WEIGHT.fullmatch(part) if not _is_picture(part) else None
    if weight:
        sign, part = sign * float(weight[1]), weight[2].strip()
    path = os.path.expanduser(part)  # noqa: PTH111
    if _is_picture(path) or part.startswith(("./", "../", "/", "~/")):
        if not os.path.isfile(path):  # noqa: PTH113
            raise ConfigError(
                f"no picture at {printable(part)}", expected="a file", fix="give its path, or words that are no path"
            )
        return Term(sign, Path(path))
    return Term(sign, part)


def is_noun(text: str) -> bool:
    """Whether a text is a short noun, such as "golden retriever", and no sentence."""
    words = text.lower().split()
    return 0 < len(words) <= NOUN_WORDS and not NO_NOUN & set(words) and all(word.isalpha() for word in words)


def embed(clip: ClipRuntime, terms: Sequence[Term], *, raw_prompt: bool) -> list[NDArray[np.float32]]:
    """The unit vector (E,) of each part.

    Raises:
        ImageError: a picture can't be decoded.
        BundleError: a graph can't be opened.
    """
    return [_embed(clip, term, raw_prompt) if term.embeds is None else term.embeds for term in terms]


def _embed(clip: ClipRuntime, term: Term, raw_prompt: bool) -> NDArray[np.float32]:
    return _embed_text(clip, term.what, raw_prompt) if term.is_text else clip.encode_image(term.what)[0]


def _embed_text(clip: ClipRuntime, text: str, raw_prompt: bool) -> NDArray[np.float32]:
    templates = TEMPLATES if is_noun(text) and not raw_prompt else ("{}",)
    return unit(clip.encode_text([template.replace("{}", text) for template in templates]).mean(0))


def unit(vector_E: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector at length 1.

    Raises:
        ConfigError: it has none.
    """
    length = float(np.linalg.norm(vector_E))
    if length < SMALLEST:
        raise ConfigError("a `query` whose parts cancel out", expected="different parts", fix="leave one out")
    return (vector_E / length).astype(np.float32)


SMALLEST = 1e-4
