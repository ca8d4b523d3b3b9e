"""The runner: claims what is due, sends it through the channels, reports the outcome.

Two coroutines own a database connection each: the feeder takes messages in, the
reporter tells what became of them, so that neither a slow claim nor a long queue keeps
a result from being told. Each send is a task of its own that ends as one result.

What it holds decides what a crash leaves behind:

    unbegun   claimed, leased; claimable again after the lease
    sending   begun; uncertain after the lease
    results   the outcome is known here, and in the spool if there is one; kept through
              every reconnect, since a report may be repeated

All three count against `slots`, so a slow database slows the claiming. Deadlines are
monotonic time from before the claim was asked for, by the differences the database
gave: neither the wall clock nor a stopped process makes a message go out late.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from pgdrip.breaker import Breakers
from pgdrip.channels import Channel
from pgdrip.engine import Engine
from pgdrip.errors import ConfigurationError, PgdripError
from pgdrip.feeder import Feeder
from pgdrip.link import Link, Turn
from pgdrip.reporter import Reporter
from pgdrip.results import Result
from pgdrip.sending import NOT_SENT, Ended, Sends
from pgdrip.settings import Settings
from pgdrip.stats import Stats

FRESH = 15.0  # seconds since the last claim for which a runner is ready

logger = logging.getLogger(__name__)


class Runner:
    """Runs until `stop` is set and everything in flight is reported.

    `once`: until nothing is due. `on_idle` is awaited each time nothing is due and
    nothing in flight, instead of a wait: True claims again, False stops. `on_start` is
    called once, when it is connected. Raises PgdripError when it cannot start or go on.
    """

    def __init__(
        self,
        dsn: str = "",
        *,
        channels: Mapping[str, Channel],
        settings: Settings | None = None,
        once: bool = False,
        on_idle: Callable[[], Awaitable[bool]] | None = None,
        on_start: Callable[[], None] = lambda: None,
        stop: asyncio.Event | None = None,
    ) -> None:
        if not channels:
            raise ConfigurationError("no channel to send through")
        self.settings = settings or Settings()
        self.stats = Stats()
        self._stop = stop or asyncio.Event()
        self.breakers = Breakers(channels)
        self.sends = Sends(
            channels,
            slots=self.settings.slots,
            per_sender=self.settings.per_sender,
            timeout=self.settings.timeout,
            on_end=self._ended,
        )
        self._reporter = Reporter(
            self.settings,
            sends=self.sends,
            stats=self.stats,
            stop=self._stop,
            on_change=self._claim_soon,
        )
        self._feeder = Feeder(
            self.settings,
            sends=self.sends,
            breakers=self.breakers,
            stats=self.stats,
            stop=self._stop,
            in_flight=lambda: self.in_flight,
            on_idle=self._idle if once or on_idle else None,
        )
        self._on_idle = on_idle
        self._on_start = on_start
        self._feeds, self._tells = (
            Link(dsn, runner=self.settings.name, stats=self.stats) for _ in range(2)
        )
        self._is_fed = False  # nothing unbegun is left, and nothing more will come
        self._error: PgdripError | None = None

    @property
    def in_flight(self) -> int:
        """Messages claimed here and not yet reported."""
        return len(self.sends) + self.unreported

    @property
    def unreported(self) -> int:
        return len(self._reporter.results)

    @property
    def is_alive(self) -> bool:
        """Whether both coroutines take their turns."""
        return self._feeds.is_alive and self._tells.is_alive

    @property
    def is_connected(self) -> bool:
        return self._feeds.engine is not None and self._tells.engine is not None

    @property
    def claimed_ago(self) -> float:
        """Seconds since it asked for work, or had no room and told so."""
        feeder = self._feeder
        told_at = feeder.claimed_at if feeder.has_room else self._reporter.ticked_at
        return monotonic() - max(feeder.claimed_at, told_at)

    @property
    def is_ready(self) -> bool:
        """Whether it sends what becomes due."""
        is_working = self.is_connected and self.claimed_ago < FRESH
        return is_working and not self._stop.is_set()

    async def run(self) -> None:
        watch = asyncio.create_task(self._watch_stop())
        try:
            await self._feeds.connect()
            await self._reporter.open_spool(await self._tells.connect())
            self._on_start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed())
                group.create_task(self._tell())
        finally:
            watch.cancel()
            self._abandon()
            await self._feeds.close()
            await self._tells.close()
        if self._error:
            raise self._error

    def end_grace(self) -> None:
        """Wait no longer for what is in flight."""
        self._reporter.grace_ends = monotonic()
        self._wake()

    async def _feed(self) -> None:
        await self._take_turns(
            self._feeds,
            self._feeder.turn,
            until=lambda: self._stop.is_set() and not self.sends.unbegun,
        )
        self._is_fed = True
        self._wake()

    async def _tell(self) -> None:
        await self._take_turns(
            self._tells,
            self._reporter.turn,
            until=lambda: (
                self._is_fed and not self.sends.is_sending and not self.unreported
            ),
        )

    async def _take_turns(
        self, link: Link, turn: Turn, *, until: Callable[[], bool]
    ) -> None:
        """An error that will not pass stops the runner, and this coroutine when it
        comes again: what is in flight has its chance. So has any after the grace."""
        is_hopeless = False
        while not until():
            try:
                next_at = await link.take(turn, self._stop)
            except PgdripError as error:
                self._error = self._error or error
                self._stop.set()
                if is_hopeless:
                    break
                is_hopeless = True
                continue
            if link.error and self._reporter.grace_ends <= monotonic():
                self._error = self._error or link.error
                break
            if not until():
                await link.rest(next_at)
        link.done()

    async def _idle(self, engine: Engine) -> bool:
        """Whether there is more to do, asked when nothing is due or in flight."""
        if await self._reporter.tick(engine):
            return True
        if self._on_idle:
            return await self._on_idle()
        return await self._feeder.more_is_due(engine)

    async def _watch_stop(self) -> None:
        await self._stop.wait()
        logger.info("stopping", extra={"in_flight": self.in_flight})
        grace_ends = monotonic() + self.settings.grace
        self._reporter.grace_ends = min(self._reporter.grace_ends, grace_ends)
        self._wake()

    def _abandon(self) -> None:
        """Whatever is left when run() ends with an error."""
        unreported = [result.token for result in self._reporter.results]
        if tokens := [*self.sends.abandon(), *unreported]:
            logger.error("stopped without a report", extra={"tokens": tokens})
        self._reporter.close()

    def _ended(self, ended: Ended) -> None:
        """What a send came to becomes a result; its place goes to the next."""
        result = Result.of(ended.message, self.breakers.judge(ended))
        self.stats.outcomes[result.channel, result.outcome] += 1
        if ended.outcome is not NOT_SENT:
            self.stats.sends[result.channel].add(ended.seconds)
        if self._reporter.add(result):
            self._tells.wake.set()
        if self.sends.beginning:
            self._feeds.wake.set()

    def _claim_soon(self) -> None:
        self._feeder.claim_soon()
        self._feeds.wake.set()

    def _wake(self) -> None:
        self._feeds.wake.set()
        self._tells.wake.set()
