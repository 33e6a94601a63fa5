"""A server process, from the socket to its end."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from typing import Any

import uvicorn

from edgeclip.errors import ConfigError
from edgeclip.serve.app import create_app
from edgeclip.serve.gate import LOOPBACK, token_of
from edgeclip.serve.serve_settings import ServeSettings

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 90
"""Node's fetch, which Immich uses, keeps connections: one that is closed between two requests is an error there."""


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT; what was accepted by then is finished.

    Raises:
        EdgeclipError: the bundle, the index, the token or the address can't be used.
    """
    app = create_app(settings)
    server_socket = listening(settings)
    if settings.host not in LOOPBACK and token_of(settings) is None:
        logger.warning("anyone who reaches %s may use this server: give it a token, see --token-file", settings.host)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.timeout,
    )
    server = uvicorn.Server(config)

    def stop(*_: Any) -> None:
        server.should_exit = True

    # uvicorn raises again what has ended it: it is the expected end.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        host, port = server_socket.getsockname()[:2]
        logger.info("serving %s on http://%s:%d", app.state.name, f"[{host}]" if ":" in host else host, port)
        server.run(sockets=[server_socket])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    logger.info("stopped")


def listening(settings: ServeSettings) -> socket.socket:
    """A socket that clients can connect to.

    Raises:
        ConfigError: the address is in use, or none of this machine.
    """
    server = None
    try:
        where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = where[0]
        # With its protocol, which `socket.create_server` leaves out: else asyncio lets answers wait for 40 ms (Nagle).
        server = socket.socket(family, kind, protocol)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()
    except OSError as error:
        if server:
            server.close()
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"`host` {settings.host} and `port` {settings.port} ({error.strerror or error})",
            expected="an address of this machine that is free",
            fix=f"give another {'`port`' if in_use else '`host`, such as 127.0.0.1'}",
        ) from error
    return server
