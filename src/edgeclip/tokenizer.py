"""Text to token ids, without torch: CLIP's byte-level BPE from any of the layouts that checkpoints come in.

Shape legend: B texts, T tokens.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeclip.errors import TokenizerError
from edgeclip.files import printable

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
OPENAI_MERGES = 49152 - 256 - 2
MAX_FILE_BYTES = 64 << 20


class ClipTokenizer:
    """Token ids framed by start and end of text, cut and padded to the context length."""

    def __init__(
        self, tokenizer: Tokenizer, *, context_length: int, eos_token: str = EOS, pad_token: str | int = EOS
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`; `pad_token` is a token or an id.

        Raises:
            TokenizerError: the vocabulary lacks the end-of-text or padding token.
        """
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.eos_token_id = self._id_of(eos_token)
        self.pad_token_id = pad_token if isinstance(pad_token, int) else self._id_of(pad_token)
        tokenizer.no_padding()
        tokenizer.enable_truncation(context_length)

    def _id_of(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise TokenizerError(
                f"a vocabulary without {token!r}",
                expected="a CLIP vocabulary",
                fix="copy tokenizer.json from the checkpoint's page",
            )
        return token_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self._tokenizer.get_vocab_size()

    @property
    def vocab(self) -> dict[str, int]:
        """Ids by token, special tokens included."""
        return self._tokenizer.get_vocab()

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The byte-pair merges, the earliest first; none where the vocabulary is of another kind."""
        return [(left, right) for left, right in json.loads(self._tokenizer.to_str())["model"].get("merges", [])]

    def used_tokens(self, texts: Sequence[str]) -> set[int]:
        """Ids of all tokens in the texts, those beyond the context length too."""
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        whole.no_truncation()
        return {index for text in texts for index in whole.encode(printable(text)).ids}

    def __call__(self, texts: Sequence[str], *, pad_to_longest: bool = False) -> NDArray[np.int64]:
        """Encode texts.

        Args:
            texts: any strings; unpaired surrogates become "?".
            pad_to_longest: pad to the longest text of the batch instead of the context length.

        Returns:
            (B, T) int64, T = context_length or the longest text.
        """
        ids = self.token_ids(texts)
        return self.padded(ids) if pad_to_longest else self.padded(ids, self.context_length)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts without padding; see `__call__`."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, not one string")
        clean = [printable(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(clean)]

    def padded(self, ids: Sequence[Sequence[int]], length: int | None = None) -> NDArray[np.int64]:
        """Token ids of B texts as one array (B, T) int64; T is `length`, or that of the longest."""
        T = max(map(len, ids), default=0) if length is None else length
        input_ids_BT = np.full((len(ids), T), self.pad_token_id, np.int64)
        for row, text_ids in zip(input_ids_BT, ids, strict=True):
            row[: len(text_ids)] = text_ids
        return input_ids_BT

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` in the Hugging Face layout."""
        self._tokenizer.no_truncation()
        self._tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        self._tokenizer.enable_truncation(self.context_length)
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.context_length,
            "bos_token": BOS,
            "eos_token": self._tokenizer.id_to_token(self.eos_token_id),
            "unk_token": EOS,
            "pad_token": self._tokenizer.id_to_token(self.pad_token_id),
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def build_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's pipeline around a vocabulary: NFC, one space for any white space, lower case, byte-level BPE with "</w>".

    Raises:
        TokenizerError: the vocabulary lacks the special tokens, or a merge names a token that is not in it.
    """
    if not all(isinstance(index, int) and 0 <= index < 2**31 for index in vocab.values()):
        raise TokenizerError(
            "a vocabulary with ids that are no numbers", expected="whole numbers", fix="download it again"
        )
    for token in (BOS, EOS):
        if token not in vocab:
            raise TokenizerError(
                f"a vocabulary of {len(vocab)} tokens without {token!r}",
                expected="CLIP's special tokens",
                fix="copy vocab.json and merges.txt from the checkpoint's page",
            )
    for left, right in merges:
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise TokenizerError(
                f"the merge {left!r} {right!r}",
                expected="merges whose parts are in the vocabulary",
                fix="copy both vocab.json and merges.txt from the checkpoint's page",
            )
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=EOS)
    )
    split_as_clip(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([BOS, EOS])
    return tokenizer


def split_as_clip(tokenizer: Tokenizer) -> None:
    """Give a tokenizer CLIP's normalisation and its division of a text into words and bytes."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's numbering: 256 bytes, the same at the end of a word, one token a merge, the two special tokens."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(char + "</w>" for char in alphabet), *(left + right for left, right in merges), BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}


def _byte_alphabet() -> list[str]:
    """One printable character for each byte, printable bytes first, in the order that GPT-2 and CLIP number them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def load_tokenizer(folder: Path, context_length: int) -> ClipTokenizer:
    """Load the tokenizer of a checkpoint folder: `tokenizer.json`, or `vocab.json` with `merges.txt`.

    Raises:
        TokenizerError: there is neither, or a file is malformed.
    """
    special = _special_tokens(folder)
    if (folder / "tokenizer.json").is_file():
        return ClipTokenizer(_parse(folder / "tokenizer.json"), context_length=context_length, **special)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocab = _read_json(folder / "vocab.json")
        merges = _parse_merges(_read(folder / "merges.txt").decode("utf-8", "replace").splitlines())
        return ClipTokenizer(build_tokenizer(vocab, merges), context_length=context_length, **special)
    raise TokenizerError(
        f"no tokenizer in {folder}",
        expected="tokenizer.json, or vocab.json with merges.txt",
        fix="copy them from the checkpoint's page, or give `vocabulary` bpe_simple_vocab_16e6.txt.gz",
    )


def load_openai_vocabulary(path: Path, context_length: int) -> ClipTokenizer:
    """Make CLIP's tokenizer from OpenAI's `bpe_simple_vocab_16e6.txt.gz`; pads with 0 as their code does.

    Raises:
        TokenizerError: the file is missing, damaged, or another vocabulary.
    """
    try:
        lines = gzip.decompress(_read(path)).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"{path} ({error})", expected="bpe_simple_vocab_16e6.txt.gz", fix="download it again"
        ) from error
    if len(lines) <= OPENAI_MERGES:
        raise TokenizerError(
            f"{path} with {len(lines)} lines", expected=f"at least {OPENAI_MERGES + 1}", fix="download it again"
        )
    merges = _parse_merges(lines[: OPENAI_MERGES + 1])
    return ClipTokenizer(build_tokenizer(vocabulary(merges), merges), context_length=context_length, pad_token=0)


def _special_tokens(folder: Path) -> dict[str, str]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    config = _read_json(path)
    tokens = {key: config.get(key) for key in ("eos_token", "pad_token")}
    # Older files write a token as {"content": ..., "lstrip": ...}.
    plain = {key: token.get("content") if isinstance(token, dict) else token for key, token in tokens.items()}
    return {key: token for key, token in plain.items() if isinstance(token, str)}


def _parse(path: Path) -> Tokenizer:
    text = _read(path).decode("utf-8", "replace")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        raise TokenizerError(f"{path} ({error})", expected="a tokenizers file", fix="download it again") from error


def _parse_merges(lines: list[str]) -> list[tuple[str, str]]:
    """Merges from lines of two tokens; the first line is a version comment."""
    pairs = [tuple(line.split()) for line in lines[1:] if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        bad = next(pair for pair in pairs if len(pair) != 2)
        raise TokenizerError(f"the merge line {' '.join(bad)!r}", expected="two tokens", fix="download the file again")
    return pairs  # type: ignore[return-value]  # the check above makes them pairs


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise TokenizerError(
            f"no file {path}", expected="a vocabulary file", fix="give the path of bpe_simple_vocab_16e6.txt.gz"
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TokenizerError(
            f"{path} of {path.stat().st_size} bytes", expected="at most 64 MB", fix="download it again"
        )
    return path.read_bytes()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise TokenizerError(f"{path} ({error})", expected="a JSON object", fix="download it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(
            f"{path}, a JSON {type(value).__name__}", expected="a JSON object", fix="download it again"
        )
    return value
