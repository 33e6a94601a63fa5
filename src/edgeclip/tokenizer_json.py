"""Read tokenizer.json with a vocabulary of hundreds of thousands of byte pairs in a small memory.

`tokenizers` keeps the whole model as a tree of JSON, more than once, while it reads one: 450 MB for the 256,000 words
and 580,000 merges of Gemma's. Decoded here and handed over as lists they take half of that, and as long.
"""

from __future__ import annotations

import json

import msgspec
from tokenizers import AddedToken, Tokenizer, models

from edgeclip.errors import MALFORMED

EMPTY = {"type": "BPE", "vocab": {}, "merges": []}
"""A model in the place of another."""


class _BytePairs(msgspec.Struct, tag_field="type", tag="BPE", forbid_unknown_fields=True):
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False

    def share_words(self) -> None:
        """Let merges be of the vocabulary's own strings, in place of a million others."""
        own = {token: token for token in self.vocab}
        self.merges = [(own.get(left, left), own.get(right, right)) for left, right in self.merges]


class _Added(msgspec.Struct):
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


def read_tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer that a file's content describes, as `Tokenizer.from_str` gives it.

    That reads it where it is of another kind, or malformed: whatever it raises is raised.
    """
    try:
        parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        added = msgspec.json.decode(parts.pop("added_tokens"), type=list[_Added])
        model = msgspec.json.decode(parts.pop("model"), type=_BytePairs)
        rest = {name: json.loads(bytes(part)) for name, part in parts.items()}
    except (KeyError, *MALFORMED):
        return Tokenizer.from_str(content.decode("utf-8", "replace"))
    tokenizer = Tokenizer.from_str(json.dumps({**rest, "added_tokens": [], "model": EMPTY}))
    model.share_words()
    given = {name: value for name, value in msgspec.structs.asdict(model).items() if value is not None}
    tokenizer.model = models.BPE(**given)
    tokenizer.add_tokens([AddedToken(**msgspec.structs.asdict(token)) for token in added])
    return tokenizer
