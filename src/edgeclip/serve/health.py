"""Whether the server is there, whether it is ready, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """There is room for another request."""
    is_ready = request.app.state.model.has_room
    return PlainTextResponse("ready\n" if is_ready else "busy\n", 200 if is_ready else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Figures in Prometheus's format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
