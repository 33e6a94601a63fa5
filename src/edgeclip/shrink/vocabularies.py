"""What the kinds of vocabularies need kept so that a text whose tokens are all kept encodes as before.

Byte-pair encoding ("BPE") applies, of all merges that fit, the earliest, until none fits. Within the letters of a final
token it does so whatever stands around it, since no merge crosses the token's ends: so a token is made of the same
parts in every text, those that it is made of alone. With all of these and their merges kept, and others left out, the
earliest merge at each step is still there and none comes before it.

SentencePiece's unigrams ("Unigram") choose the pieces with the highest sum of scores; without others they are still the
best. What no piece covers is charged the lowest score of all and ten more: the piece with the lowest is kept.

BERT's ("WordPiece") take the longest piece that fits, from left to right: without others it is still the longest.

What a text falls back to: single characters, bytes too where the vocabulary has them; both are kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Merges:
    """A byte-pair vocabulary."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model
        self.tokens: Set[str] = model["vocab"].keys()
        self._suffix: str = model.get("end_of_word_suffix") or ""
        self._merges = [(left, right) for left, right in model["merges"]]

    @cached_property
    def _rank(self) -> dict[tuple[str, str], int]:
        return {pair: place for place, pair in enumerate(self._merges)}

    @cached_property
    def _parts(self) -> dict[str, set[str]]:
        parts: dict[str, set[str]] = defaultdict(set)
        for left, right in self._merges:
            parts[left + right] |= {left, right}
        return parts

    @property
    def characters(self) -> set[str]:
        """Tokens that no merge makes: single letters, or bytes where texts are divided into bytes first."""
        return {token for token in self.tokens if len(self._symbols(token)) == 1}

    def _symbols(self, token: str) -> list[str]:
        """The letters of a token; the last one of a word is another token where the vocabulary says so."""
        letters = list(token.removesuffix(self._suffix))
        if self._suffix and letters and token.endswith(self._suffix):
            letters[-1] += self._suffix
        return letters or [token]

    def closed(self, tokens: Iterable[str]) -> set[str]:
        """The tokens and all that is needed to make them."""
        found: set[str] = set()
        for token in tokens:
            found |= self._made_of(token)
        return found

    def _made_of(self, token: str) -> set[str]:
        symbols = self._symbols(token)
        made = {token, *symbols}
        while len(symbols) > 1:
            ranks = [self._rank.get(pair, len(self._rank)) for pair in pairwise(symbols)]
            at = ranks.index(min(ranks))
            if ranks[at] == len(self._rank):  # no text gives it letter by letter: an added token, or "</w>" inside it
                return {token} | self.closed(part for part in self._parts[token] if len(part) < len(token))
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            made.add(symbols[at])
        return made

    def lost(self, kept: Set[str]) -> set[str]:
        """Tokens left out that a text which needs any of those left out comes by first: letters, and next merges."""
        letters = self.characters - kept
        return letters | {left + right for left, right in self._merges if {left, right} <= kept} - kept

    def model(self, ids: Mapping[str, int], kept: Set[str]) -> dict[str, Any]:
        """The vocabulary of these ids, in the form of tokenizer.json; what is not kept is not merged any further."""
        vocab = {token: index for token, index in ids.items() if token in self.tokens}
        merges = [[left, right] for left, right in self._merges if {left, right} <= kept and left + right in ids]
        return self._model | {"vocab": vocab, "merges": merges}


class Pieces:
    """A vocabulary of SentencePiece's unigrams."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model
        self._scores: dict[str, float] = dict(model["vocab"])
        self.tokens: Set[str] = self._scores.keys()

    @property
    def characters(self) -> set[str]:
        """Pieces of one letter."""
        return {piece for piece in self.tokens if len(piece) == 1}

    def closed(self, tokens: Iterable[str]) -> set[str]:
        """The pieces, that of the lowest score, and the one for what no piece covers."""
        unknown = self._model["vocab"][self._model["unk_id"]][0]
        return {*tokens, min(self._scores, key=self._scores.__getitem__), unknown}

    def lost(self, kept: Set[str]) -> set[str]:
        """All that are left out: any of them could have been the best."""
        return set(self.tokens - kept)

    def model(self, ids: Mapping[str, int], kept: Set[str]) -> dict[str, Any]:
        """The vocabulary of these ids, in the form of tokenizer.json."""
        pieces = sorted(self.tokens & ids.keys(), key=ids.__getitem__)
        unknown = self._model["vocab"][self._model["unk_id"]][0]
        return self._model | {"vocab": [[p, self._scores[p]] for p in pieces], "unk_id": pieces.index(unknown)}


class WordPieces:
    """A vocabulary of BERT's kind."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model
        self.tokens: Set[str] = model["vocab"].keys()

    @property
    def characters(self) -> set[str]:
        """Pieces of one letter, at the beginning of a word and within."""
        prefix = self._model["continuing_subword_prefix"]
        return {piece for piece in self.tokens if len(piece.removeprefix(prefix)) == 1}

    def closed(self, tokens: Iterable[str]) -> set[str]:
        """The pieces, and the one for words that have no pieces."""
        return {*tokens, self._model["unk_token"]}

    def lost(self, kept: Set[str]) -> set[str]:
        """All that are left out: any of them could have been the longest."""
        return set(self.tokens - kept)

    def model(self, ids: Mapping[str, int], kept: Set[str]) -> dict[str, Any]:
        """The vocabulary of these ids, in the form of tokenizer.json."""
        return self._model | {"vocab": {token: index for token, index in ids.items() if token in self.tokens}}


Words: TypeAlias = Merges | Pieces | WordPieces
KINDS: dict[str, type[Words]] = {"BPE": Merges, "Unigram": Pieces, "WordPiece": WordPieces}
"""By `type` in tokenizer.json."""
