"""BERT's tokenizer from its vocab.txt, for checkpoints without a tokenizer.json.

Source: google-research/bert, tokenization.py (Devlin et al. 2018).
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

VOCABULARY = "vocab.txt"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece(vocabulary: str, config: dict[str, Any]) -> Tokenizer:
    """A vocabulary of one token a line with BERT's division into words and pieces.

    Args:
        vocabulary: the content of vocab.txt.
        config: the content of tokenizer_config.json, for `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`.

    Raises:
        ValueError: it has not BERT's special tokens.
    """
    lines = vocabulary.removesuffix("\n").split("\n")
    vocab = {token.removesuffix("\r"): index for index, token in enumerate(lines)}
    if absent := [token for token in SPECIAL if token not in vocab]:
        raise ValueError(f"without {', '.join(absent)}")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
