"""A checkpoint with fewer words: those that given texts need, and those of given scripts. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from edgeclip.checkpoint import Checkpoint
from edgeclip.data.data_settings import DataOptions
from edgeclip.data.folder import CAPTION_COLUMNS, IMAGE_COLUMNS
from edgeclip.data.load_data import load_data
from edgeclip.data.tables import TOKEN
from edgeclip.errors import ConfigError
from edgeclip.manifest import KeptWords
from edgeclip.model import Clip
from edgeclip.runtime.lost_words import LostWords
from edgeclip.runtime.selftest import GOLDEN_TEXT
from edgeclip.search.queries import TEMPLATES
from edgeclip.shrink.scripts import SCRIPTS
from edgeclip.shrink.trim_vocabulary import trim_vocabulary
from edgeclip.text_files import decoded, read_bytes

MAX_LETTERS = 1_000_000
"""Of one text, which takes a hundred bytes a letter while it is divided into tokens."""


def read_words(given: Sequence[str], options: DataOptions | None = None) -> tuple[list[str], list[str]]:
    """The texts and the scripts that are given.

    Args:
        given: scripts of `SCRIPTS`; files with a text a line; captions files and folders, as `load_data` reads them.
        options: how captions files are read.

    Raises:
        ConfigError: neither, a file without a text, or one that is too long.
        DataError: a file that can't be read.
    """
    texts: list[str] = []
    scripts: list[str] = []
    for name in given:
        path = Path(name)
        if name.lower() in SCRIPTS and not path.exists():
            scripts.append(name.lower())
        elif path.is_file() and path.suffix == ".txt" and not _is_table(path):
            lines = [line for line in decoded(read_bytes(path), name).splitlines() if line.strip()]
            if not lines:
                raise ConfigError(f"`keep_words` {name}, without a text", expected="one a line", fix="write some")
            texts += lines
        elif name and path.exists():
            texts += _captions(name, options)
        else:
            raise ConfigError(
                f"`keep_words` {name}",
                expected=f"a file of texts or captions, or one of the scripts {', '.join(SCRIPTS)}",
                fix="give a file with one text a line; for a language its script, such as latin for German",
            )
    if (letters := max(map(len, texts), default=0)) > MAX_LETTERS:
        most = f"at most {MAX_LETTERS:,}"
        raise ConfigError(f"`keep_words` with a text of {letters:,} letters", expected=most, fix="give one a line")
    return list(dict.fromkeys(texts)), list(dict.fromkeys(scripts))


def _is_table(path: Path) -> bool:
    """Whether a .txt is a table of captions: its first line names both columns, or is one of Flickr8k's."""
    first = next(iter(decoded(read_bytes(path), str(path)).splitlines()), "")
    names = {name.strip().strip('"') for mark in "\t|,;" for name in first.split(mark)}
    return bool(TOKEN.match(first) or (names & {*IMAGE_COLUMNS} and names & {*CAPTION_COLUMNS}))


def _captions(source: str, options: DataOptions | None) -> list[str]:
    """All captions, of the parts to train and to evaluate on."""
    parts = [load_data(source, samples=0, seed=0, options=options, training=training) for training in (True, False)]
    return [caption for part in parts for record in part.records for caption in record.captions]


def keep_words(checkpoint: Checkpoint, texts: Sequence[str], scripts: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint with the words of these texts and scripts, of prompts, and what others fall back to.

    The original is left as it is.

    Raises:
        TokenizerError: it has no tokenizer, or one of a kind that can't be reduced.
    """
    old = checkpoint.tokenizer
    small = trim_vocabulary(old, [*texts, GOLDEN_TEXT, *(template.format("") for template in TEMPLATES)], scripts)
    words = KeptWords(tokens=len(small.kept_tokens), of=old.vocab_size, texts=len(texts), scripts=list(scripts))
    return replace(
        checkpoint,
        model=_with_tokens(checkpoint.model, small.kept_tokens.tolist()),
        tokenizer_or_reason=small.tokenizer,
        lost_words=LostWords(words, small.tokenizer, small.with_lost),
    )


def _with_tokens(model: Clip, kept: list[int]) -> Clip:
    """The model with these rows of its token embedding, and all else shared."""
    text = model.config.text
    eos = None if text.eos_token_id is None else kept.index(text.eos_token_id)
    bert = text.bert and msgspec.structs.replace(text.bert, pad_token_id=kept.index(text.bert.pad_token_id))
    config = msgspec.structs.replace(
        model.config, text=msgspec.structs.replace(text, vocab_size=len(kept), eos_token_id=eos, bert=bert)
    )
    name = "text.token_embedding.weight"
    state = model.state_dict()
    with torch.device("meta"):
        small = Clip(config)
    small.load_state_dict(state | {name: state[name][kept]}, assign=True)
    return small.eval()
