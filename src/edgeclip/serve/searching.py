"""`/v1/search` in the index beside the server, and small copies of the pictures that it finds."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from edgeclip.errors import ConfigError, InputError
from edgeclip.inputs import check_path
from edgeclip.search.filters import Filters
from edgeclip.search.index import Index
from edgeclip.search.queries import OPERATOR, WEIGHT, Term, embed
from edgeclip.search.rows import Answer, Photo, as_record
from edgeclip.serve.embeddings import check_count
from edgeclip.serve.inputs import Item, Part, decoded, item_of, picture_of, text_of
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import takes
from edgeclip.serve.problems import NotFoundError
from edgeclip.serve.thumbnails import SIDES, Thumbnails

router = APIRouter()
MOST = 1000
"""Results of one request."""
MOST_TERMS = 32
"""Parts of a query."""


class WeightedPart(Part, kw_only=True):
    """A text or a picture of a query; a negative weight takes it away."""

    weight: float = 1.0


class SearchRequest(msgspec.Struct, kw_only=True):
    """One of `query`, `image`, `terms` and `similar`, and which pictures may be found."""

    query: Annotated[
        str | None, Meta(description="Words, with + and - between: horse + stripes, 2:dog - cat. Never a file's name.")
    ] = None
    image: Annotated[str | None, Meta(description="A data URI, or base64.")] = None
    terms: list[WeightedPart] | None = None
    similar: Annotated[int | None, Meta(description="The id of an indexed picture.")] = None
    k: Annotated[int, Meta(ge=1, le=MOST)] = 10
    after: Annotated[str | None, Meta(description="Taken on this day or later: 2024, 2024-07 or 2024-07-31.")] = None
    before: Annotated[str | None, Meta(description="Taken before this day.")] = None
    in_: Annotated[list[str], Meta(description="Only below these folders.")] = msgspec.field(
        name="in", default_factory=list
    )
    ext: Annotated[list[str], Meta(description="Only files with these suffixes.")] = []
    collapse: Annotated[bool, Meta(description="Let a picture stand for its near-duplicates.")] = True
    raw_prompt: Annotated[bool, Meta(description="Embed short nouns as they are, without templates.")] = False


def text_terms(query: str) -> list[tuple[float, str]]:
    """Words with + and - between as the command line reads them, but never as the names of files.

    Raises:
        ConfigError: an operator without words beside it, or more than `MOST_TERMS` parts.
    """
    pieces = OPERATOR.split(f" {query} ")
    begins_with_sign = len(pieces) > 1 and not pieces[0].strip()  # such as "- fruit"
    pieces = pieces[1:] if begins_with_sign else ["+", *pieces]
    terms: list[tuple[float, str]] = []
    for sign, words in zip(pieces[::2], pieces[1::2], strict=True):
        if not words.strip():
            raise ConfigError(
                "a `query` with nothing to search for", expected="words", fix='say what, such as "a dog" or "dog - cat"'
            )
        weight = WEIGHT.fullmatch(words.strip())
        number, text = (float(weight[1]), weight[2].strip()) if weight else (1.0, words.strip())
        terms.append((number if sign == "+" else -number, text_of(text)))
    check_count(len(terms), MOST_TERMS)
    return terms


def _index(model: Model) -> Index:
    if model.index is None:
        raise NotFoundError("a search", expected="a server that has an index", fix="start it with `db`")
    return model.index


@router.post("/v1/search", **takes(SearchRequest))
async def search(request: Request) -> Response:
    """The nearest pictures, the best first, and whether the best is any good."""
    model: Model = request.app.state.model
    index = _index(model)
    body = decoded(await request.body(), SearchRequest)
    for folder in body.in_:
        check_path("`in`", folder)
    filters = Filters(after=body.after, before=body.before, in_=body.in_, ext=body.ext)
    with model.request():
        if body.similar is not None:
            _check_one(body)
            photo = await _photo(model, str(body.similar))
            work: Any = partial(index.similar, photo.path, k=body.k, filters=filters)
            answer: Answer = await model.run("text", work)
        else:
            query = [await _embedded(model, weight, item, body.raw_prompt) for weight, item in _terms(body)]
            find = partial(index.search, query, k=body.k, filters=filters, collapse=body.collapse)
            answer = await model.run("text", find)
    results = [as_record(result) for result in answer.results]
    found = {"results": results, "is_match": answer.is_match, "confidence": answer.confidence}
    return Response(msgspec.json.encode(found), media_type="application/json")


def _check_one(body: SearchRequest) -> None:
    given = sum(value is not None for value in (body.query, body.image, body.terms, body.similar))
    if given != 1:
        raise InputError(
            f"{given} of `query`, `image`, `terms` and `similar`", expected="one of them", fix="use `query`"
        )


def _terms(body: SearchRequest) -> list[tuple[float, Item]]:
    _check_one(body)
    if body.image is not None:
        return [(1.0, picture_of(body.image))]
    if body.terms is not None:
        check_count(len(body.terms), MOST_TERMS)
        return [(part.weight, item_of(part)) for part in body.terms]
    return list(text_terms(body.query or ""))


async def _embedded(model: Model, weight: float, item: Item, raw_prompt: bool) -> Term:
    """A part of a query, embedded in a turn of its own: nobody waits for several."""
    term = Term(weight, item if isinstance(item, str) else (await model.crop(item))[0])

    def work() -> Any:
        return embed(model.clip, [term], raw_prompt=raw_prompt)[0]  # the clip of then: graphs may be opened anew

    embeds_E = await model.run("text" if term.is_text else "image", work)
    return msgspec.structs.replace(term, embeds=embeds_E)


async def _photo(model: Model, number: str) -> Photo:
    """An indexed picture by its row's number.

    Raises:
        NotFoundError: there is none.
    """
    index = _index(model)
    is_number = number.isascii() and number.isdecimal() and len(number) <= 18
    photo = await model.aside(partial(index.photo, int(number))) if is_number else None
    if photo is None:
        raise NotFoundError(
            f"the picture {number[:40]}", expected="the id of an indexed picture", fix="search again for one"
        )
    return photo


@router.get("/v1/index")
async def about(request: Request) -> Response:
    """What is in the index."""
    model: Model = request.app.state.model
    status = await model.aside(_index(model).status)
    told = as_record(status) | {"broken": len(status.broken), "model": request.app.state.name}
    return Response(msgspec.json.encode(told), media_type="application/json")


@router.get("/v1/photos/{number}")
async def photo(request: Request, number: str) -> Response:
    """An indexed picture's path, date and size."""
    found = await _photo(request.app.state.model, number)
    return Response(msgspec.json.encode(as_record(found)), media_type="application/json")


@router.get("/v1/photos/{number}/{size}")
async def copy(request: Request, number: str, size: str) -> Response:
    """A smaller JPEG of an indexed picture, as `thumbnail` or `preview`, without its metadata."""
    model: Model = request.app.state.model
    thumbnails: Thumbnails = request.app.state.thumbnails
    found = await _photo(model, number)
    if size not in SIDES:
        raise NotFoundError(f"{size[:40]} of a picture", expected=" or ".join(SIDES), fix="ask for one of them")
    data = await model.aside(partial(thumbnails.of, found, size))
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
