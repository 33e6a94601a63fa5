"""The words that are kept encode as before, and those that are lost are named; vocabularies of each family's kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.errors import ConfigError, DataError
from edgeclip.runtime.lost_words import LostWords
from edgeclip.shrink.importance import Calibration
from edgeclip.shrink.keep_words import keep_words, read_words
from edgeclip.shrink.plan import propose
from edgeclip.shrink.scripts import SCRIPTS, scripts_of, written_in
from edgeclip.shrink.student import shrink
from edgeclip.shrink.trim_vocabulary import trim_vocabulary
from edgeclip.text_cleaning import cleaned
from edgeclip.tokenizer import ClipTokenizer
from tests import published

WRITE = {
    "siglip": published.write_siglip,
    "siglip 2": published.write_siglip2,
    "metaclip 2": published.write_metaclip2,
    "chinese clip": published.write_chinese_clip,
    "xlm-roberta": published.write_dual_encoder,
}
KEPT = ["a photo of a cat on the table", "кошка лежит на столе", "zwei Hunde, ß!", "", "<eos> </s>"]


@pytest.fixture(scope="module", params=[*WRITE, "clip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    if request.param == "clip":
        return load_checkpoint("builtin:tabletop")
    return load_checkpoint(WRITE[request.param](tmp_path_factory.mktemp("family") / "checkpoint"))


def lost_by_comparison(old: ClipTokenizer, new: ClipTokenizer, text: str) -> bool:
    """Whether the two encode a text differently: with the tokenizers themselves."""
    tokens = [t._whole.encode(cleaned(text, t.clean)).tokens for t in (old, new)]
    return tokens[0] != tokens[1]


def test_kept_texts_have_the_same_tokens_and_the_same_embeddings_to_the_bit(checkpoint: Checkpoint):
    small = keep_words(checkpoint, KEPT)
    assert small.config.text.vocab_size == small.tokenizer.vocab_size < checkpoint.tokenizer.vocab_size
    names = {index: token for token, index in small.tokenizer.vocab.items()}
    before, after = checkpoint.tokenizer(KEPT), small.tokenizer(KEPT)
    vocab = checkpoint.tokenizer.vocab
    assert [[vocab[names[index]] for index in row] for row in after.tolist()] == before.tolist()
    np.testing.assert_array_equal(small.encode_text(KEPT), checkpoint.encode_text(KEPT))
    shared = [model.vision.patch_embedding.weight.data_ptr() for model in (small.model, checkpoint.model)]
    assert shared[0] == shared[1]


def test_a_text_is_said_to_be_changed_exactly_where_it_is(checkpoint: Checkpoint):
    small = keep_words(checkpoint, KEPT)
    assert small.lost_words is not None
    words = sorted({word for text in published.HARD for word in text.split()})
    told = {word: bool(small.lost_words.of(word)) for word in words}
    changed = {w: lost_by_comparison(checkpoint.tokenizer, small.tokenizer, w) for w in words}
    assert told == changed
    assert 10 < sum(told.values()) < len(words)
    assert not any(small.lost_words.of(text) for text in KEPT)


def test_lost_words_are_named_in_their_text(tmp_path: Path):
    checkpoint = load_checkpoint(published.write_siglip2(tmp_path / "checkpoint"))
    small = keep_words(checkpoint, KEPT)
    assert small.lost_words is not None
    assert small.lost_words.of("a photo of a chat très mignon on the table") == ["chat", "très", "mignon"]


@pytest.mark.parametrize("family", WRITE)
def test_whole_scripts_are_kept(family: str, tmp_path: Path):
    checkpoint = load_checkpoint(WRITE[family](tmp_path / "checkpoint"))
    small = keep_words(checkpoint, [], ["cyrillic", "hebrew"])
    assert small.lost_words is not None
    assert not small.lost_words.of("кошка лежит на столе")
    assert not small.lost_words.of("חתול על השולחן")
    assert small.lost_words.of("ein Hund läuft")
    assert small.lost_words.kept.scripts == ["cyrillic", "hebrew"]


def test_a_merge_that_crosses_no_token_is_not_needed():
    """abcd is merged from ab and cd; bc, which could make it too, is left out, and still nothing changes."""
    merges = [("a", "b"), ("c", "d"), ("b", "c"), ("ab", "cd"), ("a", "bc"), ("abc", "d")]
    tokens = ["<eos>", *"abcd", "ab", "cd", "bc", "abcd", "abc"]
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    old = ClipTokenizer(tokenizer, context_length=8, eos_token="<eos>", pad_token="<eos>")
    small = trim_vocabulary(old, ["abcd"])
    assert sorted(small.tokenizer.vocab) == sorted(["<eos>", *"abcd", "ab", "cd", "abcd"])
    assert small.tokenizer.merges == [("a", "b"), ("c", "d"), ("ab", "cd")]
    lost = LostWords(None, small.tokenizer, small.with_lost)  # type: ignore[arg-type]
    assert lost.of("abcd bcb abb dbc") == ["bcb", "dbc"]


def test_the_least_score_is_kept_so_that_unknown_letters_cost_the_same():
    """ "xyz" as one piece costs 12; with the least score gone, x, y and z unknown would cost less than it."""
    pieces = [("<unk>", 0.0), ("a", -1.0), ("xyz", -12.0), ("q", -30.0)]
    old = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer = ClipTokenizer(old, context_length=8, eos_token="a", pad_token="a")
    small = trim_vocabulary(tokenizer, ["axyz"])
    assert small.tokenizer.vocab == {"<unk>": 0, "a": 1, "xyz": 2, "q": 3}
    assert small.tokenizer.token_ids(["axyz"]) == [[1, 2]]


def test_word_pieces_fall_back_to_letters():
    pieces = ["[UNK]", "[SEP]", "a", "b", "##a", "##b", "##ab", "ab", "aba"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    old = ClipTokenizer(tokenizer, context_length=8, eos_token="[SEP]", pad_token="[SEP]")
    small = trim_vocabulary(old, ["ab"])
    assert list(small.tokenizer.vocab) != pieces
    assert small.tokenizer.vocab.keys() == {"[UNK]", "[SEP]", "a", "b", "##a", "##b", "ab"}
    assert small.tokenizer._whole.encode("aba").tokens == ["ab", "##a"]
    assert LostWords(None, small.tokenizer, small.with_lost).of("ab aba bb") == ["aba"]  # type: ignore[arg-type]


def test_what_comes_after_the_models_own_words_keeps_its_place():
    """As <mask> does in XLM-RoBERTa's, an added token has an id that the model has no word for."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("ab", -1.5), ("b", -2.0)], unk_id=0))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens(["<mask>"])
    old = ClipTokenizer(tokenizer, context_length=8, eos_token="a", pad_token="a")
    small = trim_vocabulary(old, ["a <mask>"])
    assert small.kept_tokens.tolist() == [0, 1, 3, 4]
    assert small.tokenizer.vocab["<mask>"] == 3
    assert LostWords(None, small.tokenizer, small.with_lost).of("AB a <mask>") == ["AB"]  # type: ignore[arg-type]


def test_scripts_are_unicodes():
    assert scripts_of("Straße кот 3!") == ["cyrillic", "latin"]
    assert written_in(["han", "hiragana"])("猫が 2")
    assert not written_in(["han"])("猫が")
    assert len(SCRIPTS) == len(set(SCRIPTS))
    assert all(scripts_of(name) == ["latin"] for name in SCRIPTS)


def test_texts_and_scripts_are_told_apart(tmp_path: Path):
    lines, table, tokens = tmp_path / "lines.txt", tmp_path / "captions.txt", tmp_path / "flickr.txt"
    lines.write_text("a dog, running\n\ncaption\na dog, running\n", encoding="utf-16")
    table.write_text('image,caption\n1.jpg,"a cat, asleep"\n')
    tokens.write_text("1.jpg#0\ta red ball\n")
    (tmp_path / "c.csv").write_text("image,caption\n1.jpg,two boxes\n")
    given = [str(lines), "Latin", str(table), "han", str(tokens), str(tmp_path / "c.csv"), "latin"]
    texts, scripts = read_words(given)
    assert texts == ["a dog, running", "caption", "a cat, asleep", "a red ball", "two boxes"]
    assert scripts == ["latin", "han"]


@pytest.mark.parametrize("given", ["german", "no/such/file.txt", "builtin:tabletop", "", "\0"])
def test_what_is_neither_is_refused_with_the_scripts(given: str):
    with pytest.raises(ConfigError, match=r"one of the scripts arabic, .*latin for German"):
        read_words([given])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "without a text; expected one a line"),
        ("\n \n", "without a text"),
        ("a" * 1_000_001, "of 1,000,001"),
    ],
)
def test_a_file_without_texts_or_with_a_book_is_refused(tmp_path: Path, content: str, expected: str):
    (tmp_path / "words.txt").write_text(content)
    with pytest.raises(ConfigError, match=expected):
        read_words([str(tmp_path / "words.txt")])


def test_a_folder_without_captions_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="empty folder"):
        read_words([str(tmp_path)])


def test_a_saved_definition_gives_the_same(checkpoint: Checkpoint, tmp_path: Path):
    small = keep_words(checkpoint, KEPT)
    small.tokenizer.save(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    saved.no_truncation()
    for text in [*KEPT, *published.HARD]:
        if small.tokenizer.clean == "none":
            assert saved.encode(text).ids == small.tokenizer._whole.encode(text).ids
    raw = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in raw["added_tokens"]}
    assert ids == {token: saved.token_to_id(token) for token in ids}


@pytest.mark.parametrize("family", WRITE)
def test_a_student_of_any_family_can_keep_the_captions_words_alone(family: str, tmp_path: Path):
    checkpoint = load_checkpoint(WRITE[family](tmp_path / "checkpoint"))
    small = trim_vocabulary(checkpoint.tokenizer, KEPT)
    plan = propose(checkpoint.config, 1.0, vocab_size=len(small.kept_tokens))
    seen = Calibration(torch.randn(2, 3, 32, 32), checkpoint.tokenize(KEPT[:2]))
    student = shrink(checkpoint.model, plan, seen, kept_tokens=small.kept_tokens)
    ids = torch.from_numpy(small.tokenizer(KEPT))
    expected = checkpoint.model.encode_text(checkpoint.tokenize(KEPT))
    torch.testing.assert_close(student.encode_text(ids), expected, atol=1e-6, rtol=0)
