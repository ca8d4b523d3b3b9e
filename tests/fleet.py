"""Runners in threads over one database, under a clock that moves only while all stand.

What they let out they write down themselves, at the moment the request would leave, so
that limits can be judged without asking the database. `over()` is the judge.
"""

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import stage
from conftest import Clock
from stage import Db, Row

GRACE = timedelta(seconds=9.9)
"""The longest stall between claim and begin that lets a message go nevertheless."""

CLAIM = "select * from pgdrip.claim($1, $2)"
GONE = "select from pg_stat_activity where pid = %s"
BATCHES = 2
"""As many a runner claims in one turn, so that those of small batches leave some."""
ANYBODY = ""
"""In place of a sender's name."""
TICK = timedelta(minutes=10)
NOBODY_DIES, NEVER = 0.0, 0.0
TRIGGERS = ("ONE", "TWO", "THREE", "FOUR", "FIVE")
RUNNERS = (7, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class Send:
    """One request as the gateway would have seen it."""

    at: datetime
    claimed_at: datetime
    due_at: datetime
    sender: str
    sequence: str
    enrollment: int
    key: str
    code: str | None
    """Why the gateway refused it; None: it was accepted."""


Gateway = Callable[[Row, datetime], str | None]


def accepts(message: Row, now: datetime) -> None:
    """A gateway that takes everything."""


@dataclass(slots=True)
class Held:
    """Messages that a runner holds until a time: to begin them, or to report them."""

    until: datetime
    claimed_at: datetime
    messages: list[Row]
    codes: list[str | None] | None = None
    """What the gateway said; None: not begun yet."""


@dataclass(slots=True)
class Runner:
    """One runner: claims as much as there is, begins and reports, at times late.

    `stalls`, `lags`, `dies`: how often, of 1, a batch is begun up to 9.9 s late,
    reported up to 40 s late, and a claim is the last thing it did.
    """

    name: str
    dsn: str
    limit: int
    gateway: Gateway
    stalls: float
    lags: float
    dies: float
    random: random.Random
    ticked_at: datetime | None = None
    log: list[Send] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    deaths: int = 0
    db: Db = field(init=False)

    def __post_init__(self) -> None:
        self.db = self._connect()

    def turn(self, now: datetime) -> int:
        """Do all there is to do at this time; how many messages were claimed."""
        ripe = [one for one in self.held if one.until <= now]
        self.held = [one for one in self.held if one.until > now]
        for one in ripe:
            self._go_on(one, now)
        if self.ticked_at is None or now - self.ticked_at >= TICK:
            self.db.execute("select pgdrip.tick(%s, '0')", [self.name])
            self.ticked_at = now
        claimed = 0
        for _ in range(BATCHES):
            if self.random.random() < self.dies:
                self._die()
            messages = stage.claim(self.db, self.limit, self.name)
            claimed += len(messages)
            if messages:
                late = self.random.random() < self.stalls
                wait = self.random.random() * GRACE if late else timedelta(0)
                self._hold(Held(now + wait, now, messages), now)
            if len(messages) < self.limit:
                break
        return claimed

    def close(self) -> None:
        """End its connection."""
        self.db.close()

    def _hold(self, batch: Held, now: datetime) -> None:
        if batch.until > now:
            self.held.append(batch)
        else:
            self._go_on(batch, now)

    def _go_on(self, batch: Held, now: datetime) -> None:
        """Begin a batch, or report one that was begun."""
        if batch.codes is not None:
            report(self.db, batch.messages, batch.codes)
            return
        granted = set(stage.begin(self.db, batch.messages))
        begun = [m for m in batch.messages if m["token"] in granted]
        codes = [self.gateway(message, now) for message in begun]
        self.log.extend(
            Send(
                at=now,
                claimed_at=batch.claimed_at,
                due_at=message["due_at"],
                sender=message["sender"],
                sequence=message["sequence"],
                enrollment=message["enrollment_id"],
                key=message["idempotency_key"],
                code=code,
            )
            for message, code in zip(begun, codes, strict=True)
        )
        late = self.random.random() < self.lags
        wait = timedelta(seconds=self.random.uniform(1, 40)) if late else timedelta(0)
        if begun:
            self._hold(Held(now + wait, batch.claimed_at, begun, codes), now)

    def _die(self) -> None:
        """Lose the connection in the middle of a claim, and all that is not begun.

        Half the times the claim is rolled back; else the server learns of it too late,
        commits, and the messages wait for the end of their leases.
        """
        self.deaths += 1
        self.held = [one for one in self.held if one.codes is not None]
        gone = self.db.info.backend_pid
        if self.deaths % 2:
            self.db.autocommit = False
            stage.claim(self.db, self.limit, self.name)
        else:
            arguments = [self.name.encode(), str(self.limit).encode()]
            self.db.pgconn.send_query_params(CLAIM.encode(), arguments)
        self.db.close()
        self.db = self._connect()
        while self.db.execute(GONE, [gone]).fetchone():
            pass

    def _connect(self) -> Db:
        return psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row)


def report(db: Db, messages: Sequence[Row], codes: Sequence[str | None]) -> None:
    """Report each as sent, or as failed where there is a code."""
    db.execute(
        "select from pgdrip.report(%s::bigint[], %s::bigint[], %s, null, %s)",
        [
            [m["enrollment_id"] for m in messages],
            [m["token"] for m in messages],
            ["failed" if code else "sent" for code in codes],
            list(codes),
        ],
    )


class Fleet(ExitStack):
    """Several runners side by side; the clock moves when each has done what it could.

    `pace`: the least the clock moves, as long as nobody holds messages for less.
    """

    def __init__(
        self,
        dsn: str,
        clock: Clock,
        *,
        limits: Sequence[int] = RUNNERS,
        gateway: Gateway = accepts,
        stalls: float = NEVER,
        lags: float = NEVER,
        dies: float = NOBODY_DIES,
        pace: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__()
        self.clock = clock
        self.pace = pace
        self.runners = [
            Runner(
                f"runner-{number}",
                dsn,
                limit,
                gateway,
                stalls,
                lags,
                dies,
                random.Random(number),
            )
            for number, limit in enumerate(limits)
        ]
        self.threads = self.enter_context(ThreadPoolExecutor(len(limits)))
        for one in self.runners:
            self.callback(one.close)

    def run(self, until: datetime) -> None:
        """Let time pass until then, or until nothing is due at any time."""
        now = self.clock.now()
        while now < until:
            turns = [self.threads.submit(one.turn, now) for one in self.runners]
            claimed = sum(turn.result() for turn in turns)
            later = self._next(now, is_busy=claimed > 0)
            if later is None:
                return
            now = self.clock.set(min(later, until)) if later > now else now

    def _next(self, now: datetime, *, is_busy: bool) -> datetime | None:
        """When there is something to do: now, if they were in each other's way."""
        wake = stage.one(self.clock.connection, "select pgdrip.next_wake() as at")["at"]
        times = [one.until for runner in self.runners for one in runner.held]
        if wake is not None:
            times.append(now if is_busy and wake <= now else max(wake, now + self.pace))
        return min(times, default=None)

    @property
    def log(self) -> list[Send]:
        """What all of them let out, in the order it left."""
        sends = (send for runner in self.runners for send in runner.log)
        return sorted(sends, key=lambda send: send.at)


def by_sender(log: Iterable[Send]) -> dict[str, list[Send]]:
    """The sends of each sender, in order."""
    sends = defaultdict(list)
    for send in log:
        sends[send.sender].append(send)
    return sends


def over(
    times: Sequence[datetime], span: timedelta, limit: Callable[[datetime], int]
) -> list[tuple[datetime, int]]:
    """Where sorted times break a limit: ends of windows that hold more, and how many.

    A window reaches from a time back over `span`, both ends included; the limit is the
    one in force at its end.
    """
    counts = (
        (at, index + 1 - bisect_left(times, at - span))
        for index, at in enumerate(times)
    )
    return [(at, count) for at, count in counts if count > limit(at)]


def most_distinct(
    sends: Sequence[Send], span: timedelta, whom: Mapping[int, object]
) -> int:
    """The most contacts in any window of `span`, both ends included, by enrollment."""
    most, first, counts = 0, 0, Counter[object]()
    for send in sends:
        counts[whom[send.enrollment]] += 1
        while sends[first].at < send.at - span:
            counts[whom[sends[first].enrollment]] -= 1
            first += 1
        most = max(most, len(+counts))
    return most


def gaps(times: Sequence[datetime]) -> list[timedelta]:
    """The time between each and the next."""
    return [later - at for at, later in pairwise(times)]


def sequences(db: Db, steps: int = 8) -> None:
    """Five of them, each of so many steps soon after one another."""
    for number, trigger in enumerate(TRIGGERS):
        delay = f"{30 + 10 * number} minutes"
        content = [
            {"day": day, "body": f"Day {day}", "delay": delay if day > 1 else "0 s"}
            for day in range(1, steps + 1)
        ]
        stage.sequence(db, f"{trigger} Sequence", trigger=trigger, steps=content)


def senders(db: Db, definitions: Iterable[Row]) -> None:
    """Apply them, all in one transaction."""
    with db.transaction():
        for definition in definitions:
            db.execute("select pgdrip.apply_sender(%s)", [Jsonb(definition)])


def work(db: Db, backlogs: Mapping[str, int], triggers: Sequence[str]) -> None:
    """Enroll for each sender so many contacts that want it, the triggers in rotation.

    Those of ANYBODY want none.
    """
    with db.transaction():
        db.execute(
            "with wanted as ("
            "  select s.sender_id, k, row_number() over () as number"
            "    from unnest(%s::text[], %s::integer[]) as b(name, count)"
            "    left join pgdrip.senders as s using (name)"
            "   cross join generate_series(1, b.count) as k"
            "), added as ("
            "  insert into pgdrip.contacts (phone, sender_id, bucket)"
            "  select '+60' || (100000000 + number + (select count(*)"
            "           from pgdrip.contacts)), sender_id, 0"
            "    from wanted order by k, sender_id"
            "  returning contact_id)"
            " insert into pgdrip.contact_triggers (contact_id, trigger)"
            " select contact_id, (%s::text[])[1 + contact_id %% %s] from added",
            [list(backlogs), list(backlogs.values()), list(triggers), len(triggers)],
        )
    while stage.one(db, "select pgdrip.enroll_waiting(5000) as n")["n"]:
        pass
