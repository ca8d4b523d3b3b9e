"""The runner: claims what is due, sends it through the channels, reports the outcome.

One coroutine owns the database connection and works in turns: report, begin, renew,
tick, claim, wait. So its calls never overlap, and none is open while a message is on
the wire. Each send is a task of its own that ends as one result.

What it holds decides what a crash leaves behind:

    claimed   leased, not begun; claimable again after the lease
    sending   begun; uncertain after the lease
    results   the outcome is known here only; kept through every reconnect, since a
              report may be repeated

All three count against `slots`, so a slow database slows the claiming. Deadlines are
monotonic time from before the claim was asked for, by the differences the database
gave: neither the wall clock nor a stopped process makes a message go out late.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from pgdrip import __version__
from pgdrip.channels import Channel, Failed, Outcome, Uncertain, open_channels
from pgdrip.engine import TWO_MINUTES, ClaimedMessage, Engine
from pgdrip.errors import (
    ENGINE_LOCKED,
    OUT_OF_SPACE,
    ConfigurationError,
    DatabaseUnavailable,
    PermissionDenied,
    PgdripError,
    SchemaMismatch,
)
from pgdrip.results import Result, fields, ids, report

CLAIM_LIMIT = 1000  # what claim() takes at most
REPORT_LIMIT = 500  # results in one call
FULL_REPORT = 200  # results that do not wait for company
COLLECT = 0.02  # seconds a result waits for company
TICK = 5.0  # seconds
POLL = 1.0  # seconds between claims when nothing is known to become due
CALL_TIMEOUT = 20.0  # seconds
START_WITHIN = 0.9  # of the time to send_by; the rest is for reaching the gateway
FIRST_DELAY, LAST_DELAY = 0.05, 30.0  # seconds of back-off
EMPTY_CLAIMS = 6  # in a row though work is overdue: then once a POLL, or the end
UNEXPECTED = 3  # errors in a row, then the runner stops
NOT_SENT = Failed("transient", "not sent: its time was over before the request")
HOPELESS = (SchemaMismatch, PermissionDenied, ConfigurationError)

logger = logging.getLogger(__name__)

OnIdle = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message and the monotonic time by which its send must have started."""

    message: ClaimedMessage
    start_by: float


class Runner:
    """Runs until `stop` is set and everything in flight is reported.

    `once`: until nothing is due. `on_idle` is awaited each time nothing is due and
    nothing in flight, instead of a wait: True claims again, False stops.
    Raises PgdripError when it cannot start or go on.
    """

    def __init__(
        self,
        dsn: str = "",
        *,
        channels: Mapping[str, Channel],
        name: str | None = None,
        slots: int = 100,
        batch: int = CLAIM_LIMIT,
        lease: timedelta = TWO_MINUTES,
        send_timeout: float = 60.0,
        grace: float = 30.0,
        once: bool = False,
        on_idle: OnIdle | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        if not channels:
            raise ConfigurationError("no channel to send through")
        if slots < 1 or not 1 <= batch <= CLAIM_LIMIT:
            raise ConfigurationError(f"slots must be > 0, batch 1 to {CLAIM_LIMIT}")
        if not 0 < send_timeout < lease.total_seconds() <= 3600:
            raise ConfigurationError(
                f"lease ({lease}) must be longer than the send timeout"
                f" ({send_timeout:g} s) and at most an hour"
            )
        self.name = name or f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._dsn = dsn
        self._channels = channels
        self._slots = slots
        self._batch = batch
        self._lease = lease
        self._send_timeout = send_timeout
        self._grace = grace
        self._on_idle = self._more_is_due if once else on_idle
        self._stop = stop or asyncio.Event()

        self._engine: Engine | None = None
        self._claimed: list[Claimed] = []
        self._sending: dict[int, tuple[ClaimedMessage, asyncio.Task[None]]] = {}
        self._results: list[Result] = []
        self._wake = asyncio.Event()

        self._claim_at = self._tick_at = self._renew_at = self._flush_at = 0.0
        self._grace_ends: float | None = None
        self._empty_claims = self._failures = 0
        self._fatal: PgdripError | None = None

    @property
    def in_flight(self) -> int:
        """Messages claimed here and not yet reported."""
        return len(self._claimed) + len(self._sending) + len(self._results)

    async def run(self) -> None:
        watch = asyncio.create_task(self._watch_stop())
        try:
            self._engine = await self._connect()
            while self.in_flight or not self._stop.is_set():
                try:
                    await self._turn()
                    self._failures = 0
                except PgdripError as error:
                    await self._recover(error)
        finally:
            watch.cancel()
            self._abandon()
            if self._engine:
                await self._engine.close()
        if self._fatal:
            raise self._fatal

    async def _turn(self) -> None:
        if self._stop.is_set():
            self._grace_ends = self._grace_ends or monotonic() + self._grace
            if monotonic() >= self._grace_ends:
                self._cut_sends()
        engine = self._engine = self._engine or await self._connect()
        if self._results and self._report_at() <= monotonic():
            batch = self._results[:REPORT_LIMIT]
            await report(engine, batch)
            del self._results[: len(batch)]
            self._claim_at = 0.0  # a next step may be due, a sender free again
        if self._claimed:
            await self._begin(engine)
        if self._sending and self._renew_at <= monotonic():
            await self._renew(engine)
        if not self._stop.is_set():
            if self._tick_at <= monotonic():
                await self._tick(engine)
            if self.in_flight < self._slots and self._claim_at <= monotonic():
                await self._claim(engine)
        await self._wait()

    async def _claim(self, engine: Engine) -> None:
        """Fill the free slots; when that took all there is, plan the next claim."""
        limit = min(self._slots - self.in_flight, self._batch)
        asked_at = monotonic()
        messages = await engine.claim(
            self.name, limit, lease=self._lease, channels=sorted(self._channels)
        )
        for message in messages:
            granted = message.send_by - (message.lease_until - self._lease)
            start_by = asked_at + START_WITHIN * granted.total_seconds()
            self._claimed.append(Claimed(message, start_by))
        if messages:
            self._empty_claims = 0
            await self._begin(engine)
        if len(messages) == limit:
            return
        if self._on_idle and not messages and self.in_flight == 0:
            if not await self._tick(engine) and not await self._on_idle():
                self._stop.set()
        else:
            self._claim_at = monotonic() + await self._until_due(engine)

    async def _until_due(self, engine: Engine) -> float:
        """Seconds until a claim may find something."""
        if self._on_idle:
            return POLL if self.in_flight else COLLECT
        seconds = await engine.wake_in()
        if seconds is None or seconds > POLL:
            return random.uniform(0.8, 1.0) * POLL
        if seconds > 0:
            return seconds + random.uniform(0, 0.01)
        # Overdue and yet not claimed: other runners are at it, or a cause unknown here.
        self._empty_claims = min(self._empty_claims + 1, EMPTY_CLAIMS)
        return random.uniform(0.5, 1.0) * min(POLL, COLLECT * 2.0**self._empty_claims)

    async def _more_is_due(self) -> bool:
        """The hook of `once`: a claim is empty, too, when it met only rows that must
        not be sent, and other runners may be at the rest."""
        self._empty_claims += 1
        seconds = await self._engine.wake_in() if self._engine else None
        overdue = seconds is not None and seconds <= 0
        return overdue and self._empty_claims < EMPTY_CLAIMS

    async def _begin(self, engine: Engine) -> None:
        """Send what begin_send() grants; give back what is too late, or all at the end.

        The messages stay in `claimed` until the calls succeed. After a lost answer one
        may be begun already: begin_send() grants it again, release() leaves it out.
        """
        now = monotonic()
        ending = self._stop.is_set()
        late = [c for c in self._claimed if ending or c.start_by <= now]
        if late:
            released = set(await engine.release(*ids(c.message for c in late)))
            for claimed in late:
                self._claimed.remove(claimed)
                if claimed.message.token not in released:
                    self._add(claimed.message, NOT_SENT)
        if self._claimed:
            begun = await engine.begin_send(*ids(c.message for c in self._claimed))
            granted = set(begun)
            for claimed in self._claimed:
                if claimed.message.token in granted:
                    task = asyncio.create_task(self._send(claimed))
                    self._sending[claimed.message.token] = (claimed.message, task)
            self._claimed = []

    async def _send(self, claimed: Claimed) -> None:
        message = claimed.message
        try:
            if claimed.start_by <= monotonic():
                outcome: Outcome = NOT_SENT
            else:
                async with asyncio.timeout(self._send_timeout):
                    outcome = await self._channels[message.channel].send(message)
        except TimeoutError:
            outcome = Uncertain(f"no outcome within {self._send_timeout:g} s")
        except asyncio.CancelledError:
            outcome = Uncertain("cancelled")
        except (Exception, SystemExit) as error:
            logger.exception("channel raised", extra=fields(message))
            outcome = Uncertain(f"channel raised {type(error).__name__}")
        # Gone already when the grace period was over first.
        if self._sending.pop(message.token, None):
            self._add(message, outcome)

    def _add(self, message: ClaimedMessage, outcome: Outcome) -> None:
        if not self._results:
            self._flush_at = monotonic() + COLLECT
        self._results.append(Result(message, outcome))
        self._wake.set()

    def _report_at(self) -> float:
        alone = not self._sending
        return 0.0 if alone or len(self._results) >= FULL_REPORT else self._flush_at

    async def _renew(self, engine: Engine) -> None:
        messages = [message for message, _ in self._sending.values()]
        held = await engine.heartbeat(*ids(messages), lease=self._lease)
        self._renew_at = monotonic() + self._lease.total_seconds() / 3
        if len(held) < len(messages):
            lost = len(messages) - len(held)
            logger.warning("leases lost while sending", extra={"messages": lost})

    async def _tick(self, engine: Engine) -> int:
        enrolled = await engine.tick(self.name, __version__)
        self._tick_at = monotonic() + TICK
        if enrolled:
            self._claim_at = 0.0
        return enrolled

    async def _wait(self) -> None:
        """Until something has to be done, or a send ends."""
        times = []
        if self._stop.is_set():
            times.append((self.in_flight and self._grace_ends) or 0.0)
        else:
            times.append(self._tick_at)
            if self.in_flight < self._slots:
                times.append(self._claim_at)
        if self._sending:
            times.append(self._renew_at)
        if self._results:
            times.append(self._report_at())
        await _pause(self._wake, min(times) - monotonic())
        self._wake.clear()

    async def _watch_stop(self) -> None:
        await self._stop.wait()
        self._wake.set()

    def _cut_sends(self) -> None:
        """At the end of the grace period, whether or not a channel heeds the cancel."""
        sending, self._sending = self._sending, {}
        for message, task in sending.values():
            task.cancel()
            self._add(message, Uncertain("the runner stopped before it was answered"))

    async def _recover(self, error: PgdripError) -> None:
        """Back off and connect anew; what cannot pass by itself drains and stops."""
        if self._fatal or (self._grace_ends and self._grace_ends <= monotonic()):
            raise self._fatal or error
        self._failures += 1
        known = (
            isinstance(error, DatabaseUnavailable) or error.sqlstate == ENGINE_LOCKED
        )
        if isinstance(error, HOPELESS) or (not known and self._failures > UNEXPECTED):
            self._fatal = error
            self._stop.set()
            return
        if self._engine:
            await self._engine.close()
            self._engine = None
        doublings = 10 if error.sqlstate in OUT_OF_SPACE else min(self._failures, 10)
        delay = random.uniform(0, min(LAST_DELAY, FIRST_DELAY * 2.0**doublings))
        told: dict[str, object] = {"error": error.message, "sqlstate": error.sqlstate}
        told |= {"retry_in": round(delay, 3), "unreported": len(self._results)}
        logger.warning("a call of the database failed", extra=told)
        if self._stop.is_set():
            await asyncio.sleep(min(delay, 1.0))
        else:
            await _pause(self._stop, delay)

    def _abandon(self) -> None:
        """Whatever is left when run() ends with an error."""
        for _, task in self._sending.values():
            task.cancel()
        if self.in_flight:
            tokens = [*self._sending, *(r.message.token for r in self._results)]
            logger.error("stopped without a report", extra={"tokens": tokens})

    async def _connect(self) -> Engine:
        name = "pgdrip-runner"
        engine = await Engine.connect(
            self._dsn, application_name=name, writable=True, timeout=CALL_TIMEOUT
        )
        logger.info("connected", extra={"runner": self.name})
        return engine


async def run(
    dsn: str = "",
    *,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    slots: int = 100,
    lease: timedelta = TWO_MINUTES,
    grace: float = 30.0,
    once: bool = False,
) -> None:
    """Run one runner until SIGTERM or SIGINT, with the named or all channels.

    After SIGINT it drains like after SIGTERM, then raises KeyboardInterrupt.
    """
    stop = asyncio.Event()
    received: set[signal.Signals] = set()

    def on_signal(number: signal.Signals) -> None:
        received.add(number)
        stop.set()

    opened = open_channels(channels)
    runner = Runner(
        dsn,
        channels=opened,
        name=name,
        slots=slots,
        lease=lease,
        grace=grace,
        once=once,
        stop=stop,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await runner.run()
    finally:
        for channel in opened.values():
            await channel.close()
    if signal.SIGINT in received:
        raise KeyboardInterrupt


async def _pause(event: asyncio.Event, seconds: float) -> None:
    """Until the event, at most so long."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
