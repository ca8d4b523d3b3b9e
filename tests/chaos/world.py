"""One run: people enroll while everything around them breaks; then peace, and drain."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from chaos.clock import START, Clock
from chaos.faults import ALL, Faults, Injector
from chaos.gateway import LYING, Gateway
from chaos.proxy import Proxy
from chaos.runners import Process, Runners
from chaos.server import CrashingServer, binaries
from pgdrip.migrate import migrate

DELAY = 300  # seconds from a step to the next
STEPS = (1, 3, 6)
TIGHT, ROOMY = 3, 12  # senders
RATE, BURST = 40, 5  # of tight ones, per hour

WAITING = """
select count(*) as waiting from pgdrip.due where parked_reason is null
"""
HELD = """
select coalesce(max(extract(epoch from clock_timestamp() - state_change)), 0)::float8
         as age
  from pg_stat_activity
 where application_name = 'pgdrip-runner' and state ~ 'idle in transaction'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played. Times in seconds: `lease` of the database, the others real.

    `people` are enrolled for each second of faults, over `spread` of that time, the
    first ones over tight senders, `per_tight` each: the steps of 14 do not fit into one
    hour. `delay` is from a step to the next. The first `spared` runners are neither
    killed nor stopped.
    `sabotage`: statements that break the engine, to see that the judge would notice.
    """

    name: str
    seed: int = 1
    on_uncertain: str = "park"
    keeps_keys: bool = False
    acts: dict[str, float] = field(default_factory=lambda: dict(LYING))
    faults: Faults = field(default_factory=lambda: dict(ALL))
    pause: float = 0.8
    seconds: float = 15
    drain: float = 60
    people: float = 20
    spread: float = 0.7
    checked_every: int = 1
    runners: int = 4
    spared: int = 0
    slots: int = 20
    start: datetime = START
    factor: float = 150
    delay: int = DELAY
    lease: int = 450
    per_tight: int = 14
    latency: float = 0.004
    sabotage: str = ""


@dataclass(slots=True)
class Seen:
    """What was observed on the way."""

    acknowledged: set[int] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    checks: int = 0
    longest_transaction: float = 0.0
    drained_in: float | None = None
    stopped_in: float = 0.0
    odd_exits: list[str] = field(default_factory=list)
    spooled: list[str] = field(default_factory=list)


class World(AsyncExitStack):
    """Everything that takes part, entered one after the other."""

    def __init__(self, plan: Plan, home: Path) -> None:
        super().__init__()
        self.plan = plan
        self.home = home
        self.seen = Seen()
        self.injector = Injector(plan.seed, plan.faults, plan.pause)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        plan = self.plan
        self.server = await asyncio.to_thread(CrashingServer, binaries())
        self.callback(self.server.stop)
        await asyncio.to_thread(migrate, self.server.dsn)
        self.clock = Clock(plan.factor, plan.start)
        self.clock.install(self.server.dsn)
        if plan.sabotage:
            await self.query(plan.sabotage)
        self.gateway = await self.enter_async_context(
            Gateway(
                self.home / "ledger",
                self.clock,
                seed=plan.seed,
                acts=plan.acts,
                keeps_keys=plan.keeps_keys,
                latency=plan.latency,
            )
        )
        self.proxy = await self.enter_async_context(Proxy(self.server.socket))
        dsn = (
            f"host=127.0.0.1 port={self.proxy.port} user=postgres dbname=postgres"
            " sslmode=disable gssencmode=disable"
        )
        await self._define()
        self.runners = await self.enter_async_context(
            Runners(
                dsn, self.home, count=plan.runners, slots=plan.slots, lease=plan.lease
            )
        )
        return self

    def runner(self, dice: Random) -> Process:
        """One that is up, if there is any."""
        mortal = self.runners.all[self.plan.spared :]
        up = [one for one in mortal if one.is_up and not one.is_stopped]
        return dice.choice(up or mortal)

    def sender(self, number: int) -> str:
        """Over which the person of that number is enrolled."""
        if number < TIGHT * self.plan.per_tight:
            return f"tight-{number % TIGHT}"
        return f"roomy-{number % ROOMY}"

    async def play(self) -> None:
        """Returns when everything is drained, or should have been."""
        plan = self.plan
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(
                self._enroll(plan.seconds),
                self.injector.inject(self, plan.seconds),
            )
            await self._drain()
            self.seen.stopped_in = await self.runners.stop()
        finally:
            watch.cancel()
        self.seen.violations += await self.check()
        self.seen.odd_exits = self.runners.odd_exits
        if self.runners.spool.exists():
            self.seen.spooled = [path.name for path in self.runners.spool.iterdir()]

    async def query(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Ask the server itself, not through the proxy."""
        async with await psycopg.AsyncConnection.connect(
            self.server.dsn, row_factory=dict_row, autocommit=True
        ) as connection:
            cursor = await connection.execute(query.encode(), arguments or None)
            return await cursor.fetchall() if cursor.description else []

    async def _define(self) -> None:
        senders = [
            {"name": f"tight-{n}", "rate_per_hour": RATE, "burst": BURST}
            for n in range(TIGHT)
        ] + [{"name": f"roomy-{n}"} for n in range(ROOMY)]
        for sender in senders:
            told = sender | {"channel": "webhook", "config": {"url": self.gateway.url}}
            await self.query("select pgdrip.apply_sender(%s)", Jsonb(told))
        extra = {"on_uncertain": self.plan.on_uncertain, "max_attempts": 100}
        steps = [
            {"day": day, "body": f"Day {day} for {{{{phone}}}}"}
            | extra
            | ({} if day == STEPS[0] else {"delay": f"{self.plan.delay} s"})
            for day in STEPS
        ]
        sequence = {"name": "WARM Sequence", "trigger": "WARM", "channel": "webhook"}
        told = sequence | {"status": "active", "steps": steps}
        await self.query("select * from pgdrip.apply_sequence(%s)", Jsonb(told))

    async def _enroll(self, seconds: float) -> None:
        """Spread over that time; only what is committed for good counts as enrolled."""
        plan = self.plan
        began = time.monotonic()
        people = round(plan.people * seconds)
        for number in range(people):
            early = began + seconds * plan.spread * number / people - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            enrollment = await self._enroll_one(number, self.sender(number))
            self.seen.acknowledged.add(enrollment)

    async def _enroll_one(self, number: int, sender: str) -> int:
        """Tried until it is acknowledged; the live enrollment's id comes again."""
        phone = f"+6011{number:07}"
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self.server.dsn, options="-c synchronous_commit=on"
                ) as connection:
                    cursor = await connection.execute(
                        "select pgdrip.enroll('WARM Sequence',"
                        " pgdrip.upsert_contact(%s, p_sender => %s))",
                        [phone, sender],
                    )
                    [enrollment] = await cursor.fetchone() or [0]
                return int(enrollment)
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)

    async def _drain(self) -> None:
        """Until every acknowledged enrollment has ended or is parked."""
        began = time.monotonic()
        while time.monotonic() < began + self.plan.drain:
            [row] = await self.query(WAITING)
            if not row["waiting"] and all(one.is_up for one in self.runners.all):
                self.seen.drained_in = time.monotonic() - began
                return
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        """Each second: does nobody hold a transaction? And, not as often where that
        takes long: does every invariant hold?"""
        for second in count():
            try:
                if second % self.plan.checked_every == 0:
                    self.seen.violations += await self.check()
                    self.seen.checks += 1
                [row] = await self.query(HELD)
            except psycopg.OperationalError:
                pass
            else:
                seen = self.seen.longest_transaction
                self.seen.longest_transaction = max(seen, row["age"])
            await asyncio.sleep(1)

    async def check(self) -> list[str]:
        """What violates an invariant at the moment."""
        rows = await self.query("select * from pgdrip.check()")
        return [
            f"{row['invariant']} {row['enrollment_id']}: {row['detail']}"
            for row in rows
        ]
