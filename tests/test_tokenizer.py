import errno
import gzip
import json
import random
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from edgeclip.errors import InputError, TokenizerError
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_openai_vocabulary, load_tokenizer

PIECES = [
    "photo", "of",
    "a", "Dog", "naïve", "Ünïcödé", "日本語", "🙂", "👩‍👩‍👧", "e\u0301", "don't", "I'LL", "3.14", "10,000",
    "\t", "\n", "  ", "<|endoftext|>", "<|startoftext|>", "!!!", "…", "—", "ß", "İ", "ﬁ", "\u200b", "\u00a0",
    "&amp;", "_x_",
    "CamelCase", "#tag", "@you", "http://a.b/c?d=e", "٣٤", "½", "ⅷ", "\x00", "\x7f", "a" * 40,
]  # fmt: skip


def odd_strings(count: int = 1000) -> list[str]:
    rng = random.Random(0)
    fixed = ["", " ", "a", "word " * 500, "🙂" * 100, "\n\n", *PIECES]
    made = [rng.choice(["", " "]).join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(count - len(fixed))]
    return fixed + made


@pytest.fixture(scope="module")
def both(clip_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipTokenizer, CLIPTokenizer, Path]:
    """Ours from OpenAI's file, transformers' from the vocab.json and merges.txt that belong to it."""
    ours = load_openai_vocabulary(clip_vocabulary, 77, clean="none")
    folder = tmp_path_factory.mktemp("slow")
    lines = gzip.decompress(clip_vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocab = json.loads(ours._tokenizer.to_str())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    theirs = CLIPTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines])
    return ours, theirs, folder


def reference(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    return np.asarray(tokenizer(texts, padding="max_length", truncation=True, max_length=77)["input_ids"])


def test_ids_equal_transformers_on_a_thousand_odd_strings(both):
    _, theirs, folder = both
    ours = load_tokenizer(folder, 77)
    texts = odd_strings()
    np.testing.assert_array_equal(ours(texts), reference(theirs, texts))


def test_openai_vocabulary_gives_the_same_ids_padded_with_zero(both):
    ours, theirs, _ = both
    texts = odd_strings()
    expected = reference(theirs, texts)
    ids = ours(texts)
    assert ids.dtype == np.int64
    assert ids.shape == (1000, 77)
    eos = expected == ours.eos_token_id
    after = np.cumsum(eos, axis=1) - eos > 0
    np.testing.assert_array_equal(np.where(after, 0, ids), np.where(after, 0, expected))
    padding = np.where(after & (expected == ours.eos_token_id), ids, 0)
    # A special token typed inside a text is still there; what follows the last one is padding.
    assert (padding[[0, 1, 2]] == 0).all()


def test_known_ids_of_openais_tokenizer(both):
    ours, _, _ = both
    # As clip.tokenize("hello world!") gives them.
    assert ours(["hello world!"])[0, :5].tolist() == [49406, 3306, 1002, 256, 49407]


def test_a_saved_tokenizer_json_is_read_alike_by_both(both, tmp_path: Path):
    _, _, folder = both
    load_tokenizer(folder, 77).save(tmp_path)
    texts = odd_strings(300)
    again, theirs = load_tokenizer(tmp_path, 77), CLIPTokenizer.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(texts), reference(theirs, texts))


def test_padding_to_the_longest_changes_no_id(tokenizer: ClipTokenizer):
    texts = ["a", "two blue boxes on the table"]
    short = tokenizer(texts, pad_to_longest=True)
    assert short.shape[1] < tokenizer.context_length
    np.testing.assert_array_equal(tokenizer(texts)[:, : short.shape[1]], short)


def test_unpaired_surrogates_are_replaced_and_no_texts_give_no_rows(tokenizer: ClipTokenizer):
    np.testing.assert_array_equal(tokenizer(["a \ud800"]), tokenizer(["a ?"]))
    assert tokenizer([]).shape == (0, 16)


def test_one_text_or_any_iterable_of_texts(tokenizer: ClipTokenizer):
    texts = ["a red ball", "two"]
    for several in (tuple(texts), iter(texts), np.array(texts), np.array(texts, object)):
        np.testing.assert_array_equal(tokenizer(several), tokenizer(texts))
    np.testing.assert_array_equal(tokenizer("two"), tokenizer(["two"]))


@pytest.mark.parametrize("given", [None, 3, b"a", {"a": 1}, {"a"}, [["a"]], ["a", None], np.array("a"), [b"a"]])
def test_what_is_no_text_is_one_line(tokenizer: ClipTokenizer, given):
    with pytest.raises(InputError, match=r"`texts`.*expected strings"):
        tokenizer(given)


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenizer.json", "{"), ("tokenizer.json", "[]"), ("tokenizer.json", ""), ("tokenizer.json", "\x00\x01")],
)
def test_malformed_tokenizers_name_the_file(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path, 77)


def test_malformed_vocab_and_merges(tmp_path: Path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version\na b c\n")
    with pytest.raises(TokenizerError, match="a b c"):
        load_tokenizer(tmp_path, 77)
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(TokenizerError, match="startoftext"):
        load_tokenizer(tmp_path, 77)
    (tmp_path / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (tmp_path / "merges.txt").write_text("#version\na b\n")
    with pytest.raises(TokenizerError, match="merge"):
        load_tokenizer(tmp_path, 77)


def test_no_tokenizer_says_what_to_bring(tmp_path: Path):
    with pytest.raises(TokenizerError, match="`vocabulary`"):
        load_tokenizer(tmp_path, 77)


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b"too\nfew")], ids=["not gzip", "too few"])
def test_damaged_openai_vocabulary(tmp_path: Path, content: bytes):
    (tmp_path / "bpe.txt.gz").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"bpe\.txt\.gz"):
        load_openai_vocabulary(tmp_path / "bpe.txt.gz", 77)


def test_a_vocabulary_that_unpacks_without_end_is_one_line(tmp_path: Path):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress(bytes(200 << 20), 9))
    tracemalloc.start()
    with pytest.raises(TokenizerError, match=r"bpe\.txt\.gz, which unpacks to more than 16 MB"):
        load_openai_vocabulary(path, 77)
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()


def test_a_tokenizer_nested_too_deep_is_one_line(tmp_path: Path, tokenizer: ClipTokenizer):
    (tmp_path / "tokenizer.json").write_text('{"model": ' * 100_000)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path, 16)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        load_tokenizer(tmp_path, 16)


@given(data=st.data())
@settings(max_examples=60)
def test_any_change_of_a_tokenizer_is_one_line_or_nothing(tokenizer: ClipTokenizer, data: st.DataObject):
    """Values of other types, left out, and numbers that no Rust integer holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        for _ in range(data.draw(st.integers(1, 3))):
            change(content, data)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        with suppress(TokenizerError):
            load_tokenizer(folder, 16)(["a red ball", "", "x" * 50, "<|endoftext|>", "é 日本"])


def change(content: dict, data: st.DataObject) -> None:
    place: dict | list = content
    while True:
        keys = list(place) if isinstance(place, dict) else range(min(len(place), 9))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inside = place[key]
        if isinstance(inside, dict | list) and data.draw(st.booleans()):
            place = inside
            continue
        odd = [None, True, -1, 0, 2**31, 2**64, 10**400, float("inf"), "", "x", [], {}, [[]], {"a": 1}, "<|endoftext|>"]
        place[key] = data.draw(st.sampled_from(odd))
        return


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, tokenizer: ClipTokenizer):
    """Which the command line makes a line of, as of any other."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        tokenizer.save(tmp_path)
    assert caught.value.errno == errno.ENOSPC
