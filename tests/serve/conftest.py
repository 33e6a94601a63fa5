from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from edgeclip.runtime import ClipRuntime, load
from edgeclip.serve.app import create_app
from edgeclip.serve.serve_settings import ServeSettings

HERE = "http://127.0.0.1"
Served = Callable[..., TestClient]


@pytest.fixture(scope="session")
def clip() -> ClipRuntime:
    return load("builtin:tabletop", threads=1)


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve the built-in bundle by these settings, within this process, until the test ends."""
    with ExitStack() as stack:

        def serve(**settings: object) -> TestClient:
            app = create_app(ServeSettings(**({"bundle": "builtin:tabletop", "threads": 1} | settings)))
            return stack.enter_context(TestClient(app, base_url=HERE, raise_server_exceptions=False))

        yield serve
