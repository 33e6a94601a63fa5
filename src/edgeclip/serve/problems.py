"""What a client is told of its mistake: RFC 9457's problem+json, made of an error's own parts."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from edgeclip.errors import EdgeclipError

MEDIA_TYPE = "application/problem+json"


class RefusedError(EdgeclipError):
    """A request that is refused for another reason than what is in it."""

    status: HTTPStatus = HTTPStatus.BAD_REQUEST
    headers: Mapping[str, str] = {}


class UnauthorizedError(RefusedError):
    """No token, or another one."""

    status = HTTPStatus.UNAUTHORIZED
    headers = {"WWW-Authenticate": "Bearer"}


class NotFoundError(RefusedError):
    """Nothing of that name is served."""

    status = HTTPStatus.NOT_FOUND


class WrongMethodError(RefusedError):
    """A route that is used in another way."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class MisdirectedError(RefusedError):
    """Another server's name in the request."""

    status = HTTPStatus.MISDIRECTED_REQUEST


class TooSlowError(RefusedError):
    """A request that was not done in time."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": "5"}


class StaleError(RefusedError):
    """An index that the server can't use any more as it was started."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class TooLargeError(RefusedError):
    """A body that is longer than what is read."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnreadableError(RefusedError):
    """A body of another form than the route's."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class BusyError(RefusedError):
    """As many requests wait as there is room for."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    headers = {"Retry-After": "1"}


class UpstreamError(RefusedError):
    """The server that requests are passed on to gave no answer."""

    status = HTTPStatus.BAD_GATEWAY


def problem(error: EdgeclipError) -> Response:
    """The answer that an error makes: its line, and the line's parts."""
    refused = error if isinstance(error, RefusedError) else RefusedError
    return _answer(refused.status, str(error), refused.headers, got=error.got, expected=error.expected, fix=error.fix)


def broken() -> Response:
    """The answer where the mistake is not the client's; what went wrong is the log's."""
    detail = "the server could not do this; expected nothing else of the client; see the server's log"
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, detail, {})


def _answer(status: HTTPStatus, detail: str, headers: Mapping[str, str], **parts: str) -> Response:
    """`message` is where OpenAI's and Cohere's clients look for the line."""
    told = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, "message": detail}
    return Response(msgspec.json.encode(told | parts), status.value, headers, MEDIA_TYPE)
