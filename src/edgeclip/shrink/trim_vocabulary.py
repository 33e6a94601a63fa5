"""A smaller vocabulary: without the tokens that the texts at hand never need, every text keeps its encoding.

So does any other text whose tokens are all kept; see `shrink.vocabularies`. The rest is divided into smaller parts.

Shape legend: V tokens kept.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers.decoders import ByteLevel

from edgeclip.errors import TokenizerError
from edgeclip.shrink.scripts import scripts_of, written_in
from edgeclip.shrink.vocabularies import BYTE, KINDS, Words
from edgeclip.text_cleaning import BOS, EOS
from edgeclip.tokenizer import ClipTokenizer

CHUNK = 4096


@dataclass(frozen=True)
class TrimmedVocabulary:
    """A reduced tokenizer; `kept_tokens` (V,) int64 holds the teacher's id of each of its tokens.

    `with_lost` is a tokenizer that has the tokens left out too, as many as a text that needs one comes by.
    """

    tokenizer: ClipTokenizer
    kept_tokens: NDArray[np.int64]
    with_lost: ClipTokenizer


def trim_vocabulary(
    tokenizer: ClipTokenizer, captions: Sequence[str], scripts: Collection[str] = ()
) -> TrimmedVocabulary:
    """Keep the tokens of these captions (or single words), those of whole scripts, and what any text falls back to.

    That is single characters: all of them, or where there are bytes to fall back to, those of the scripts at hand.
    Tokens stay in the teacher's order, but that CLIP's end of text comes last. What the student will be asked later,
    label prompts above all, belongs among the captions.

    Args:
        tokenizer: the teacher's.
        captions: texts that must encode as before.
        scripts: of `scripts.SCRIPTS`.

    Raises:
        TokenizerError: a vocabulary of another kind than byte pairs, unigrams and word pieces.
    """
    definition, vocab = tokenizer.definition, tokenizer.vocab
    words = _words_of(definition)
    names = {index: token for token, index in vocab.items()}
    special = {token["content"] for token in definition["added_tokens"]}
    special |= {names[tokenizer.eos_token_id], names[tokenizer.pad_token_id]}
    wanted = words.closed(special | {names[index] for index in tokenizer.used_tokens(captions)})
    wanted |= words.closed(_in_scripts(words, definition, scripts))
    wanted |= _fallback(words, definition, wanted, scripts) & vocab.keys()
    last = [token for token in (BOS, EOS) if token in wanted and {BOS, EOS} <= wanted]
    kept = [*sorted(wanted - {*last}, key=vocab.__getitem__), *last]
    lost = sorted(words.lost(wanted), key=vocab.__getitem__)
    small = tokenizer.redefined(_redefined(definition, words, kept, wanted))
    encodes_identically(tokenizer, small, captions)
    added = [token for token in kept if token not in words.tokens]  # their ids come after the model's own
    whole = [*(token for token in kept if token in words.tokens), *lost, *added]
    return TrimmedVocabulary(
        small,
        np.array([vocab[token] for token in kept], np.int64),
        tokenizer.redefined(_redefined(definition, words, whole, wanted)),
    )


def _words_of(definition: dict[str, Any]) -> Words:
    model = definition["model"]
    kind = KINDS.get(model["type"])
    odd = kind is None or (model["type"] == "BPE" and (model.get("continuing_subword_prefix") or model.get("dropout")))
    if kind is None or odd:
        raise TokenizerError(
            f"a vocabulary of the kind {model['type']}",
            expected=" or ".join(KINDS),
            fix="keep the whole vocabulary",
        )
    return kind(model)


def _in_scripts(words: Words, definition: dict[str, Any], scripts: Collection[str]) -> set[str]:
    if not scripts:
        return set()
    matches = written_in(tuple(scripts))
    return {token for token in words.tokens if (text := _text_of(token, definition)) and matches(text)}


def _fallback(words: Words, definition: dict[str, Any], kept: Set[str], scripts: Collection[str]) -> set[str]:
    if not definition["model"].get("byte_fallback"):
        return words.characters
    matches = written_in(tuple({*scripts, *scripts_of("".join(kept))}))
    return {token for token in words.tokens if BYTE.fullmatch(token)} | set(filter(matches, words.characters))


def _text_of(token: str, definition: dict[str, Any]) -> str:
    """A token as it stands in a text; nothing where it is a part of a letter."""
    if '"ByteLevel"' not in json.dumps(definition["pre_tokenizer"]):
        return token
    text = ByteLevel().decode([token.removesuffix(definition["model"].get("end_of_word_suffix") or "")])
    return "" if "\ufffd" in text else text


def _redefined(definition: dict[str, Any], words: Words, tokens: Sequence[str], kept: Set[str]) -> dict[str, Any]:
    """The content of tokenizer.json for these tokens, numbered in this order."""
    ids = {token: index for index, token in enumerate(tokens)}
    return definition | {
        "model": words.model(ids, kept),
        "added_tokens": [token | {"id": ids[token["content"]]} for token in definition["added_tokens"]],
        "post_processor": _renumbered(definition["post_processor"], ids),
    }


def _renumbered(part: Any, ids: Mapping[str, int]) -> Any:
    """What frames a text, with the new ids of its tokens: of templates, and of BERT's and RoBERTa's."""
    if isinstance(part, list):
        return [_renumbered(item, ids) for item in part]
    if not isinstance(part, dict):
        return part
    if "tokens" in part and "ids" in part:
        return part | {"ids": [ids[token] for token in part["tokens"]]}
    return {
        key: [value[0], ids[value[0]]] if key in ("sep", "cls") else _renumbered(value, ids)
        for key, value in part.items()
    }


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
