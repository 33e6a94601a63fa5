"""The tokenizers of checkpoint folders, and OpenAI's vocabulary file."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any, get_args

import msgspec
from tokenizers import Tokenizer, normalizers

from edgeclip.config import TextCleaning
from edgeclip.errors import TokenizerError
from edgeclip.files import read_whole
from edgeclip.malloc import trim
from edgeclip.text_cleaning import EOS
from edgeclip.tokenizer import CLEANING, ClipTokenizer, build_tokenizer, library_errors, vocabulary
from edgeclip.tokenizer_json import read_tokenizer
from edgeclip.wordpiece import VOCABULARY, end_in_padding, wordpiece

OPENAI_MERGES = 49152 - 256 - 2
MAX_VOCABULARY_BYTES = 16 << 20
"""Of OpenAI's vocabulary, unpacked: five times what it takes."""
PIECES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""What SentencePiece's vocabularies are called."""
LOWERCASED = ("Siglip2Tokenizer",)
"""Classes of transformers that make letters small before what tokenizer.json does."""
CANONICALIZED = ("SiglipTokenizer",)
"""Classes that do what `cleaned(text, "siglip")` does first."""
ENDS = ((EOS, EOS), ("[SEP]", "[PAD]"), ("</s>", "<pad>"))
"""End of text and padding where tokenizer_config.json does not say: CLIP's, BERT's and RoBERTa's."""
PADDING_LEFT = ("GemmaTokenizer", "Siglip2Tokenizer")
"""Classes that put padding before the text, where tokenizer_config.json does not say."""


def load_tokenizer(
    folder: Path,
    context_length: int,
    *,
    clean: TextCleaning | None = None,
    fixed_length: bool = False,
    pad_token_id: int | None = None,
    ends_in_padding: bool = False,
) -> ClipTokenizer:
    """Load the tokenizer of a checkpoint folder: `tokenizer.json`, `vocab.json` with `merges.txt`, or `vocab.txt`.

    Args:
        folder: the folder.
        context_length: of the model.
        clean: what is done to texts first; by default what the folder says, nothing where it doesn't.
        fixed_length: see `ClipTokenizer`.
        pad_token_id: what follows a text; by default what the folder says.
        ends_in_padding: whether BERT's padding stands in place of its `[SEP]`, as CLIPA was trained.

    Raises:
        TokenizerError: there is neither, or a file is malformed.
    """
    config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    recorded, kind = _recorded_cleaning(config, folder), str(config.get("tokenizer_class")).removesuffix("Fast")
    own: TextCleaning = "siglip" if kind in CANONICALIZED else "none"
    cleaning = clean or recorded or own
    tokenizer = _library_tokenizer(folder, config, cleaning, for_others=recorded is not None)
    if kind in LOWERCASED and (folder / "tokenizer.json").is_file():
        rest = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    special: dict[str, Any] = {"clean": cleaning, "fixed_length": fixed_length}
    if fixed_length:  # no other model sees its padding
        side = config.get("padding_side", "left" if kind in PADDING_LEFT else "right")
        special["padding_left"] = side == "left"
    with library_errors(f"the tokenizer of {folder}"):
        special |= _special_tokens(config, tokenizer)
        special |= {} if pad_token_id is None else {"pad_token": pad_token_id}
        special |= end_in_padding(tokenizer) if ends_in_padding else {}
        loaded = ClipTokenizer(tokenizer, context_length=context_length, **special)
        loaded(["a"])
    trim()
    return loaded


def _library_tokenizer(folder: Path, config: dict[str, Any], clean: TextCleaning, *, for_others: bool) -> Tokenizer:
    """The first that a folder has of the files of `load_tokenizer`; for `for_others` see `_parse`."""
    if (folder / "tokenizer.json").is_file():
        return _parse(folder / "tokenizer.json", for_others=for_others)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocab = _read_json(folder / "vocab.json")
        merges = _parse_merges(_read(folder / "merges.txt").decode("utf-8", "replace").splitlines())
        return build_tokenizer(vocab, merges, clean)
    if (folder / VOCABULARY).is_file():
        with library_errors(str(folder / VOCABULARY)):
            return wordpiece(_read(folder / VOCABULARY).decode(), config)
    if pieces := next((name for name in PIECES if (folder / name).is_file()), None):
        raise TokenizerError(
            f"{folder / pieces} without tokenizer.json",
            expected="tokenizer.json, which transformers makes of it",
            fix=f"with transformers, AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})",
        )
    raise TokenizerError(
        f"no tokenizer in {folder}",
        expected="tokenizer.json, vocab.json with merges.txt, or vocab.txt",
        fix="copy them from the checkpoint's page, or give `vocabulary` bpe_simple_vocab_16e6.txt.gz",
    )


def load_openai_vocabulary(
    path: Path, context_length: int, *, clean: TextCleaning = "openai", fixed_length: bool = False
) -> ClipTokenizer:
    """Make CLIP's tokenizer from OpenAI's `bpe_simple_vocab_16e6.txt.gz`; it pads with 0, as their code does.

    Args:
        path: that file.
        context_length: of the model.
        clean: what is done to texts first.
        fixed_length: see `ClipTokenizer`.

    Raises:
        TokenizerError: the file is missing, damaged, or another vocabulary.
    """
    lines = _unpacked(path).split("\n")
    if len(lines) <= OPENAI_MERGES:
        raise TokenizerError(
            f"{path} with {len(lines)} lines", expected=f"at least {OPENAI_MERGES + 1}", fix="download it again"
        )
    merges = _parse_merges(lines[: OPENAI_MERGES + 1])
    tokenizer = build_tokenizer(vocabulary(merges), merges, clean)
    return ClipTokenizer(tokenizer, context_length=context_length, pad_token=0, clean=clean, fixed_length=fixed_length)


def _unpacked(path: Path) -> str:
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(_read(path))).read(MAX_VOCABULARY_BYTES + 1).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"{path} ({error})", expected="bpe_simple_vocab_16e6.txt.gz", fix="download it again"
        ) from error
    if len(content) > MAX_VOCABULARY_BYTES:
        raise TokenizerError(
            f"{path}, which unpacks to more than 16 MB",
            expected="bpe_simple_vocab_16e6.txt.gz",
            fix="download it again",
        )
    return content


def _recorded_cleaning(config: dict[str, Any], folder: Path) -> TextCleaning | None:
    recorded = config.get(CLEANING)
    if recorded is not None and recorded not in get_args(TextCleaning):
        raise TokenizerError(
            f"{folder / 'tokenizer_config.json'} with {CLEANING} {recorded!r}",
            expected=" or ".join(get_args(TextCleaning)),
            fix="update edgeclip",
        )
    return recorded


def _special_tokens(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """The end of text and the padding: as configured, else by the first of `ENDS` that the vocabulary has."""
    ends = next(((end, pad) for end, pad in ENDS if tokenizer.token_to_id(end) is not None), (EOS, EOS))
    own = dict(zip(("eos_token", "pad_token"), ends, strict=True))
    tokens = {key: config.get(key) for key in own}
    # Older files write a token as {"content": ..., "lstrip": ...}.
    plain = {key: token.get("content") if isinstance(token, dict) else token for key, token in tokens.items()}
    return own | {key: token for key, token in plain.items() if isinstance(token, str)}


class _Normalizers(msgspec.Struct):
    normalizers: tuple[msgspec.Raw, msgspec.Raw]


class _Normalized(msgspec.Struct):
    """Of tokenizer.json, whether its normaliser is what `save` has added for other clients and the vocabulary's own."""

    normalizer: _Normalizers


def _parse(path: Path, *, for_others: bool) -> Tokenizer:
    """Read tokenizer.json; `for_others` leaves out what `save` has added to the normaliser for other clients."""
    content = _read(path)
    with library_errors(str(path)):
        tokenizer = read_tokenizer(content)
        if for_others:
            msgspec.json.decode(content, type=_Normalized)
            tokenizer.normalizer = tokenizer.normalizer[1]
    return tokenizer


def _parse_merges(lines: list[str]) -> list[tuple[str, str]]:
    """Merges from lines of two tokens; the first line is a version comment."""
    pairs = [tuple(line.split()) for line in lines[1:] if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        bad = next(pair for pair in pairs if len(pair) != 2)
        raise TokenizerError(f"the merge line {' '.join(bad)!r}", expected="two tokens", fix="download the file again")
    return pairs  # type: ignore[return-value]  # the check above makes them pairs


def _read(path: Path) -> bytes:
    try:
        return read_whole(path)
    except FileNotFoundError as error:
        raise TokenizerError(
            f"no file {path}", expected="a vocabulary file", fix="give the path of bpe_simple_vocab_16e6.txt.gz"
        ) from error
    except OSError as error:
        raise TokenizerError(
            f"{path} ({error.strerror})", expected="a file that can be read", fix=f"chmod +r {path}, or copy it again"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} ({error})", expected="a JSON object", fix="download it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(
            f"{path}, a JSON {type(value).__name__}", expected="a JSON object", fix="download it again"
        )
    return value
