"""Immich's machine-learning interface, so that an Immich server uses a bundle without a change on its side.

Faces and text recognition come to the same URL, and an answer other than 200 has Immich take the URL out of use, for
CLIP too: they are passed on to Immich's own server where one is named, and else answered with nothing found.

Source: immich-app/immich, machine-learning/immich_ml/main.py, server/src/repositories/machine-learning.repository.ts.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.error
import urllib.request
from functools import partial
from typing import Any

import msgspec
import python_multipart
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from python_multipart.exceptions import FormParserError

from edgeclip.errors import MALFORMED, ConfigError
from edgeclip.files import printable
from edgeclip.serve.inputs import Item, text_of
from edgeclip.serve.model import Model
from edgeclip.serve.problems import NotFoundError, UnreadableError, UpstreamError

logger = logging.getLogger(__name__)
router = APIRouter()

CLIP, FACES, OCR = "clip", "facial-recognition", "ocr"
NOTHING_FOUND: dict[str, Any] = {FACES: [], OCR: {"text": [], "box": [], "boxScore": [], "textScore": []}}


class Entry(msgspec.Struct, kw_only=True):
    """One model of a task. Options, such as a language, are another model's."""

    modelName: str  # noqa: N815 - Immich's


Entries = dict[str, dict[str, Entry]]


def clean_name(name: str) -> str:
    """A model's name as Immich writes those of folders."""
    return name.split("/")[-1].translate(str.maketrans(":\\", "__", "."))


@router.get("/ping")
async def ping() -> Response:
    """Immich asks every 30 seconds."""
    return PlainTextResponse("pong")


@router.post("/predict")
async def predict(request: Request) -> Response:
    """One task: a CLIP embedding as a string of JSON, or what `--immich-upstream` says."""
    settings, model = request.app.state.settings, request.app.state.model
    body, content_type = await request.body(), request.headers.get("content-type", "")
    form = form_of(body, content_type)
    entries = entries_of(form)
    (task,) = entries
    if task != CLIP and settings.immich_upstream:
        ask = partial(passed_on, settings.immich_upstream, body, content_type, settings.timeout)
        return await asyncio.get_running_loop().run_in_executor(None, ask)
    item = item_of(form)
    if task == CLIP:
        _check_name(entries[task], settings.immich_name)
        with model.request():
            return _json(await _embedding(model, item))
    _tell_once(request.app.state, task)
    answer = {task: NOTHING_FOUND[task]}
    if isinstance(item, bytes):
        _, (width, height) = await model.crop(item)
        answer |= {"imageHeight": height, "imageWidth": width}
    return _json(answer)


async def _embedding(model: Model, item: Item) -> dict[str, Any]:
    embeds, (size,) = await model.embed([item])
    answer: dict[str, Any] = {CLIP: msgspec.json.encode(embeds[0].tolist()).decode()}
    return answer if size is None else answer | {"imageHeight": size[1], "imageWidth": size[0]}


def _json(answer: object) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(answer), media_type="application/json")


def form_of(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields and files of a form, by name; a file needs neither a name nor a type.

    Raises:
        UnreadableError: it is no form.
    """
    form: dict[str, bytes] = {}

    def keep(name: bytes | None, value: bytes | None) -> None:
        form[(name or b"").decode("utf-8", "replace")] = value or b""

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        keep(file.field_name, file.file_object.read())

    if not content_type.lower().startswith("multipart/form-data"):
        raise _unreadable("a body that is no form")
    headers = {"Content-Type": content_type.encode("latin-1")}
    try:
        parser = python_multipart.create_form_parser(
            headers,
            lambda field: keep(field.field_name, field.value),
            on_file,
            config={"MAX_MEMORY_FILE_SIZE": float("inf")},
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _unreadable(f"a body that is no form ({error})") from error
    return form


def entries_of(form: dict[str, bytes]) -> Entries:
    """What is asked for: one task with its models.

    Raises:
        UnreadableError: anything else.
    """
    try:
        entries = msgspec.json.decode(form.get("entries", b""), type=Entries)
    except MALFORMED as error:
        raise _unreadable(f"`entries` that can't be read ({error})") from error
    if len(entries) != 1 or not entries.keys() <= {CLIP, *NOTHING_FOUND} or not all(entries.values()):
        raise _unreadable(f"`entries` with the tasks {sorted(map(printable, entries))}")
    return entries


def item_of(form: dict[str, bytes]) -> Item:
    """The picture or the text that is sent.

    Raises:
        ConfigError: neither, or a text that is no UTF-8.
    """
    if "image" in form:
        return form["image"]
    try:
        return text_of(form["text"].decode())
    except (KeyError, UnicodeDecodeError):
        raise ConfigError(
            "neither a picture nor a text", expected="Either image or text must be provided", fix="send one"
        ) from None


def _check_name(models: dict[str, Entry], served: str | None) -> None:
    """Refuse what another model is asked for: its embeddings would be searched among those of another."""
    asked = {clean_name(entry.modelName) for entry in models.values()}
    if served is None or asked != {clean_name(served)}:
        names = ", ".join(sorted(map(printable, asked)))
        error = NotFoundError(
            f"the model {names}",
            expected=f"{served}, for which this bundle answers" if served else "a server started with `immich_name`",
            fix="choose it in Immich's settings, or start the server with another --immich-name, "
            "and run Smart Search again for all pictures",
        )
        logger.warning("%s", error)
        raise error


def _tell_once(state: Any, task: str) -> None:
    if not getattr(state, "has_told_of_tasks", False):
        state.has_told_of_tasks = True
        logger.warning(
            "Immich asks for %s, which is answered with nothing found: disable faces and text recognition in Immich's "
            "settings, or give --immich-upstream",
            task,
        )


def passed_on(upstream: str, body: bytes, content_type: str, timeout: float) -> Response:
    """Another server's answer to the same request, as it is.

    Raises:
        UpstreamError: it can't be reached.
    """
    request = urllib.request.Request(  # noqa: S310 - http or https: `check_upstream`
        upstream.rstrip("/") + "/predict", body, {"Content-Type": content_type}, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return Response(answer.read(), answer.status, media_type=answer.headers.get("Content-Type"))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.read(), error.code, media_type=error.headers.get("Content-Type"))
    except OSError as error:
        raise UpstreamError(
            f"no answer of {upstream} ({error})",
            expected="Immich's own machine learning there",
            fix="start it, or correct --immich-upstream",
        ) from error


def check_upstream(upstream: str | None) -> None:
    """Refuse what can't be passed on to.

    Raises:
        ConfigError: no http or https URL.
    """
    if upstream is not None and not upstream.startswith(("http://", "https://")):
        raise ConfigError(
            f"`immich_upstream` {upstream!r}", expected="a URL", fix="give http://immich-machine-learning:3003"
        )


def _unreadable(got: str) -> UnreadableError:
    return UnreadableError(got, expected="a form as Immich sends it: Invalid request format.", fix="send `entries`")
