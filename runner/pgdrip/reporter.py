"""The half of a runner that tells the database: it reports, renews leases and ticks."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from pgdrip import __version__
from pgdrip.engine import Engine
from pgdrip.link import NEVER
from pgdrip.results import Result, ids, report
from pgdrip.sending import Sends
from pgdrip.settings import Settings
from pgdrip.spool import Spool
from pgdrip.stats import Stats

REPORT_LIMIT = 500  # results in one call
FULL_REPORT = 200  # results that do not wait for company
COLLECT = 0.02  # seconds a result waits for company
TICK = 5.0  # seconds

logger = logging.getLogger(__name__)


class Reporter:
    """`on_change` is called when something may have become due."""

    def __init__(
        self,
        settings: Settings,
        *,
        sends: Sends,
        stats: Stats,
        stop: asyncio.Event,
        on_change: Callable[[], None],
    ) -> None:
        self.results: list[Result] = []
        self.ticked_at = -NEVER
        self.grace_ends = NEVER  # monotonic; then every send is cut
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease)
        self._sends = sends
        self._stats = stats
        self._stop = stop
        self._on_change = on_change
        self._spool: Spool | None = None
        self._limit = REPORT_LIMIT
        self._renew_at = self._flush_at = 0.0

    async def open_spool(self, engine: Engine) -> None:
        """What a run before left unreported is reported first."""
        if self._settings.spool:
            self._spool = Spool(
                self._settings.spool,
                name=self._settings.name,
                database=await engine.database_id(),
            )
            self.results += self._spool.found
            if self.results:
                told = {"results": len(self.results)}
                logger.info("reporting what the run before could not", extra=told)

    def close(self) -> None:
        if self._spool:
            self._spool.close()

    def add(self, result: Result) -> bool:
        """Keep a result until it is reported; whether that is due now."""
        if not self.results:
            self._flush_at = monotonic() + COLLECT
        self.results.append(result)
        if self._spool:
            self._spool.add(result)
        return len(self.results) == 1 or self._report_at() == 0.0

    async def turn(self, engine: Engine) -> float:
        if self.grace_ends <= monotonic():
            self._sends.cut()
        if self.results and self._report_at() <= monotonic():
            await self._report(engine)
        if self._renew_at <= monotonic():
            await self._renew(engine)
        if not self._stop.is_set() and self.ticked_at + TICK <= monotonic():
            await self.tick(engine)
        return self._next_at()

    async def tick(self, engine: Engine) -> int:
        """Say that the runner lives; how many enrollments that made."""
        with self._stats.timed("tick"):
            enrolled = await engine.tick(self._settings.name, __version__)
        self.ticked_at = monotonic()
        if enrolled:
            self._on_change()
        return enrolled

    def _next_at(self) -> float:
        times = [self._renew_at]
        if self._sends.is_sending:
            times.append(self.grace_ends)
        if self.results:
            times.append(self._report_at())
        if not self._stop.is_set():
            times.append(self.ticked_at + TICK)
        return min(times)

    def _report_at(self) -> float:
        alone = not self._sends.is_sending
        return 0.0 if alone or len(self.results) >= FULL_REPORT else self._flush_at

    async def _report(self, engine: Engine) -> None:
        """One batch; after a failure the next try is with half as many."""
        batch = self.results[: self._limit]
        self._limit = max(1, self._limit // 2)
        sync = asyncio.create_task(self._spool.sync()) if self._spool else None
        try:
            with self._stats.timed("report"):
                self._stats.verdicts += await report(engine, batch)
        finally:
            if sync:
                await sync
        self._limit = min(REPORT_LIMIT, self._limit * 4)
        del self.results[: len(batch)]
        if self._spool:
            self._spool.remove(batch)
        self._on_change()

    async def _renew(self, engine: Engine) -> None:
        self._renew_at = monotonic() + self._settings.lease / 3
        messages = self._sends.sending
        if not messages:
            return
        with self._stats.timed("heartbeat"):
            held = await engine.heartbeat(*ids(messages), lease=self._lease)
        if len(held) < len(messages):
            lost = len(messages) - len(held)
            logger.warning("leases lost while sending", extra={"messages": lost})
