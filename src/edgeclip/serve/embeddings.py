"""`/v1/embeddings` as OpenAI's clients call it, with pictures in the shapes of other servers; see `inputs`.

Shape legend: N items, E embedding size.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from msgspec import Meta
from numpy.typing import NDArray

from edgeclip.errors import ConfigError, InputError
from edgeclip.serve.inputs import Item, Part, decoded, item_of, only_item
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import takes

router = APIRouter()


class Message(msgspec.Struct, kw_only=True):
    """A turn of a conversation: what vLLM embeds pictures by."""

    content: str | list[Part]
    role: str = "user"


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """One of `input` (OpenAI, Jina, Infinity, llama.cpp), `messages` (vLLM) and `content` (llama.cpp)."""

    model: str = ""
    input: str | Part | list[str | Part] | None = None
    messages: list[Message] | None = None
    content: str | Part | list[str | Part] | None = None
    modality: Annotated[Literal["text", "image"], Meta(description="Infinity: what strings are.")] = "text"
    encoding_format: Literal["float", "base64"] | None = None
    embedding_type: Annotated[Literal["float", "base64"] | None, Meta(description="Jina's encoding_format.")] = None
    dimensions: Annotated[
        int | None, Meta(description="Keep this many and normalise again; CLIP was not trained for that.")
    ] = None


def items_of(request: EmbeddingRequest, most: int) -> list[Item]:
    """What is to be embedded.

    Raises:
        InputError: nothing, or more than one of the fields for it.
        ConfigError: more than may be sent at once, or a part that can't be used.
    """
    given = [value for value in (request.input, request.messages, request.content) if value is not None]
    if len(given) != 1:
        raise InputError(
            f"{len(given)} of `input`, `messages` and `content`", expected="one of them", fix="use `input`"
        )
    if request.messages is not None:
        parts = [part for message in request.messages for part in _parts(message)]
        return [only_item(parts)]
    value: Any = given[0]
    inputs: list[str | Part] = value if isinstance(value, list) else [value]
    check_count(len(inputs), most)
    return [item_of(part, is_picture=request.modality == "image") for part in inputs]


def check_count(count: int, most: int) -> None:
    """Refuse no inputs, and too many.

    Raises:
        ConfigError: it is either.
    """
    if not 1 <= count <= most:
        raise ConfigError(f"{count} inputs", expected=f"1 to {most}", fix="send them in several requests")


def _parts(message: Message) -> list[str | Part]:
    return [message.content] if isinstance(message.content, str) else list(message.content)


def shortened(embeds_NE: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first components, normalised again; all of them for None and 0.

    Raises:
        ConfigError: there are not as many.
    """
    if not dimensions:
        return embeds_NE
    E = embeds_NE.shape[1]
    if not 1 <= dimensions <= E:
        raise ConfigError(f"`dimensions` {dimensions}", expected=f"1 to {E}", fix=f"leave it out, or use {E}")
    cut = embeds_NE[:, :dimensions]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def as_base64(embeds_E: NDArray[np.float32]) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(embeds_E.astype("<f4").tobytes()).decode()


@router.post("/embeddings", include_in_schema=False)
@router.post("/v1/embeddings", **takes(EmbeddingRequest))
async def embeddings(request: Request) -> Response:
    """Embeddings of texts and pictures, L2-normalised; `model` in the answer names the one that made them."""
    model: Model = request.app.state.model
    body = decoded(await request.body(), EmbeddingRequest)
    items = items_of(body, request.app.state.settings.max_inputs)
    with model.request():
        embeds_NE, _ = await model.embed(items)
    embeds_NE = shortened(embeds_NE, body.dimensions)
    is_base64 = "base64" in (body.encoding_format, body.embedding_type)
    data = [
        {"object": "embedding", "index": index, "embedding": as_base64(row) if is_base64 else row.tolist()}
        for index, row in enumerate(embeds_NE)
    ]
    tokens = await model.tokens([item for item in items if isinstance(item, str)])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "model": request.app.state.name, "data": data, "usage": usage}
    return Response(msgspec.json.encode(answer), media_type="application/json")
