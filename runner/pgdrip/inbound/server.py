"""uvicorn around the application, with a deadline on every request."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from pgdrip.engine import Engine
from pgdrip.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 20.0  # from a request's first byte to its last
CONNECTIONS = 1000
GRACE = 10  # seconds for what is in flight when asked to stop
HEADERS = 16 * 1024  # bytes
PROXIED = "pgdrip.is_proxied"
TOO_SLOW = (
    f"HTTP/1.1 408 {HTTPStatus.REQUEST_TIMEOUT.phrase}\r\n"
    "Connection: close\r\nContent-Length: 0\r\n\r\n"
).encode()


class DeadlineProtocol(H11Protocol):
    """Closes a connection whose request takes too long to arrive.

    That goes for headers, which uvicorn awaits for ever, and for the rest of a body
    that was answered before its end; of a slow body the application itself tells.
    """

    seconds = REQUEST_SECONDS
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        is_arriving = state is h11.SEND_BODY or (
            state is h11.IDLE and bool(self.conn.trailing_data[0])
        )
        if not is_arriving:
            self._stop()
        elif self._deadline is None:
            self._start()

    def _start(self) -> None:
        self._deadline = self.loop.call_later(self.seconds, self._expire)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
            self.transport.write(TOO_SLOW)
        self.transport.close()


class Server(uvicorn.Server):
    """Stops on SIGTERM and Ctrl-C as uvicorn does, but does not die of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on; OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS)


async def run(
    app: Starlette, listener: socket.socket, *, trusted_proxies: Sequence[str] = ()
) -> None:
    """Serve until a signal comes.

    A client is who connects, or whom a trusted proxy names in X-Forwarded-For. Raises
    at once what no waiting mends: SchemaMismatch, PermissionDenied and the like.
    """
    try:
        await app.state.engines.run(Engine.schema_version)
    except DatabaseUnavailable as error:
        logger.warning("no database yet", extra={"reason": error.message})
    address = "{}:{}".format(*listener.getsockname()[:2])
    logger.info("server started", extra={"listens": address})
    await Server(configure(app, trusted_proxies)).serve(sockets=[listener])
    logger.info("server stopped")


def configure(app: Starlette, trusted_proxies: Sequence[str] = ()) -> uvicorn.Config:
    return uvicorn.Config(
        behind_proxies(app, trusted_proxies) if trusted_proxies else app,
        http=DeadlineProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,  # a path may be somebody's link
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADERS,
        timeout_graceful_shutdown=GRACE,
    )


def behind_proxies(app: Starlette, trusted_proxies: Sequence[str]) -> ASGIApp:
    """The application, told by trusted proxies who its clients are."""
    trusted = list(trusted_proxies)
    inner = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        scope[PROXIED] = peer is not None and peer[0] in inner.trusted_hosts
        await inner(scope, receive, send)  # type: ignore[arg-type]

    return outer


def is_proxied(scope: Scope) -> bool:
    """Whether a trusted proxy made the request, so that its headers can be believed."""
    return bool(scope.get(PROXIED))
