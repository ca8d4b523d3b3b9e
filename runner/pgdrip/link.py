"""A connection that one coroutine works with in turns, and what becomes of errors."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from pgdrip.engine import Engine
from pgdrip.errors import (
    ENGINE_LOCKED,
    OUT_OF_SPACE,
    ConfigurationError,
    DatabaseUnavailable,
    PermissionDenied,
    PgdripError,
    SchemaMismatch,
)
from pgdrip.stats import Stats

CALL_TIMEOUT = 20.0  # seconds
FIRST_DELAY, LAST_DELAY = 0.05, 30.0  # seconds of back-off
UNEXPECTED = 3  # errors in a row that may pass though nobody knows why
STUCK = 180.0  # seconds without a turn, retries and back-off included
HOPELESS = (SchemaMismatch, PermissionDenied, ConfigurationError)
NEVER = float("inf")

logger = logging.getLogger(__name__)

# Does what is due; returns the monotonic time of the next turn, unless it is woken.
Turn = Callable[[Engine], Awaitable[float]]


class Link:
    """`error` is what the last turn failed with; None: it went well."""

    def __init__(self, dsn: str, *, runner: str, stats: Stats) -> None:
        self.engine: Engine | None = None
        self.error: PgdripError | None = None
        self.wake = asyncio.Event()
        self._dsn = dsn
        self._runner = runner
        self._stats = stats
        self._failures = 0
        self._turned_at = monotonic()
        self._is_done = False

    @property
    def is_alive(self) -> bool:
        """Whether it takes its turns; a database that is away is no bar."""
        return self._is_done or monotonic() - self._turned_at < STUCK

    async def connect(self) -> Engine:
        self.engine = await Engine.connect(
            self._dsn,
            application_name="pgdrip-runner",
            writable=True,
            timeout=CALL_TIMEOUT,
        )
        told = {"runner": self._runner, "pooled": self.engine.is_pooled}
        logger.info("connected", extra=told)
        return self.engine

    async def take(self, turn: Turn, stop: asyncio.Event) -> float:
        """One turn; when the next one is due. An error that may pass by itself costs
        the connection and a back-off; any other is raised."""
        self._turned_at = monotonic()
        try:
            engine = self.engine or await self.connect()
            next_at = await turn(engine)
        except PgdripError as error:
            self.error = error
            self._stats.database_errors += 1
            self._failures += 1
            if not self._may_pass(error):
                raise
            await self._back_off(error, stop)
            return 0.0
        self.error, self._failures = None, 0
        return next_at

    async def rest(self, until: float) -> None:
        """Wait until then, or for `wake`."""
        await pause(self.wake, until - monotonic())
        self.wake.clear()

    async def close(self) -> None:
        """Until the next turn, if there is one."""
        engine, self.engine = self.engine, None
        if engine:
            await engine.close()

    def done(self) -> None:
        """There will be no more turns."""
        self._is_done = True

    def _may_pass(self, error: PgdripError) -> bool:
        if isinstance(error, HOPELESS):
            return False
        is_known = isinstance(error, DatabaseUnavailable)
        is_known = is_known or error.sqlstate == ENGINE_LOCKED
        return is_known or self._failures <= UNEXPECTED

    async def _back_off(self, error: PgdripError, stop: asyncio.Event) -> None:
        """Full jitter, so that many runners do not come back at once."""
        await self.close()
        doublings = 10 if error.sqlstate in OUT_OF_SPACE else min(self._failures, 10)
        delay = random.uniform(0, min(LAST_DELAY, FIRST_DELAY * 2.0**doublings))
        told: dict[str, object] = {"error": error.message, "sqlstate": error.sqlstate}
        told |= {"retry_in": round(delay, 3)}
        logger.warning("a call of the database failed", extra=told)
        if stop.is_set():
            await asyncio.sleep(min(delay, 1.0))
        else:
            await pause(stop, delay)


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Until the event, at most so long."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == NEVER else seconds):
                await event.wait()
