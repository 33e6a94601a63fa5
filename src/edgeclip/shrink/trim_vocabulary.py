"""A smaller vocabulary: without the tokens that the captions at hand never need, every caption keeps its encoding.

Byte-pair encoding applies the earliest merge that fits until none does. Every merge that is applied to a word makes a
part of one of the word's final tokens; so if a word's tokens are kept, the merges that make them and, through and
through, the merges that make their parts, then at each step the earliest of all merges is still there, none comes
before it, and the word is divided as before. The same holds for any text whose tokens are all kept. Other text is
divided into smaller parts, down to bytes, which are all kept.

Shape legend: V tokens kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclip.errors import TokenizerError
from edgeclip.text_cleaning import BOS, EOS
from edgeclip.tokenizer import ClipTokenizer, build_tokenizer, vocabulary

CHUNK = 4096


@dataclass(frozen=True)
class TrimmedVocabulary:
    """A reduced tokenizer; `kept_tokens` (V,) int64 holds the teacher's id of each of its tokens."""

    tokenizer: ClipTokenizer
    kept_tokens: NDArray[np.int64]


def trim_vocabulary(tokenizer: ClipTokenizer, captions: Sequence[str]) -> TrimmedVocabulary:
    """Keep the tokens of these captions (or single words), all bytes and the special tokens; end of text comes last.

    Tokens stay in the teacher's order. What the student will be asked later, label prompts above all, belongs among
    the captions.

    Raises:
        TokenizerError: not a byte-level vocabulary with CLIP's special tokens and division of text.
    """
    vocab, merges = tokenizer.vocab, tokenizer.merges
    needed = set(vocabulary([]))
    if not needed <= set(vocab) or tokenizer.eos_token_id != vocab[EOS]:
        raise TokenizerError(
            "a vocabulary without all bytes and CLIP's special tokens",
            expected="CLIP's byte-level vocabulary",
            fix='set vocabulary = "whole"',
        )
    names = {index: token for token, index in vocab.items()}
    needed |= {names[index] for index in tokenizer.used_tokens(captions)} | {names[tokenizer.pad_token_id]}
    needed = _with_parts(needed, merges)
    kept = [*sorted(needed - {BOS, EOS}, key=vocab.__getitem__), BOS, EOS]
    new_ids = {token: index for index, token in enumerate(kept)}
    small = ClipTokenizer(
        build_tokenizer(new_ids, [(left, right) for left, right in merges if left + right in needed], tokenizer.clean),
        context_length=tokenizer.context_length,
        clean=tokenizer.clean,
        pad_token=new_ids[names[tokenizer.pad_token_id]],
    )
    encodes_identically(tokenizer, small, captions)
    return TrimmedVocabulary(small, np.array([vocab[token] for token in kept], np.int64))


def _with_parts(tokens: Iterable[str], merges: list[tuple[str, str]]) -> set[str]:
    """The tokens and, through and through, the parts that merges make them of."""
    parts: dict[str, set[str]] = defaultdict(set)
    for left, right in merges:
        parts[left + right] |= {left, right}
    found: set[str] = set()
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token not in found:
            found.add(token)
            waiting += parts.get(token, ())
    return found


def encodes_identically(old: ClipTokenizer, new: ClipTokenizer, captions: Sequence[str]) -> None:
    """Check that two tokenizers give the same tokens, whatever their numbers, for every caption, padding included.

    Raises:
        TokenizerError: naming the first caption that they encode differently.
    """
    old_ids, new_names = old.vocab, {index: token for token, index in new.vocab.items()}
    for start in range(0, len(captions), CHUNK):
        chunk = captions[start : start + CHUNK]
        before, after = old(chunk), new(chunk)
        # Tokens are equal by name; names are unique in both, so that equal names map the ids one to one.
        ids, places = np.unique(after, return_inverse=True)
        old_of_new = np.array([old_ids.get(new_names.get(i, ""), -1) for i in ids.tolist()], np.int64)
        same = before.shape == after.shape and (old_of_new[places].reshape(after.shape) == before).all(axis=1)
        if not np.all(same):
            raise TokenizerError(
                f"the caption {chunk[int(np.argmin(same))]!r}, which the reduced vocabulary encodes differently",
                expected="the same tokens",
                fix="reduce the vocabulary with this caption among the captions",
            )
