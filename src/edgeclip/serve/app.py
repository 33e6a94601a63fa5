"""The application: its routes, its limits, and what becomes of errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from edgeclip.errors import BundleError, EdgeclipError, ReplacedError
from edgeclip.files import printable
from edgeclip.serve import classify, cohere, embeddings, health, immich, llama_cpp, searching, web_page
from edgeclip.serve.gate import Gate, token_of
from edgeclip.serve.metrics import Metrics
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import describe
from edgeclip.serve.problems import NotFoundError, StaleError, WrongMethodError, broken, problem
from edgeclip.serve.serve_settings import ServeSettings
from edgeclip.serve.thumbnails import Thumbnails
from edgeclip.version import __version__

logger = logging.getLogger(__name__)


def create_app(settings: ServeSettings) -> FastAPI:
    """An ASGI application.

    Raises:
        EdgeclipError: the bundle or the index can't be used.
    """
    immich.check_upstream(settings.immich_upstream)
    token, metrics = token_of(settings), Metrics()
    model = Model(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await model.start()
        yield
        await model.stop()

    app = FastAPI(title="edgeclip", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.settings, app.state.model, app.state.metrics = settings, model, metrics
    app.state.thumbnails = Thumbnails(model.index) if model.index else None
    app.state.name = model.bundle.name
    for room in (embeddings, cohere, classify, health, llama_cpp, immich, searching, web_page):
        app.include_router(room.router)
    app.add_middleware(Gate, settings=settings, metrics=metrics, token=token)
    app.exception_handler(EdgeclipError)(_refused)
    app.exception_handler(OSError)(_broken)
    app.exception_handler(500)(_broken)
    app.exception_handler(HTTPException)(_missing)
    describe(app)
    return app


async def _refused(_: Request, error: EdgeclipError) -> Response:
    if isinstance(error, BundleError):  # which names folders of this machine
        logger.error("%s", error)
        return broken()
    if isinstance(error, ReplacedError):
        logger.error("%s", error)
        return problem(
            StaleError(
                "an index that was made anew with another bundle",
                expected="the one that this server was started with",
                fix="start the server again, with the index's bundle",
            )
        )
    return problem(error)


async def _broken(_: Request, error: OSError) -> Response:
    logger.error("%s: %s", type(error).__name__, error)
    return broken()


async def _missing(request: Request, error: HTTPException) -> Response:
    """No such route, or not by this method."""
    refused = NotFoundError if error.status_code == HTTPStatus.NOT_FOUND else WrongMethodError
    route = f"{request.method} {printable(request.url.path)}"
    answer = problem(refused(route, expected="a route of /openapi.json", fix="use one"))
    answer.headers.update(error.headers or {})
    return answer
