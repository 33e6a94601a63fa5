"""What OpenAI's, open_clip's and SigLIP's code do to a text before it is divided into words: repair, unescape, squeeze,
fold.

Sources: openai/CLIP, clip/simple_tokenizer.py; mlfoundations/open_clip, src/open_clip/tokenizer.py; big_vision,
evaluators/proj/image_text/prompt_engineering.py, as in transformers' SiglipTokenizer; ftfy for the repair (mojibake,
curly quotes, ligatures, full-width letters, control characters, surrogates). Hugging Face's other tokenizers do none of
it.
"""

from __future__ import annotations

import html
import re
import string

from tokenizers import Regex, normalizers

from edgeclip.config import TextCleaning
from edgeclip.files import printable

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
OPEN_CLIP_BOS, OPEN_CLIP_EOS = "<start_of_text>", "<end_of_text>"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WITHOUT_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
# Where their patterns find special tokens: not after punctuation, which has taken the "<" along by then.
_SPECIAL = {
    names: re.compile(rf"(?<![^\w\s]|_)((?i:{'|'.join(map(re.escape, names))})+)|<\|(?=(start|end)oftext\|>)")
    for names in ((BOS, EOS), (OPEN_CLIP_BOS, OPEN_CLIP_EOS))
}
PUNCTUATION = r"[!-/:-@\[-`{-~]"
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&#x27;": "'", "&apos;": "'", "&nbsp;": " "}


def special_names(how: TextCleaning) -> tuple[str, str]:
    """How start and end of text are spelled where they are typed into a text."""
    return (BOS, EOS) if how in ("none", "openai") else (OPEN_CLIP_BOS, OPEN_CLIP_EOS)


def cleaned(text: str, how: TextCleaning, *, has_special: bool = True) -> str:
    """The text as its words are found in it.

    Args:
        text: any string.
        how: "none" makes it printable only; "openai" repairs, unescapes HTML twice, makes white space one space and
            letters small; open_clip's "lower" does the same, "whitespace" leaves capitals, and "canonicalize" removes
            ASCII punctuation too. open_clip spells the special tokens in its own way. "siglip" makes letters small,
            removes ASCII punctuation and makes white space one space.
        has_special: whether the vocabulary has CLIP's special tokens; without them they are words as others.
    """
    if how == "none":
        return printable(text)
    if how == "siglip":
        return " ".join(printable(text).lower().translate(_NO_PUNCTUATION).split())
    if not (text.isascii() and text.isprintable()) or "&" in text:  # else there is nothing to repair
        from ftfy import fix_text  # takes as long to import as everything else that a prompt needs

        text = html.unescape(html.unescape(fix_text(text)))
    if how == "canonicalize":
        text = text.translate(_WITHOUT_PUNCTUATION)
    text = " ".join(text.split())
    text = text if how == "whitespace" else text.lower()
    return _with_special_tokens(text, special_names(how)) if has_special else text


def _with_special_tokens(text: str, names: tuple[str, str]) -> str:
    """Spell those that count as the vocabulary does, and part those that don't where they are parted anyway."""

    def spelled(match: re.Match[str]) -> str:
        return (match[1] or "<| ").replace(names[0], BOS).replace(names[1], EOS)

    return _SPECIAL[names].sub(spelled, text) if "<" in text else text


def normalizer(how: TextCleaning) -> normalizers.Normalizer:
    """As much of `cleaned` as a `tokenizers` file can say, for other clients.

    It can't say: mojibake, other entities than the common ones, and final sigmas between punctuation.
    """
    if how == "siglip":
        return normalizers.Sequence([*_lowercase(), normalizers.Replace(Regex(PUNCTUATION), ""), *_squeeze()])
    from ftfy.chardata import CONTROL_CHARS, DOUBLE_QUOTE_RE, LIGATURES, SINGLE_QUOTE_RE, WIDTH_MAP

    controls = "".join(map(chr, CONTROL_CHARS))
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex("&(?:amp;)+"), "&")]
    steps += [normalizers.Replace(entity, char) for entity, char in _ENTITIES.items()]
    steps += [normalizers.Replace(Regex(f"[{controls}]"), "")]
    steps += [normalizers.Replace(chr(code), char) for code, char in (LIGATURES | WIDTH_MAP).items()]
    steps += [normalizers.Replace(Regex(SINGLE_QUOTE_RE.pattern), "'")]
    steps += [normalizers.Replace(Regex(DOUBLE_QUOTE_RE.pattern), '"'), normalizers.NFC()]
    if how == "canonicalize":
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(PUNCTUATION), "")]
    steps += _squeeze()
    return normalizers.Sequence(steps if how == "whitespace" else [*steps, *_lowercase()])


def _squeeze() -> list[normalizers.Normalizer]:
    return [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]


def _lowercase() -> list[normalizers.Normalizer]:
    return [normalizers.Replace(Regex(r"(?<=\p{L})Σ(?![\p{L}\p{M}'.:·])"), "ς"), normalizers.Lowercase()]
