"""The application: its routes, its limits, and what becomes of errors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from edgeclip.errors import BundleError, EdgeclipError
from edgeclip.serve import embeddings
from edgeclip.serve.metrics import Metrics
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import describe
from edgeclip.serve.problems import NotFoundError, broken, problem
from edgeclip.serve.serve_settings import ServeSettings
from edgeclip.version import __version__

logger = logging.getLogger(__name__)


def create_app(settings: ServeSettings) -> FastAPI:
    """An ASGI application.

    Raises:
        EdgeclipError: the bundle or the index can't be used.
    """
    metrics = Metrics()
    model = Model(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await model.start()
        yield
        await model.stop()

    app = FastAPI(title="edgeclip", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.settings, app.state.model, app.state.metrics = settings, model, metrics
    app.state.name = model.bundle.manifest.teacher
    app.include_router(embeddings.router)
    app.exception_handler(EdgeclipError)(_refused)
    app.exception_handler(OSError)(_broken)
    app.exception_handler(500)(_broken)
    app.exception_handler(404)(_missing)
    describe(app)
    return app


async def _refused(_: Request, error: EdgeclipError) -> Response:
    if isinstance(error, BundleError):  # which names folders of this machine
        logger.error("%s", error)
        return broken()
    return problem(error)


async def _broken(_: Request, error: OSError) -> Response:
    logger.error("%s: %s", type(error).__name__, error)
    return broken()


async def _missing(request: Request, _: object) -> Response:
    return problem(
        NotFoundError(f"{request.method} {request.url.path}", expected="a route of /openapi.json", fix="use one")
    )
