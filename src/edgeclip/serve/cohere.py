"""Cohere's `/v1/embed` and `/v2/embed`. A picture counts as what it is there: a data URI.

Shape legend: N items, E embedding size.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from edgeclip.errors import InputError
from edgeclip.runtime.embedding_dtype import as_dtype
from edgeclip.serve.embeddings import as_base64, check_count, shortened
from edgeclip.serve.inputs import Item, Part, decoded, item_of, picture_of, text_of
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import takes

router = APIRouter()
EmbeddingType = Literal["float", "int8", "base64"]


class EmbedRequest(msgspec.Struct, kw_only=True):
    """One of `texts`, `images` and, in v2, `inputs`. What `input_type` tells, the fields tell too."""

    model: str = ""
    texts: list[str] | None = None
    images: list[str] | None = None
    inputs: list[Part] | None = None
    input_type: str = ""
    embedding_types: list[EmbeddingType] | None = None
    output_dimension: int | None = None


def _items(request: EmbedRequest, most: int) -> list[Item]:
    given = [value for value in (request.texts, request.images, request.inputs) if value is not None]
    if len(given) != 1:
        raise InputError(f"{len(given)} of `texts`, `images` and `inputs`", expected="one of them", fix="use `texts`")
    check_count(len(given[0]), most)
    if request.texts is not None:
        return list(map(text_of, request.texts))
    if request.images is not None:
        return list(map(picture_of, request.images))
    return [item_of(part) for part in request.inputs or ()]


def _as_type(embeds_NE: NDArray[np.float32], type_: EmbeddingType) -> list[Any]:
    if type_ == "base64":
        return [as_base64(row) for row in embeds_NE]
    return as_dtype(embeds_NE, "int8" if type_ == "int8" else "float32").tolist()


async def _embed(request: Request, version: str) -> Response:
    model: Model = request.app.state.model
    body = decoded(await request.body(), EmbedRequest)
    items = _items(body, request.app.state.settings.max_inputs)
    with model.request():
        embeds_NE, sizes = await model.embed(items)
    embeds_NE = shortened(embeds_NE, body.output_dimension)
    types: list[EmbeddingType] = body.embedding_types or ["float"]
    by_type: Any = {type_: _as_type(embeds_NE, type_) for type_ in types}
    is_plain = version == "1" and body.embedding_types is None
    texts = [item for item in items if isinstance(item, str)]
    pictures = [size for size in sizes if size is not None]
    billed = {"input_tokens": await model.tokens(texts), "images": len(pictures)}
    answer = {
        "id": str(uuid.uuid4()),
        "embeddings": by_type["float"] if is_plain else by_type,
        "texts": texts,
        "images": [{"width": width, "height": height} for width, height in pictures],
        "meta": {"api_version": {"version": version}, "billed_units": billed},
    }
    if version == "1":
        answer["response_type"] = "embeddings_floats" if is_plain else "embeddings_by_type"
    return Response(msgspec.json.encode(answer), media_type="application/json")


@router.post("/v1/embed", **takes(EmbedRequest))
async def embed_v1(request: Request) -> Response:
    """Cohere's first version: a plain list where no `embedding_types` are asked for."""
    return await _embed(request, "1")


@router.post("/v2/embed", **takes(EmbedRequest))
async def embed_v2(request: Request) -> Response:
    """Cohere's second version: embeddings by type."""
    return await _embed(request, "2")
