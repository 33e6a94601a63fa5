"""The page at `/`: files of this package, and nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from edgeclip.serve.problems import NotFoundError

router = APIRouter()
TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page where there is an index; without one, what Immich asks for here."""
    if request.app.state.model.index is None:
        return JSONResponse({"message": "Immich ML"})
    return _file("index.html")


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """What the page consists of."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in TYPES:
        raise NotFoundError(f"the file {name[:40]}", expected=", ".join(TYPES), fix="use one of them")
    data = files("edgeclip.serve").joinpath("page", name).read_bytes()
    return Response(data, media_type=TYPES[name], headers={"Cache-Control": "no-cache"})
