"""BERT's tokenizer from its vocab.txt, for checkpoints without a tokenizer.json.

Source: google-research/bert, tokenization.py (Devlin et al. 2018).
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeclip.errors import TokenizerError

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


def end_in_padding(tokenizer: Tokenizer) -> dict[str, str]:
    """Put padding in place of `[SEP]` at the end of texts; the end of text and padding that there are then.

    Source: mlfoundations/open_clip 3.3.0, open_clip/tokenizer.py, `strip_sep_token`, which writes a 0 there.

    Raises:
        TokenizerError: it is not BERT's, or its padding is not token 0.
    """
    first, padding = (tokenizer.token_to_id(token) for token in ("[CLS]", "[PAD]"))
    if first is None or padding != 0:
        raise TokenizerError(
            f"a vocabulary of {tokenizer.get_vocab_size()} tokens without [CLS], or without [PAD] as token 0",
            expected="BERT's uncased vocabulary",
            fix="copy tokenizer.json from the page of bert-base-uncased",
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [PAD]", special_tokens=[("[CLS]", first), ("[PAD]", padding)]
    )
    return {"eos_token": "[PAD]", "pad_token": "[PAD]"}
