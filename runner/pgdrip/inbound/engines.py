"""The connections the server shares: each serves one request at a time."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgdrip.engine import Engine
from pgdrip.errors import DatabaseUnavailable, EngineRefused

logger = logging.getLogger(__name__)

# Seconds. The most impatient provider (GoWA) waits 10 for an answer.
WAIT = 9.0

T = TypeVar("T")


class Engines:
    """At most `size` connections to one database, opened when first needed."""

    def __init__(self, dsn: str, *, size: int) -> None:
        self._dsn = dsn
        self._idle: list[Engine] = []
        self._free = asyncio.Semaphore(size)

    async def run(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Work on a connection; once more on a new one if that one was dead.

        The work must be harmless when repeated. Raises DatabaseUnavailable after WAIT
        seconds, whatever it waits for.
        """
        try:
            async with asyncio.timeout(WAIT), self._free:
                while self._idle:
                    with contextlib.suppress(DatabaseUnavailable):
                        return await self._work(self._idle.pop(), work)
                return await self._work(await self._connect(), work)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"no answer from the database within {WAIT:g} s"
            ) from None

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connect(self) -> Engine:
        return await Engine.connect(
            self._dsn, application_name="pgdrip serve", writable=True, timeout=WAIT
        )

    async def _work(self, engine: Engine, work: Callable[[Engine], Awaitable[T]]) -> T:
        try:
            done = await work(engine)
        except EngineRefused:
            self._idle.append(engine)
            raise
        except BaseException:
            await engine.close()
            raise
        self._idle.append(engine)
        return done
