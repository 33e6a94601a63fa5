"""Learn a small byte-pair vocabulary from captions, in CLIP's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from edgeclip.tokenizer import ClipTokenizer, build_tokenizer, split_as_clip, vocabulary

END = "</w>"
"""What the last letter of a word has."""


def learn_vocabulary(
    captions: Iterable[str], vocab_size: int, context_length: int, *, fixed_length: bool = False
) -> ClipTokenizer:
    """Train byte-pair merges until the vocabulary has at most `vocab_size` tokens; `fixed_length` as `ClipTokenizer`.

    CLIP's numbering is kept (bytes, bytes at the end of a word, merges, special tokens last), so that the end-of-text
    token has the highest id and every CLIP implementation can read the result. The same captions give the same merges
    in every process.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END))
    split_as_clip(tokenizer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        end_of_word_suffix=END,
        initial_alphabet=alphabet,
        # Numbered as they are met, which is another order in each process, they would decide among equal counts.
        special_tokens=[f"{letter}{END}" for letter in alphabet],
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    learned = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    room = vocab_size - 2 * 256 - 2
    merges = [(left, right) for left, right in learned][:room]
    tokenizer = build_tokenizer(vocabulary(merges), merges)
    return ClipTokenizer(tokenizer, context_length=context_length, fixed_length=fixed_length)
