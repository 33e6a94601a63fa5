"""What every request passes, before a route sees any of it: who asks, how much, how long; and what is told of it."""

from __future__ import annotations

import hmac
import logging
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeclip.files import printable
from edgeclip.secret import secret_of
from edgeclip.serve.metrics import Metrics
from edgeclip.serve.problems import (
    MisdirectedError,
    RefusedError,
    TooLargeError,
    TooSlowError,
    UnauthorizedError,
    problem,
)
from edgeclip.serve.serve_settings import ServeSettings

logger = logging.getLogger(__name__)

TOKEN_VARIABLE, TOKEN_COOKIE = "EDGECLIP_TOKEN", "edgeclip_token"
OPEN_PATHS = {"/", "/healthz", "/readyz", "/ping"}
"""Without a token: what tells that a server is there, and the page, whose pictures need one."""
OPEN_FOLDER = "/static/"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def token_of(settings: ServeSettings) -> bytes | None:
    """The token that clients must send, None where there is none.

    Raises:
        ConfigError: it is empty, or nothing that a header can hold.
        OSError: its file can't be read.
    """
    token = secret_of(
        TOKEN_VARIABLE,
        settings.token_file,
        "`token_file`",
        fix="make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
    )
    return None if token is None else token.encode()


class Gate:
    """Middleware around the application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics, token: bytes | None) -> None:
        self._app, self._token, self._metrics = app, token, metrics
        self._most, self._timeout = settings.max_body_mb * 10**6, settings.timeout
        # A page elsewhere could have its name resolved to this address, and read what is served here.
        self._hosts = LOOPBACK | {settings.host} if settings.host in LOOPBACK and token is None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, received = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise self._too_large(received)
            return message

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            with anyio.fail_after(self._timeout):
                await self._app(scope, limited, with_headers)
        except RefusedError as error:
            await problem(error)(scope, receive, with_headers)
        except TimeoutError:
            if not status:
                await problem(self._too_slow())(scope, receive, with_headers)
        finally:
            self._tell(scope, status or 500, time.perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            raise MisdirectedError(
                f"the host {printable(headers.get('host', ''))[:80]!r}",
                expected=f"one of {', '.join(sorted(self._hosts))}",
                fix="use that, or start the server with a token, see `token_file`",
            )
        if self._token is not None and not self._is_open(scope["path"]) and not self._is_known(headers):
            raise UnauthorizedError(
                "a request without this server's token",
                expected="the header Authorization: Bearer TOKEN",
                fix="send the token that the server was started with",
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise self._too_large(int(length))

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)

    def _is_known(self, headers: Headers) -> bool:
        """Whether the token is there, as a header or, for the page's pictures, as a cookie; in constant time."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            try:
                cookie = SimpleCookie(headers.get("cookie", "")).get(TOKEN_COOKIE)
            except CookieError:
                cookie = None
            given = unquote(cookie.value) if cookie else ""
        return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token or b"")

    def _too_slow(self) -> TooSlowError:
        return TooSlowError(
            f"a request that took more than {self._timeout} s",
            expected="one that is done by then",
            fix="send less at once, or try again later",
        )

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(
            f"a body of {size} bytes or more",
            expected=f"at most {self._most}",
            fix="send less at once, or start the server with a larger `max_body_mb`",
        )

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        fields = {
            "method": scope["method"],
            "path": printable(scope["path"]),
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        logger.info("%(method)s %(path)r %(status)d %(milliseconds).1f ms", fields, extra={"task": fields})


def _host(header: str) -> str:
    """A Host header without its port, and without an IPv6 address's brackets."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdecimal() else header).strip("[]").lower()
