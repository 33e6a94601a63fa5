# ruff: noqa: RUF001
import csv
import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from edgeclip.errors import TokenizerError
from edgeclip.shrink.trim_vocabulary import trim_vocabulary
from edgeclip.text_cleaning import cleaned
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_openai_vocabulary, load_tokenizer
from tests.reference_tokenizer import ReferenceTokenizer

SAID_BY_A_NORMALIZER = {
    "curly quotes": "it’s “quoted” ‚so‛",
    "full width": "ＦＵＬＬ　ｗｉｄｔｈ ﾊﾝ",
    "ligatures": "ﬁne ﬄ Ĳ ŉ",
    "title-case digraphs": "ǅ ǆ Ǆ ǲ",
    "controls": "a\x00b\x07c\x7f",
    "byte order mark": "\ufeffa dog",
    "entities": "salt &amp; pepper &lt;b&gt; &quot;x&quot; &#39;y&#39; a&nbsp;b",
    "entities twice": "&amp;amp; &amp;lt;",
    "final sigma": "ΟΔΟΣ ΣΟΦΟΣ",
    "İ": "İstanbul",
    "decomposed": "e\u0301",
    "white space": " a\t\n\r\n b\u2028c\u00a0 ",
}
ONLY_BY_CODE = {
    "mojibake": "â€™ Ã© schÃ¶n ï»¿",
    "rare entities": "&Eacute; &eacute; &CounterClockwiseContourIntegral; &ampere &#931;",
    "entities that are not made NFC": "e&#769;",
    "surrogates": "\ud800 \udfff \ud83d\ude00",
    "sigma between punctuation": "ΣΑΣ'Σ Α'Σ",
    "special tokens": "a<|endoftext|> !<|endoftext|><|startoftext|> <|ENDOFTEXT|> <|ſtartoftext|><|endoftext|>",
    "special tokens of open_clip": "a<start_of_text> !<end_of_text> <END_OF_TEXT><start_of_text>",
    "contractions": "I'LL he'S 'ſ don't \u2018re",
    "terminal colours": "\x1b[31mred\x1b[0m",
    "c1": "\x85 \x9f &#x85;",
}
PIECES = [
    *SAID_BY_A_NORMALIZER.values(),
    *ONLY_BY_CODE.values(),
    "a dog",
    "日本語",
    "🙂",
    "3.14",
    "_x_",
    "!!!",
    "<b>",
    "Ⅷ",
]
CLEANINGS = ["openai", "lower", "whitespace", "canonicalize"]
RANGES = [(0x20, 0x250), (0x370, 0x600), (0x1E00, 0x2200), (0xFF00, 0x10000), (0, 0x110000)]


def hostile_strings(count: int) -> list[str]:
    """Pieces side by side, characters at random, and bytes read in other encodings."""
    rng = random.Random(0)

    def characters() -> str:
        drawn = (chr(rng.randrange(*rng.choice(RANGES))) for _ in range(rng.randint(1, 12)))
        # Letters that Unicode has added lately are letters to some libraries only.
        return "".join(char for char in drawn if unicodedata.category(char) != "Cn")

    def misread() -> str:
        encoded = rng.choice(PIECES).encode("utf-8", "surrogatepass")
        return encoded.decode(rng.choice(["latin-1", "cp1252", "cp437"]), "replace")

    def pieces() -> str:
        return rng.choice(["", " "]).join(rng.choices(" ".join(PIECES).split() + PIECES, k=rng.randint(1, 9)))

    return PIECES + [rng.choice([characters, misread, pieces, pieces])() for _ in range(count - len(PIECES))]


@pytest.mark.parametrize("clean", CLEANINGS)
def test_ids_are_those_of_the_published_algorithm(clip_vocabulary: Path, clean: str):
    ours, theirs = load_openai_vocabulary(clip_vocabulary, 77, clean=clean), ReferenceTokenizer(clip_vocabulary, clean)
    texts = hostile_strings(2000)
    different = [text for text, a, b in zip(texts, ours(texts).tolist(), theirs(texts), strict=True) if a != b]
    assert not different


def test_captions_are_encoded_as_without_repair(clip_vocabulary: Path, flickr: Path):
    with (flickr / "captions.csv").open(encoding="utf-8") as file:
        captions = [row[-1] for row in csv.reader(file)][1:]
    assert len(captions) == 5000
    ours, plain = (load_openai_vocabulary(clip_vocabulary, 77, clean=clean) for clean in ("openai", "none"))
    np.testing.assert_array_equal(ours(captions), ReferenceTokenizer(clip_vocabulary, "openai")(captions))
    np.testing.assert_array_equal(ours(captions), plain(captions))


def test_by_hand():
    text = "\ufeffIt’s  ＡB &amp;amp; ﬁne_ΟΔΟΣ! "
    assert cleaned(text, "openai") == cleaned(text, "lower") == "it's ab & fine_οδος!"
    assert cleaned(text, "whitespace") == "It's AB & fine_ΟΔΟΣ!"
    assert cleaned(text, "canonicalize") == "its ab fine οδος"
    assert cleaned("A \ud800 Ｂ", "none") == "A ? Ｂ"


def test_what_needs_no_repair_does_not_wait_for_what_repairs():
    code = (
        "import sys\nfrom edgeclip.text_cleaning import cleaned\n"
        "print(cleaned('A plain  Prompt', 'openai'), 'ftfy' in sys.modules)\n"
        "print(cleaned('A na\u00efve one', 'openai'), 'ftfy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == ["a plain prompt False", "a naïve one True"]


@pytest.mark.parametrize("clean", CLEANINGS)
def test_a_saved_tokenizer_keeps_it_and_tells_others(clip_vocabulary: Path, tmp_path: Path, clean: str):
    tokenizer = load_openai_vocabulary(clip_vocabulary, 77, clean=clean)
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["text_cleaning"] == clean
    again = load_tokenizer(tmp_path, 77)
    texts = hostile_strings(300)
    assert again.token_ids(texts) == tokenizer.token_ids(texts)
    others = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for kind, text in SAID_BY_A_NORMALIZER.items():
        assert others.encode(text).ids == tokenizer.token_ids(text)[0], kind
    assert CLIPTokenizer.from_pretrained(tmp_path)("a dog")["input_ids"] == tokenizer.token_ids("a dog")[0]
    again.save(tmp_path)
    assert load_tokenizer(tmp_path, 77).token_ids(texts) == tokenizer.token_ids(texts)


def test_hugging_faces_tokenizer_does_not_repair_and_may_be_told_to(tmp_path: Path, tokenizer: ClipTokenizer):
    tokenizer.save(tmp_path)
    assert "text_cleaning" not in (tmp_path / "tokenizer_config.json").read_text()
    plain, told = load_tokenizer(tmp_path, 16), load_tokenizer(tmp_path, 16, clean="canonicalize")
    assert plain.clean == "none"
    assert plain.token_ids("A red ball!") == tokenizer.token_ids("A red ball!") != told.token_ids("A red ball!")
    assert told.token_ids("A _red_ ball!") == plain.token_ids("a red ball")
    told.save(tmp_path)
    again = load_tokenizer(tmp_path, 16)
    assert again.clean == "canonicalize"
    assert (
        again.token_ids("A &amp; ＲＥＤ ball!")
        == told.token_ids("A &amp; ＲＥＤ ball!")
        == plain.token_ids("a red ball")
    )


def test_a_smaller_vocabulary_repairs_as_its_teacher_does(clip_vocabulary: Path):
    teacher = load_openai_vocabulary(clip_vocabulary, 77)
    small = trim_vocabulary(teacher, ["it’s a dog", "ΟΔΟΣ &amp; ﬁne"]).tokenizer
    assert small.clean == "openai"
    assert small.token_ids("IT’S a dog") == small.token_ids("it's a dog")


@pytest.mark.parametrize("value", ["ftfy", 3, ["openai"], {}])
def test_a_cleaning_that_is_not_known_is_refused(tmp_path: Path, tokenizer: ClipTokenizer, value: object):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"text_cleaning": value}))
    with pytest.raises(TokenizerError, match=r"text_cleaning.*update edgeclip"):
        load_tokenizer(tmp_path, 16)
    (tmp_path / "tokenizer_config.json").write_text('{"text_cleaning": "openai"}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):  # without what was added for others
        load_tokenizer(tmp_path, 16)
