"""Texts and pictures as clients send them. Pictures are in the request: no URL is ever fetched.

The shapes, each of one client or server: strings (OpenAI); `modality` (Infinity); `{"text"}` and `{"image"}` (Jina);
`{"type": ..., "image_url": {"url"}}` (vLLM's messages, llama.cpp, Cohere v2); `{"prompt_string", "multimodal_data"}`
(llama.cpp's own, which Frigate sends).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import msgspec

from edgeclip.errors import MALFORMED, ConfigError, InputError
from edgeclip.files import printable
from edgeclip.serve.problems import UnreadableError

T = TypeVar("T")
Item: TypeAlias = str | bytes
"""A text, or an encoded picture."""
MEDIA_MARKER = "<__media__>"
"""Where llama.cpp's clients say in a prompt that a picture goes."""
MAX_LETTERS = 32_000
"""A text of as many takes up to 0.1 s to tokenize, of which CLIP sees the first 77 tokens."""
DATA_URI = re.compile(r"data:[\w.+/;=-]*;base64,", re.IGNORECASE | re.ASCII)
REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
SHOWN = 60


class ImageUrl(msgspec.Struct):
    """A picture as a data URI."""

    url: str


class Part(msgspec.Struct, kw_only=True):
    """A text or a picture, in whichever of the shapes."""

    type: str | None = None
    text: str | None = None
    image: str | None = None
    image_url: ImageUrl | str | None = None
    prompt_string: str | None = None
    multimodal_data: list[str] | None = None
    content: list[Part] | None = None


def decoded(body: bytes, type_: type[T]) -> T:
    """A request's JSON.

    Raises:
        UnreadableError: it is none, or of another shape.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except MALFORMED as error:
        raise UnreadableError(
            f"a body that is not the route's JSON ({error})",
            expected=f"a {type_.__name__} of /openapi.json",
            fix="send it in that shape",
        ) from error


def picture_of(text: str) -> bytes:
    """The picture that a data URI or base64 holds.

    Raises:
        InputError: it is a URL.
        ConfigError: it is no base64.
    """
    if REMOTE.match(text):
        raise InputError(
            f"the URL {printable(text[:SHOWN])}",
            expected="the picture itself: this server fetches nothing",
            fix="send a data URI, data:image/jpeg;base64,...",
        )
    head = DATA_URI.match(text)
    try:
        return base64.b64decode("".join((text[head.end() :] if head else text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(
            f"a picture {printable(text[:SHOWN])!r} that is no base64 ({error})",
            expected="data:image/jpeg;base64,... or base64 alone",
            fix="encode the file's bytes",
        ) from error


def text_of(text: str) -> str:
    """A text that may be embedded.

    Raises:
        ConfigError: it is longer than any that CLIP was made for.
    """
    if len(text) > MAX_LETTERS:
        raise ConfigError(
            f"a text of {len(text)} letters", expected=f"at most {MAX_LETTERS}", fix="cut it: CLIP reads some 60 words"
        )
    return text


def item_of(part: str | Part, *, is_picture: bool = False) -> Item:
    """One part in any shape.

    Args:
        part: the part.
        is_picture: whether a string stands for a picture.

    Raises:
        InputError: neither a text nor a picture, or both at once.
    """
    if isinstance(part, str):
        return picture_of(part) if is_picture else text_of(part)
    if part.content is not None:
        return only_item(part.content)
    texts = [text for text in (part.text, part.prompt_string) if text is not None]
    pictures = [*(part.multimodal_data or ()), *([part.image] if part.image is not None else ())]
    if part.image_url is not None:
        pictures.append(part.image_url if isinstance(part.image_url, str) else part.image_url.url)
    if part.multimodal_data:
        texts = [text for text in texts if text.replace(MEDIA_MARKER, "").strip()]
    if len(texts) + len(pictures) != 1:
        raise InputError(
            f"an input with {len(texts)} texts and {len(pictures)} pictures",
            expected="one text or one picture: CLIP embeds each alone",
            fix="send each as an input of its own",
        )
    return picture_of(pictures[0]) if pictures else text_of(texts[0])


def only_item(parts: Sequence[str | Part]) -> Item:
    """The text or picture that a message is.

    Raises:
        InputError: several, or none.
    """
    if len(parts) != 1:
        raise InputError(
            f"a message of {len(parts)} parts", expected="one text or one picture", fix="send each as one of its own"
        )
    return item_of(parts[0])
