"""OpenAI's tokenizer by its published algorithm, slow and plain: the oracle for ours.

Text is repaired by ftfy, unescaped twice, white space becomes one space, letters small; words are found by a regular
expression that ignores case; a word's bytes are merged, the earliest merge first, at all its places at once.
"""

from __future__ import annotations

import gzip
import html
import string
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex

SPECIAL = {"openai": ("<|startoftext|>", "<|endoftext|>"), "open_clip": ("<start_of_text>", "<end_of_text>")}
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE]
CHARS = [chr(byte) for byte in PRINTABLE] + [chr(256 + n) for n in range(256 - len(PRINTABLE))]
CHAR_OF = dict(zip(BYTES, CHARS, strict=True))


class ReferenceTokenizer:
    def __init__(self, vocabulary: Path, clean: str):
        lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")
        merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        self.clean = clean
        self.special = SPECIAL["openai" if clean == "openai" else "open_clip"]
        tokens = [*CHARS, *(char + "</w>" for char in CHARS), *(a + b for a, b in merges), *self.special]
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}
        names = "|".join(map(regex.escape, self.special))
        self.words = regex.compile(
            names + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
        )
        self.pieces = cache(self._pieces)

    def cleaned(self, text: str) -> str:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        if self.clean == "canonicalize":
            text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation)).lower()
            return regex.sub(r"\s+", " ", text).strip()
        text = regex.sub(r"\s+", " ", text).strip()
        return text if self.clean == "whitespace" else text.lower()

    def encode(self, text: str) -> list[int]:
        """Ids without start and end, uncut."""
        return [self.ids[piece] for word in self.words.findall(self.cleaned(text)) for piece in self.pieces(word)]

    def __call__(self, texts: list[str], length: int = 77) -> list[list[int]]:
        start, end = (self.ids[name] for name in self.special)
        cut = [[start, *self.encode(text)[: length - 2], end] for text in texts]
        return [ids + [0] * (length - len(ids)) for ids in cut]

    def _pieces(self, word: str) -> list[str]:
        if word in self.special:
            return [word]
        parts = [CHAR_OF[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            first = min(pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if first not in self.ranks:
                break
            merged: list[str] = []
            at = 0
            while at < len(parts):
                both = tuple(parts[at : at + 2]) == first
                merged.append("".join(first) if both else parts[at])
                at += 2 if both else 1
            parts = merged
        return parts
