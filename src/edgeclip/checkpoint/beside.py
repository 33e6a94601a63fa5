"""What lies beside a checkpoint's weights: how images are prepared, and the tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from edgeclip.config import PreprocessConfig, TextCleaning, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError, EdgeclipError, TokenizerError
from edgeclip.hf_preprocess import find_preprocess, own_preprocess, preprocess_from
from edgeclip.model.anatomy import pooled_index
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_openai_vocabulary, load_tokenizer

logger = logging.getLogger(__name__)

OPENAI_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
SPARE_ROWS = 2048
"""A table of tokens has fewer rows than these beyond its vocabulary; CLIPA's has 1,478."""


def vocabulary_beside(folder: Path) -> Path | None:
    """OpenAI's vocabulary, where it lies in a folder that has no other tokenizer."""
    has_own = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))
    beside = folder / OPENAI_VOCABULARY
    return beside if not has_own and beside.is_file() else None


def tokenizer_origin(folder: Path, vocabulary: Path | None, tokenizer: ClipTokenizer | EdgeclipError) -> str:
    """Which files a tokenizer was made of."""
    if isinstance(tokenizer, EdgeclipError):
        return f"none ({tokenizer.got})"
    if vocabulary is not None:
        return vocabulary.name
    files = {"tokenizer.json": "tokenizer.json", "vocab.json": "vocab.json and merges.txt"}
    return next((said for name, said in files.items() if (folder / name).is_file()), "vocab.txt")


def find_tokenizer(
    folder: Path,
    vocabulary: Path | None,
    text: TextConfig,
    clean: TextCleaning | None,
    name: str,
    pad_token_id: int | None = None,
    *,
    ends_in_padding: bool = False,
) -> ClipTokenizer | EdgeclipError:
    """The tokenizer, or why there is none; `pad_token_id` is what its files may say otherwise, `ends_in_padding` as for
    `load_tokenizer`.
    """
    length, fixed = text.context_length, text.sees_padding
    try:
        if vocabulary is not None:
            tokenizer = load_openai_vocabulary(vocabulary, length, clean=clean or "openai", fixed_length=fixed)
        else:
            tokenizer = load_tokenizer(
                folder,
                length,
                clean=clean,
                fixed_length=fixed,
                pad_token_id=pad_token_id,
                ends_in_padding=ends_in_padding,
            )
    except TokenizerError as error:
        return error
    if not tokenizer.vocab_size <= text.vocab_size < tokenizer.vocab_size + SPARE_ROWS:
        return _of_another(
            f"{name}, whose tokenizer has {tokenizer.vocab_size} tokens", f"{text.vocab_size}, the model's"
        )
    if tokenizer.kind == "WordLevel" or (text.is_siglips and tokenizer.kind == "WordPiece"):
        return _of_another(f"{name} with a tokenizer of the kind {tokenizer.kind}", "BPE or Unigram, as the model's")
    if text.bert is not None and tokenizer.pad_token_id != text.bert.pad_token_id:
        return _of_another(
            f"{name}, whose tokenizer pads with token {tokenizer.pad_token_id}",
            f"token {text.bert.pad_token_id}, which the model does not see",
        )
    input_ids = torch.from_numpy(tokenizer(["a"]))
    ids, pooled = input_ids[0].tolist(), int(pooled_index(input_ids, text))
    if text.pooling == "end" and ids[pooled] != tokenizer.eos_token_id:
        return _of_another(
            f"{name}, which pools token {ids[pooled]} of a text, where its tokenizer ends texts with another",
            f"token {tokenizer.eos_token_id}, the end of text",
        )
    return tokenizer


def _of_another(got: str, expected: str) -> CheckpointError:
    """The reason why a tokenizer is another model's."""
    return CheckpointError(
        got, expected=expected, fix="copy tokenizer.json and tokenizer_config.json from this checkpoint's page"
    )


def prepared(
    name: str, folder: Path, vision: VisionConfig, said: PreprocessConfig | None, origin: str
) -> tuple[PreprocessConfig, str]:
    """How images are prepared, and where that was read: what was `said`, else what lies in the folder, else its own.

    Raises:
        CheckpointError: it is malformed, of a processor that does something else, or gives images of another size.
    """
    if said is not None:
        preprocess = said
    elif (found := find_preprocess(folder)) is not None:
        preprocess, origin = preprocess_from(*found, vision.image_size), found[1].name
    else:
        owner = "SigLIP" if vision.pools_by_attention else "CLIP"
        preprocess, origin = own_preprocess(vision), f"{owner}'s own, for want of any"
        logger.warning("%s does not say how images are prepared: %s's own preprocessing is used", name, owner)
    side, final = vision.image_size, preprocess.crop_size or preprocess.resize_to
    if final != (side, side):
        raise CheckpointError(
            f"{name}, whose preprocessing gives images of {final}",
            expected=f"{side}x{side}, the model's size",
            fix=f"write crop_size {side} into preprocessor_config.json",
        )
    return preprocess, origin
