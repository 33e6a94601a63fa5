"""tokenizer.json is read as the library reads it, and a large one in less memory."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from edgeclip.bundle import find_bundle
from edgeclip.names import BUILTIN
from edgeclip.tokenizer_json import read_tokenizer
from tests import published

PEAK = """
import sys
from pathlib import Path
from tokenizers import Tokenizer
from edgeclip.evaluate.footprint import peak_rss_mb
from edgeclip.tokenizer_json import read_tokenizer
content, before = Path(sys.argv[2]).read_bytes(), peak_rss_mb()
tokenizer = read_tokenizer(content) if sys.argv[1] == "ours" else Tokenizer.from_str(content.decode())
print(peak_rss_mb() - before)
"""


def byte_pairs(merges: int, **options: object) -> Tokenizer:
    """A vocabulary of letters, and of words that are put together of others at random."""
    draw, words, pairs = random.Random(0), list("abcdefghijklmnopqrstuvwxyz▁é猫"), []
    vocab = {word: index for index, word in enumerate(words)}
    while len(pairs) < merges:
        left, right = draw.choice(words), draw.choice(words)
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            words += [left + right] if len(left + right) < 6 else []
            pairs.append((left, right))
    return Tokenizer(models.BPE(vocab, pairs, **options))


def with_added_tokens() -> Tokenizer:
    """Of each kind, and with all that a model of byte pairs can be told."""
    tokenizer = byte_pairs(40, unk_token="é", fuse_unk=True, ignore_merges=True, dropout=0.0)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<pad>", AddedToken("<eos>", lstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("whole", single_word=True), AddedToken("right", rstrip=True), "ab"])
    tokenizer.enable_truncation(12)
    return tokenizer


MADE = {
    "added": with_added_tokens,
    "gemma": published.gemma,
    "unigram": published.pieces,
    "wordpiece": published.wordpieces,
    "clip": lambda: Tokenizer.from_file(str(find_bundle(BUILTIN) / "tokenizer.json")),
}


@pytest.mark.parametrize("name", MADE)
def test_it_is_what_the_library_reads(name: str):
    content = MADE[name]().to_str()
    expected, found = Tokenizer.from_str(content), read_tokenizer(content.encode())
    assert json.loads(found.to_str()) == json.loads(expected.to_str())
    for text in [*published.HARD, "<pad>a whole wholesale <eos>  right  ab <eos>"]:
        assert found.encode(text).ids == expected.encode(text).ids


@pytest.mark.parametrize("changes", [{"merges": [["a", "nowhere"]]}, {"merges": ["a b"]}, {"vocab": 3}, {"odd": 1}])
def test_what_the_library_refuses_or_reads_otherwise_is_left_to_it(changes: dict[str, object]):
    content = json.loads(byte_pairs(5).to_str())
    content["model"] |= changes

    def read(read_: Callable[[str], Tokenizer]) -> dict[str, object] | None:
        with suppress(Exception):  # the library has no kind of its own
            return json.loads(read_(json.dumps(content)).to_str())
        return None

    assert read(lambda text: read_tokenizer(text.encode())) == read(Tokenizer.from_str)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another system counts otherwise")
def test_a_large_vocabulary_takes_less_memory_than_the_library_takes(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_pairs(100_000).to_str(), encoding="utf-8")

    def peak_mb(how: str) -> float:
        arguments = [sys.executable, "-c", PEAK, how, str(path)]
        return float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)

    assert peak_mb("ours") < 0.75 * peak_mb("library's")
