"""Text to token ids, without torch: CLIP's byte-level BPE from any of the layouts that checkpoints come in, and other
vocabularies as their tokenizer.json has them.

Shape legend: B texts, T tokens.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeclip.config import TextCleaning
from edgeclip.errors import EdgeclipError, TokenizerError
from edgeclip.inputs import texts_of
from edgeclip.text_cleaning import BOS, EOS, cleaned, normalizer, special_names

SHORTENED = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
WORDS = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLEANING = "text_cleaning"
"""The key of tokenizer_config.json that says what is done to a text first; without it nothing is."""


class ClipTokenizer:
    """Token ids framed as the vocabulary's model has it, with the end of text at least, cut to the context length."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        context_length: int,
        eos_token: str = EOS,
        pad_token: str | int = EOS,
        clean: TextCleaning = "none",
        fixed_length: bool = False,
        padding_left: bool = False,
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`; `pad_token` is a token or an id, `clean` what is done to texts first.

        `fixed_length` is for models that were trained on texts padded to the context length, and see the padding.

        Raises:
            TokenizerError: the vocabulary lacks the end-of-text or padding token.
        """
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.clean = clean
        self._has_special = all(tokenizer.token_to_id(token) is not None for token in (BOS, EOS))
        self.fixed_length, self._padding_left = fixed_length, padding_left
        self.eos_token_id = self._id_of(eos_token)
        self.pad_token_id = pad_token if isinstance(pad_token, int) else self._id_of(pad_token)
        tokenizer.no_padding()
        tokenizer.enable_truncation(context_length)

    def _cleaned(self, text: str) -> str:
        return cleaned(text, self.clean, has_special=self._has_special)

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
    def kind(self) -> str:
        """How words are divided into tokens: BPE, Unigram, WordPiece or WordLevel."""
        return type(self._tokenizer.model).__name__

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

    @property
    def definition(self) -> dict[str, Any]:
        """What tokenizer.json says, but for what is done to texts first and for cutting them."""
        return json.loads(self._tokenizer.to_str()) | {"truncation": None}

    def redefined(self, definition: dict[str, Any]) -> ClipTokenizer:
        """The same with other ids or words; the end of text and padding are found by their names.

        Raises:
            TokenizerError: it lacks them.
        """
        names = {index: token for token, index in self.vocab.items()}
        with library_errors("a definition of a tokenizer"):
            return ClipTokenizer(
                Tokenizer.from_str(json.dumps(definition)),
                context_length=self.context_length,
                eos_token=names[self.eos_token_id],
                pad_token=names[self.pad_token_id],
                clean=self.clean,
                fixed_length=self.fixed_length,
                padding_left=self._padding_left,
            )

    def ids_of_words(self, text: str) -> Iterator[tuple[str, int]]:
        """Each word of the text as it is cleaned, once for each token that it has a part in, none cut off."""
        whole = self._cleaned(text)
        encoding = self._whole.encode(whole)
        places = list(zip(encoding.ids, encoding.offsets, strict=True))
        for word in re.finditer(r"\S+", whole):
            for index, (start, end) in places:
                if start < word.end() and word.start() < end:
                    yield word[0], index

    @cached_property
    def _whole(self) -> Tokenizer:
        """The same without cutting."""
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        whole.no_truncation()
        return whole

    def used_tokens(self, texts: Sequence[str]) -> set[int]:
        """Ids of all tokens in the texts, those beyond the context length too."""
        return {index for text in texts for index in self._whole.encode(self._cleaned(text)).ids}

    def __call__(self, texts: str | Iterable[str], *, pad_to_longest: bool = False) -> NDArray[np.int64]:
        """Encode texts.

        Args:
            texts: one, or any iterable of them; unpaired surrogates are replaced.
            pad_to_longest: pad to the longest text of the batch instead of the context length, unless `fixed_length`.

        Returns:
            (B, T) int64, T = context_length or the longest text; one text is a row too.

        Raises:
            InputError: something else than texts.
        """
        ids = self.token_ids(texts)
        return self.padded(ids) if pad_to_longest else self.padded(ids, self.context_length)

    def token_ids(self, texts: str | Iterable[str]) -> list[list[int]]:
        """Encode texts without padding; see `__call__`."""
        clean = [self._cleaned(text) for text in texts_of(texts)]
        with library_errors("a tokenizer that fails on a text"):
            return [encoding.ids for encoding in self._tokenizer.encode_batch(clean)]

    def padded(self, ids: Sequence[Sequence[int]], length: int | None = None) -> NDArray[np.int64]:
        """Token ids of B texts as one array (B, T) int64; T is `length`, or that of the longest, unless it is fixed."""
        if self.fixed_length:
            length = self.context_length
        T = max(map(len, ids), default=0) if length is None else length
        input_ids_BT = np.full((len(ids), T), self.pad_token_id, np.int64)
        for row, text_ids in zip(input_ids_BT, ids, strict=True):
            start = T - len(text_ids) if self._padding_left else 0
            row[start : start + len(text_ids)] = text_ids
        return input_ids_BT

    @property
    def ends_texts(self) -> bool:
        """Whether every text ends in the end-of-text token, however long it is."""
        return all(ids[-1:] == [self.eos_token_id] for ids in self.token_ids(["a", "a " * self.context_length]))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` in the Hugging Face layout.

        What is done to texts first is said in the latter, for us, and as far as it can in the former, for others.
        """
        content = json.loads(self._tokenizer.to_str()) | {"truncation": None}
        if self.clean != "none":
            content["normalizer"] = _sequence(json.loads(normalizer(self.clean).__getstate__()), content["normalizer"])
        compact = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
        is_clip = {BOS, EOS} <= self.vocab.keys()
        config = {
            "tokenizer_class": "CLIPTokenizer" if is_clip else "PreTrainedTokenizerFast",
            "model_max_length": self.context_length,
            **({"bos_token": BOS, "unk_token": EOS} if is_clip else {}),
            "eos_token": self._tokenizer.id_to_token(self.eos_token_id),
            "pad_token": self._tokenizer.id_to_token(self.pad_token_id),
            **({"padding_side": "left"} if self._padding_left else {}),
            **({} if self.clean == "none" else {CLEANING: self.clean}),
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _sequence(*steps: dict[str, Any] | None) -> dict[str, Any]:
    """A normaliser of two, which stay apart so that the second can be found again."""
    return {"type": "Sequence", "normalizers": [step or _sequence() for step in steps]}


def build_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]], clean: TextCleaning = "none") -> Tokenizer:
    """CLIP's pipeline around a vocabulary: `split_as_clip`, byte-level BPE with "</w>", start and end of text.

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
    with library_errors(f"a vocabulary of {len(vocab)} tokens and {len(merges)} merges"):
        model = models.BPE(
            vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=EOS
        )
    tokenizer = Tokenizer(model)
    split_as_clip(tokenizer, clean)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([BOS, EOS])
    return tokenizer


def split_as_clip(tokenizer: Tokenizer, clean: TextCleaning = "none") -> None:
    """Give a tokenizer CLIP's division of a text into words and bytes.

    For texts that are cleaned first it is that of OpenAI's code; else Hugging Face's, which makes texts NFC, any white
    space one space and letters small, and divides words once more as GPT-2 does.
    """
    if clean == "none":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        apart = [word.replace("|", r"\|") for word in (BOS, EOS, *SHORTENED)]
    else:
        tokenizer.normalizer = normalizers.Sequence([])
        apart = [_in_any_case(word) for word in (*special_names(clean), *SHORTENED)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join([*apart, WORDS])), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=clean == "none"),
        ]
    )


def _in_any_case(word: str) -> str:
    """A pattern of a word in small or capital letters, which all clients' regular expressions read alike."""
    classes = {char: f"[{char}{char.upper()}]" for char in string.ascii_lowercase}
    classes |= {"|": r"\|", "s": "[sS\u017f]"}  # the long s, whose capital is S too
    return "".join(classes.get(char, char) for char in word)


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's numbering: 256 bytes, the same at the end of a word, one token a merge, the two special tokens."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(char + "</w>" for char in alphabet), *(left + right for left, right in merges), BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}


def _byte_alphabet() -> list[str]:
    """One printable character for each byte, printable bytes first, in the order that GPT-2 and CLIP number them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


@contextmanager
def library_errors(source: str) -> Iterator[None]:
    """Whatever a malformed file makes of `tokenizers`, Rust's panics included, is one kind of error."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, EdgeclipError)
        if known or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        raise TokenizerError(f"{source} ({error})", expected="a CLIP tokenizer", fix="download it again") from error
