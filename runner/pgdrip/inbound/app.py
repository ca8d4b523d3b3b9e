"""The application: webhooks, unsubscribe links and whatever routes are added."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pgdrip.engine import Engine
from pgdrip.errors import ConfigurationError, PgdripError
from pgdrip.inbound.engines import Engines
from pgdrip.inbound.events import Counts, tell
from pgdrip.inbound.limits import Latest, RateLimit
from pgdrip.inbound.metrics import Metrics
from pgdrip.inbound.provider import Post, Provider
from pgdrip.inbound.reading import decoded, read_body, require_type
from pgdrip.inbound.settings import Settings
from pgdrip.inbound.unsubscribe import Unsubscribe

logger = logging.getLogger(__name__)

EVENTS = 1000  # of one request
REMEMBERED = 50_000  # requests answered lately


def create_app(
    settings: Settings,
    *,
    routes: Sequence[BaseRoute] = (),
    work: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Starlette:
    """All that `serve` answers: inbound_routes(), `routes`, /livez, /readyz, /metrics.

    Raises ConfigurationError for a secret that is missing, short or known, or when
    there is nothing to serve. What is added may use `app.state.engines` and `.limit`;
    `work` goes on in the background while the server runs.
    """
    engines = Engines(settings.dsn, size=settings.connections)
    limit = RateLimit(settings.rate)
    served = [*inbound_routes(settings, engines, limit), *routes]
    if not served and not settings.metrics_secrets:
        raise ConfigurationError(
            "nothing to serve",
            hint="name the secret of a provider or of unsubscribe links",
        )
    metrics = Metrics(settings.metrics_tokens(), engines, limit)
    own = [
        Route("/livez", _live),
        Route("/readyz", _ready),
        Route("/metrics", metrics.show),
    ]
    app = Starlette(
        routes=[*served, *own],
        exception_handlers={PgdripError: _unavailable},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False  # RFC 8058: no redirects
    app.state.engines = engines
    app.state.limit = limit
    app.state.work = work
    return app


def inbound_routes(
    settings: Settings, engines: Engines, limit: RateLimit
) -> list[Route]:
    """/hooks/<provider> of each that has a secret, and /unsubscribe/<token>."""
    routes = [
        Route(
            f"/hooks/{provider.name}",
            Hook(provider, settings, engines, limit).receive,
            methods=["GET", "POST"],
        )
        for provider in settings.providers()
    ]
    if settings.unsubscribe_secrets:
        page = Unsubscribe(settings.unsubscribe_keys(), engines, limit)
        routes.append(Route("/unsubscribe/{token}", page.show, methods=["GET", "POST"]))
    return routes


@dataclass(frozen=True, slots=True)
class Hook:
    """The webhook of one provider."""

    provider: Provider
    settings: Settings
    engines: Engines
    limit: RateLimit
    answered: Latest[Counts] = field(default_factory=lambda: Latest(REMEMBERED))

    async def receive(self, request: Request) -> Response:
        self.limit.require(request)
        if request.method != "POST":
            return self.provider.greet(request)
        post = await self._post(request)
        identity = self.provider.identify(post)
        if identity is None:
            logger.warning("forged webhook", extra=self._about(request))
            raise HTTPException(HTTPStatus.UNAUTHORIZED)
        counts = self.answered.get(identity)
        if counts is None:
            counts = await self._tell(request, post)
            self.answered.keep(identity, counts)
        return self.provider.answer(counts)

    async def _post(self, request: Request) -> Post:
        limit = self.settings.body_limit
        require_type(request, self.provider.media_type)
        body = await read_body(request, limit=limit, seconds=self.settings.body_seconds)
        return Post(
            url=self._public_url(request),
            headers=request.headers,
            body=body,
            content=decoded(request, body, limit=limit),
        )

    def _public_url(self, request: Request) -> str:
        """Path and query exactly as they were sent, at the public address."""
        path = request.scope["raw_path"].decode("ascii", "replace")
        query = request.scope["query_string"].decode("ascii", "replace")
        return f"{self.settings.base_url()}{path}{'?' if query else ''}{query}"

    async def _tell(self, request: Request, post: Post) -> Counts:
        try:
            events = self.provider.read(post)
        except ValueError as error:
            about = self._about(request) | {"reason": str(error)}
            logger.warning("unreadable webhook", extra=about)
            raise HTTPException(HTTPStatus.BAD_REQUEST) from None
        if len(events) > EVENTS:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return await self.engines.run(lambda engine: tell(engine, events))

    def _about(self, request: Request) -> dict[str, str | None]:
        client = request.client.host if request.client else None
        return {"provider": self.provider.name, "client": client}


async def _unavailable(request: Request, error: Exception) -> Response:
    """Whoever asked comes again; nobody learns why."""
    logger.error("database not available", extra={"reason": str(error)})
    return PlainTextResponse(
        "Service Unavailable", status_code=503, headers={"Retry-After": "5"}
    )


async def _live(request: Request) -> Response:
    return PlainTextResponse("alive")


async def _ready(request: Request) -> Response:
    """503 while the database cannot be reached."""
    request.app.state.limit.require(request)
    await request.app.state.engines.run(Engine.schema_version)
    return PlainTextResponse("ready")


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    work = app.state.work and asyncio.create_task(app.state.work())
    try:
        yield
    finally:
        if work:
            work.cancel()
            await asyncio.wait([work])
        await app.state.engines.close()
