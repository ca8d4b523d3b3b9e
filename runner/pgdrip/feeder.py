"""The half of a runner that takes messages in: it gives back, begins and claims."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import monotonic

from pgdrip.breaker import Breakers
from pgdrip.engine import Engine
from pgdrip.link import NEVER
from pgdrip.results import ids
from pgdrip.sending import Claimed, Sends
from pgdrip.settings import CLAIM_LIMIT, Settings
from pgdrip.stats import Stats

FIRST_CLAIM = 16  # messages; doubled while all of a claim is of use
SLOW_CLAIM = 2.0  # seconds; the next one asks for less
COLLECT = 0.02  # seconds between claims that found what others hold
APART = 0.1  # seconds between claims while little is due: one takes what came meanwhile
POLL = 1.0  # seconds between claims when nothing is known to become due
START_WITHIN = 0.9  # of the time to send_by; the rest is for reaching the gateway
EMPTY_CLAIMS = 6  # in a row though work is overdue: then once a POLL, or the end

# Awaited when nothing is due and nothing in flight; False stops the runner.
OnIdle = Callable[[Engine], Awaitable[bool]]


class Feeder:
    """`in_flight` counts everything claimed and not yet reported."""

    def __init__(
        self,
        settings: Settings,
        *,
        sends: Sends,
        breakers: Breakers,
        stats: Stats,
        stop: asyncio.Event,
        in_flight: Callable[[], int],
        on_idle: OnIdle | None,
    ) -> None:
        self.claimed_at = -NEVER
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease)
        self._sends = sends
        self._breakers = breakers
        self._stats = stats
        self._stop = stop
        self._in_flight = in_flight
        self._on_idle = on_idle
        self._claim_at = 0.0
        self._is_changed = False  # since the last claim was asked for
        self._claim_limit = min(FIRST_CLAIM, settings.batch)
        self._empty_claims = 0

    @property
    def has_room(self) -> bool:
        return self._in_flight() < self._settings.slots

    def claim_soon(self) -> None:
        """Something became due, or may go out now."""
        self._claim_at = 0.0
        self._is_changed = True

    async def turn(self, engine: Engine) -> float:
        sends = self._sends
        self._drop_away()
        await self._begin(engine)
        if sends.unwanted:
            await self._give_back(engine)
        if not self._stop.is_set() and self.has_room and self._claim_at <= monotonic():
            await self._claim(engine)
        return self._next_at()

    def _next_at(self) -> float:
        if self._sends.beginning or self._sends.unwanted:
            return 0.0
        return min(self._claim_at if self.has_room else NEVER, self._sends.expire_at())

    async def more_is_due(self, engine: Engine) -> bool:
        """An `on_idle` that stops at the end of the work. A claim is empty, too, when
        it met only rows that must not be sent, and others may be at the rest."""
        self._empty_claims += 1
        seconds = await engine.wake_in()
        overdue = seconds is not None and seconds <= 0
        return overdue and self._empty_claims < EMPTY_CLAIMS

    async def _claim(self, engine: Engine) -> None:
        """Fill the free slots, begin, and plan the next claim."""
        self._is_changed = False
        limit = min(
            self._settings.slots - self._in_flight(),
            self._settings.batch,
            self._claim_limit,
        )
        got = useful = 0
        if channels := self._breakers.closed:
            got, useful = await self._claim_for(engine, channels, limit)
            self._drop_away()  # what went away in the meantime
        for channel in self._breakers.on_trial:
            if not self._sends.holds(channel):
                useful += (await self._claim_for(engine, [channel], 1))[0]
        self.claimed_at = monotonic()
        await self._begin(engine)
        if useful:
            self._empty_claims = 0
        if not (self._is_changed or (useful and got == limit)):
            await self._plan(engine, is_empty=not got)

    def _drop_away(self) -> None:
        for channel in self._breakers.away:
            self._sends.drop_unbegun(channel)

    async def _claim_for(
        self, engine: Engine, channels: list[str], limit: int
    ) -> tuple[int, int]:
        """How many it got, and how many of them can be sent in time."""
        asked_at = monotonic()
        with self._stats.timed("claim"):
            messages = await engine.claim(
                self._settings.name, limit, lease=self._lease, channels=channels
            )
        took = monotonic() - asked_at
        claimed = []
        for message in messages:
            granted = message.send_by - (message.lease_until - self._lease)
            start_by = asked_at + START_WITHIN * granted.total_seconds()
            claimed.append(Claimed(message, start_by))
        got = len(claimed)
        useful = got - self._sends.take(claimed)
        self._stats.claimed += got
        # What comes beyond use goes back, which costs as much as the claim of it; what
        # comes slowly is late.
        if useful < got:
            self._claim_limit = max(1, useful * 2)
        elif took > SLOW_CLAIM:
            self._claim_limit = max(1, limit // 2)
        elif got == limit == self._claim_limit:
            self._claim_limit = min(CLAIM_LIMIT, limit * 2)
        return got, useful

    async def _plan(self, engine: Engine, *, is_empty: bool) -> None:
        """When to claim again, after a claim that took all there is."""
        if self._on_idle and is_empty and self._in_flight() == 0:
            if not await self._on_idle(engine):
                self._stop.set()
            return
        seconds = await self._until_due(engine)
        if not self._is_changed:
            self._claim_at = monotonic() + seconds

    async def _until_due(self, engine: Engine) -> float:
        """Seconds until a claim may find something."""
        if self._on_idle:
            return POLL if self._in_flight() else COLLECT
        seconds = await engine.wake_in()
        if seconds is None or seconds > POLL:
            return random.uniform(0.8, 1.0) * POLL
        if seconds > 0:
            wait = seconds + random.uniform(0, 0.01)
            return max(wait, self.claimed_at + APART - monotonic())
        # Overdue and yet not claimed: other runners are at it, a gateway is away, or a
        # cause unknown here.
        self._empty_claims = min(self._empty_claims + 1, EMPTY_CLAIMS)
        return random.uniform(0.5, 1.0) * min(POLL, COLLECT * 2.0**self._empty_claims)

    async def _give_back(self, engine: Engine) -> None:
        messages = [claimed.message for claimed in self._sends.unwanted]
        with self._stats.timed("release"):
            released = await engine.release(*ids(messages))
        self._stats.given_back += len(released)
        self._sends.given_back(released)

    async def _begin(self, engine: Engine) -> None:
        """Send what begin_send() grants; after a lost answer it grants it again."""
        if self._stop.is_set():
            self._sends.drop_unbegun()
        elif self._sends.expire(monotonic()):
            self._claim_limit = max(1, self._claim_limit // 2)
        if messages := self._sends.ask():
            with self._stats.timed("begin_send"):
                granted = await engine.begin_send(*ids(messages))
            self._stats.refused += self._sends.begun(granted)
