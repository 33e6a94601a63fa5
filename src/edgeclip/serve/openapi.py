"""OpenAPI of requests that msgspec decodes, so that `/openapi.json` says what is accepted."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

_BODIES: list[type[msgspec.Struct]] = []
REFERENCE = "#/components/schemas/{name}"


def takes(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """A route's arguments for a body of this type."""
    _BODIES.append(type_)
    schema = {"$ref": REFERENCE.format(name=type_.__name__)}
    return {"openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}}


def describe(app: FastAPI) -> None:
    """Have `/openapi.json` hold the types that routes take."""
    usual = app.openapi

    def with_bodies() -> dict[str, Any]:
        document = usual()
        _, schemas = msgspec.json.schema_components(_BODIES, ref_template=REFERENCE)
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return document

    app.openapi = with_bodies  # type: ignore[method-assign]
