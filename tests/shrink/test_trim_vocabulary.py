import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from edgeclip.checkpoint import load_checkpoint
from edgeclip.data.load_data import load_data
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.errors import TokenizerError
from edgeclip.shrink.trim_vocabulary import encodes_identically, trim_vocabulary
from edgeclip.text_cleaning import BOS, EOS, cleaned
from edgeclip.tokenizer import ClipTokenizer, build_tokenizer, vocabulary
from edgeclip.tokenizer_files import load_openai_vocabulary
from tests.conftest import WORDS
from tests.test_tokenizer import odd_strings

RICH = learn_vocabulary([*WORDS * 3, "naïve café 日本語 日本語 🙂🙂 redder balloons", "don't 100 100 ß"], 700, 16)


def hand_made(*merges: tuple[str, str]) -> ClipTokenizer:
    return ClipTokenizer(build_tokenizer(vocabulary(list(merges)), list(merges)), context_length=8)


def assert_same_by_name(old: ClipTokenizer, new: ClipTokenizer, texts: list[str]) -> None:
    """Token by token, from the saved form of both: an oracle beside `encodes_identically`."""
    for text in texts:
        before, after = (t._tokenizer.encode(cleaned(text, t.clean)).tokens for t in (old, new))
        assert before == after, text


def test_tokens_and_merges_that_are_kept_by_hand():
    merges = [("a", "b"), ("c", "d</w>"), ("ab", "cd</w>"), ("ab", "ab"), ("x", "y</w>")]
    old = hand_made(*merges)
    reduced = trim_vocabulary(old, ["abcd"])
    assert reduced.tokenizer.merges == merges[:3]
    assert reduced.kept_tokens.tolist() == [*range(512), 512, 513, 514, 517, 518]
    assert (
        reduced.tokenizer.vocab[EOS] == reduced.tokenizer.eos_token_id == 516 == max(reduced.tokenizer.vocab.values())
    )
    assert reduced.tokenizer(["abcd xy"], pad_to_longest=True).tolist() == [[515, 514, 87, 344, 516]]


def test_a_caption_cut_at_the_context_length_keeps_the_tokens_beyond_it():
    """Without the merge of b and c, whose token is cut off, another merge would come first: (a, b)."""
    old = hand_made(("b", "c</w>"), ("a", "b"))
    reduced = trim_vocabulary(old, ["z z z z z z abc", "ab ab"])
    assert_same_by_name(old, reduced.tokenizer, ["z z z z z z abc", "ab abc"])
    assert ("b", "c</w>") in reduced.tokenizer.merges


@pytest.mark.slow
def test_flickr_captions_with_openais_vocabulary(clip_vocabulary: Path, flickr: Path):
    with (flickr / "captions.csv").open(newline="", encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    old = load_openai_vocabulary(clip_vocabulary, 77)
    reduced = trim_vocabulary(old, captions)
    encodes_identically(old, reduced.tokenizer, captions)
    assert len(captions) == 5000
    np.testing.assert_array_equal(reduced.kept_tokens[reduced.tokenizer(captions)], old(captions))
    assert reduced.tokenizer.vocab_size == len(reduced.kept_tokens) < 6000
    assert_same_by_name(old, reduced.tokenizer, captions[::50])
    assert reduced.tokenizer.pad_token_id == 0


def test_built_in_captions_with_the_built_in_vocabulary():
    records = load_data("builtin:tabletop", samples=150, seed=0).records
    captions = [caption for record in records for caption in record.captions]
    old = load_checkpoint("builtin:tabletop").tokenizer
    assert (
        trim_vocabulary(old, captions).tokenizer.vocab == old.vocab
    )  # learned from such captions, it has nothing to spare
    captions = captions[:10]
    reduced = trim_vocabulary(old, captions)
    np.testing.assert_array_equal(reduced.kept_tokens[reduced.tokenizer(captions)], old(captions))
    assert 514 < reduced.tokenizer.vocab_size < old.vocab_size


def test_odd_texts_with_openais_vocabulary(clip_vocabulary: Path):
    old, texts = load_openai_vocabulary(clip_vocabulary, 77), odd_strings(600)
    reduced = trim_vocabulary(old, texts[:300])
    unkept = old.used_tokens(texts[300:]) - set(reduced.kept_tokens.tolist())
    uncut = Tokenizer.from_str(old._tokenizer.to_str())
    uncut.no_truncation()
    others = [text for text in texts[300:] if unkept.isdisjoint(uncut.encode(cleaned(text, old.clean)).ids)]
    assert len(others) > 100
    encodes_identically(old, reduced.tokenizer, others)
    # What is not kept still encodes, into bytes at worst, and never as an unknown token.
    names = reduced.tokenizer._tokenizer.encode("Quizzical ünïcörns 龍").tokens
    assert EOS not in names[1:-1]


texts = st.text(max_size=12)
mixed = st.lists(
    st.sampled_from([*" ".join(WORDS).split(), "日本語", "🙂", "naïve", "e\u0301", "!"]) | texts, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(captions=st.lists(mixed.map(" ".join), max_size=4), others=st.lists(mixed.map("".join), max_size=4))
@pytest.mark.slow
def test_any_text_whose_tokens_are_kept_encodes_the_same(captions: list[str], others: list[str]):
    reduced = trim_vocabulary(RICH, captions)
    kept = set(reduced.kept_tokens.tolist())
    assert_same_by_name(RICH, reduced.tokenizer, captions)
    also = [text for text in others if RICH.used_tokens([text]) <= kept]
    np.testing.assert_array_equal(reduced.kept_tokens[reduced.tokenizer(also)], RICH(also))
    ids = reduced.tokenizer(others)
    assert ((ids == reduced.tokenizer.eos_token_id).any(axis=1)).all()
    assert ids.max(initial=0) <= reduced.tokenizer.eos_token_id == len(kept) - 1


def test_the_first_caption_that_differs_is_named():
    reduced = trim_vocabulary(RICH, ["a red ball"])
    with pytest.raises(TokenizerError, match="'two blue boxes', which the reduced vocabulary"):
        encodes_identically(RICH, reduced.tokenizer, ["a red ball", "two blue boxes", "green star"])
    longer = ClipTokenizer(reduced.tokenizer._tokenizer, context_length=17)
    with pytest.raises(TokenizerError, match="'a red ball'"):
        encodes_identically(RICH, longer, ["a red ball"])


def test_no_captions_leave_bytes_and_special_tokens():
    reduced = trim_vocabulary(RICH, [])
    assert reduced.tokenizer.vocab_size == 514
    encodes_identically(RICH, reduced.tokenizer, [])


def test_special_tokens_come_last_wherever_they_were():
    tokens = [BOS, EOS, *(token for token in vocabulary([]) if token not in (BOS, EOS)), "ab</w>"]
    old = ClipTokenizer(
        build_tokenizer({token: i for i, token in enumerate(tokens)}, [("a", "b</w>")]), context_length=8
    )
    reduced = trim_vocabulary(old, ["ab"])
    assert reduced.kept_tokens[-2:].tolist() == [0, 1]
    assert reduced.tokenizer(["ab"], pad_to_longest=True).tolist() == [[513, 512, 514]]


def test_vocabularies_of_another_kind_are_refused():
    words = ClipTokenizer(Tokenizer(models.WordLevel({EOS: 0}, unk_token=EOS)), context_length=8)
    with pytest.raises(TokenizerError, match="of the kind WordLevel"):
        trim_vocabulary(words, ["a"])
