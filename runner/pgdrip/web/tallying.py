"""Counting what pages show, beforehand: each thing as often as its cost allows."""

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from time import monotonic

from pgdrip.engine import Engine
from pgdrip.errors import PgdripError

logger = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds that one count may take
WATCHED = 60.0  # seconds for which a look counts as looking
UNWATCHED = 30.0  # so many times as rarely, while nobody looks


@dataclass(frozen=True, slots=True)
class Count:
    """One thing tally() counts: not more often than every `seconds`, and never with
    more than `share` of the time."""

    name: str
    seconds: float
    share: float = 0.02


COUNTS = (
    Count("history", 2, share=0.5),
    Count("queue", 2, share=0.1),
    Count("enrollments", 2),
    Count("live", 2),
    Count("senders", 5),
    Count("forecast", 5),
    Count("receipts", 10),
    Count("check", 30, share=0.01),
)


class Tallying:
    """Keeps the counts fresh, on a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ended = dict.fromkeys(COUNTS, -TIMEOUT)
        self._took = dict.fromkeys(COUNTS, 0.0)
        self._hurried: set[Count] = set()
        self._watched_at = -TIMEOUT
        self._called = asyncio.Event()

    def look(self) -> None:
        """Somebody looks: what nobody looked at is old."""
        was_watched = self._is_watched()
        self._watched_at = monotonic()
        if not was_watched:
            self.changed()

    def changed(self) -> None:
        """Something was done: count everything again, as soon as the shares allow."""
        self._hurried.update(COUNTS)
        self._called.set()

    async def run(self) -> None:
        """Until cancelled; what the database refuses is tried again later."""
        while True:
            try:
                async with await Engine.connect(
                    self._dsn,
                    application_name="pgdrip page",
                    writable=True,
                    timeout=TIMEOUT,
                ) as engine:
                    await self._keep(engine)
            except PgdripError as error:
                logger.warning("nothing was counted", extra={"reason": error.message})
                await asyncio.sleep(random.uniform(2, 10))

    async def _keep(self, engine: Engine) -> None:
        while True:
            self._called.clear()
            for count in COUNTS:
                if self._due(count) <= monotonic():
                    await self._count(engine, count)
            rest = min(map(self._due, COUNTS)) - monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(rest, 0.0)):
                    await self._called.wait()

    async def _count(self, engine: Engine, count: Count) -> None:
        self._hurried.discard(count)
        began = monotonic()
        try:
            await engine.tally(count.name)
        finally:
            self._ended[count] = monotonic()
            self._took[count] = self._ended[count] - began

    def _due(self, count: Count) -> float:
        """When to count it again, by the monotonic clock."""
        rest = count.seconds * (1.0 if self._is_watched() else UNWATCHED)
        if count in self._hurried:
            rest = 0.0
        return self._ended[count] + max(rest, self._took[count] / count.share)

    def _is_watched(self) -> bool:
        return monotonic() - self._watched_at < WATCHED
