"""The runner and its senders: so many messages of each at once, and no claims for a
gateway that is away."""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

import pytest

from conftest import Clock
from pgdrip.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker
from pgdrip.channels import Failed, Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.runner import Runner
from running import (
    Db,
    Ledger,
    enroll,
    eventually,
    live,
    run,
    running,
    violations,
)


class Senders(Ledger):
    """Each send takes `seconds`; keeps how many of one sender there were at once."""

    def __init__(self, seconds: float = 0.02) -> None:
        super().__init__(self._take_long)
        self.seconds = seconds
        self.at_once: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    async def _take_long(self, message: ClaimedMessage) -> Outcome:
        sender = message.sender
        self._now[sender] += 1
        self.at_once[sender] = max(self.at_once[sender], self._now[sender])
        await asyncio.sleep(self.seconds)
        self._now[sender] -= 1
        return Sent()


def events(db: Db) -> Counter[tuple[str, str | None]]:
    rows = db.execute("select event, code from pgdrip.deliveries").fetchall()
    return Counter((row["event"], row["code"]) for row in rows)


@pytest.mark.parametrize("per_sender", [1, 3])
def test_a_sender_sends_so_many_at_once_and_the_senders_side_by_side(
    dsn: str, db: Db, per_sender: int
) -> None:
    enroll(db, 24, senders=3)
    ledger = Senders()
    run(dsn, ledger, per_sender=per_sender)
    assert len(ledger.keys) == 24
    assert set(ledger.at_once.values()) == {per_sender}
    assert ledger.most == per_sender * 3
    assert events(db) == {("sent", None): 24}
    assert violations(db) == []


def test_messages_of_one_sender_go_out_in_the_order_they_were_due(
    dsn: str, db: Db
) -> None:
    enrollments = enroll(db, 12)
    ledger = Senders(0.001)
    run(dsn, ledger, per_sender=1)
    assert ledger.keys == [f"{enrollment}:1" for enrollment in enrollments]


def test_what_cannot_begin_in_time_is_given_back_and_costs_no_attempt(
    dsn: str, db: Db
) -> None:
    enrollments = enroll(db, 8)
    ledger = Senders(0.4)
    run(dsn, ledger, per_sender=1, lease=1, timeout=0.9)
    assert Counter(ledger.keys) == Counter(f"{id}:1" for id in enrollments)
    assert ledger.at_once == {"device-0001": 1}
    told = events(db)
    assert told.keys() == {("sent", None), ("abandoned", "released")}
    attempts = db.execute(
        "select distinct attempt from pgdrip.deliveries where event = 'sent'"
    ).fetchall()
    assert attempts == [{"attempt": 1}]
    assert live(db) == []


def test_a_sender_that_hangs_does_not_take_the_slots_of_the_others(
    dsn: str, db: Db
) -> None:
    enroll(db, 60, senders=2)
    release = asyncio.Event()

    async def answer(message: ClaimedMessage) -> Outcome:
        if message.sender == "device-0001":
            await release.wait()
        return Sent()

    ledger = Ledger(answer)
    rows = db.execute(
        "select count(*) as number"
        "  from pgdrip.due join pgdrip.senders using (sender_id)"
        " where name = 'device-0002'"
    ).fetchall()

    async def meanwhile(runner: Runner) -> None:
        # One of the sender that hangs, and all of the other.
        await eventually(lambda: len(ledger.keys) == 1 + rows[0]["number"], seconds=8)
        release.set()

    running(dsn, ledger, meanwhile, slots=10, per_sender=1)
    assert rows[0]["number"] >= 20


def test_a_gateway_that_is_away_costs_no_attempt_and_nothing_is_claimed_for_it(
    dsn: str, db: Db, clock: Clock
) -> None:
    enrollments = enroll(db, 20, senders=4, max_attempts=1)
    is_away = True

    async def answer(message: ClaimedMessage) -> Outcome:
        if is_away:
            await asyncio.sleep(0.05)
            return Failed("transient", "no connection: test", reached=False)
        return Sent()

    ledger = Ledger(answer)

    async def meanwhile(runner: Runner) -> None:
        nonlocal is_away
        await eventually(lambda: runner.breakers.away == ["log"])
        await eventually(lambda: runner.in_flight == 0)
        assert len(ledger.keys) == 4  # one of each sender, before anybody knew
        assert [due["lease_until"] for due in live(db)] == [None] * 20
        is_away = False
        # A sender whose message failed is parked for a minute, too.
        clock.set(clock.now().replace(minute=5))
        await eventually(lambda: len(ledger.keys) == 24)
        assert runner.breakers.away == []

    running(dsn, ledger, meanwhile, per_sender=1)
    assert Counter(ledger.keys).keys() == {f"{id}:1" for id in enrollments}
    told = events(db)
    assert told["sent", None] == 20
    assert told["failed", "sender"] == 4
    assert violations(db) == []


def test_a_trial_is_one_message(dsn: str, db: Db, clock: Clock) -> None:
    enroll(db, 20, senders=4)

    async def answer(message: ClaimedMessage) -> Outcome:
        return Failed("transient", "no connection: test", reached=False)

    ledger = Ledger(answer)

    async def meanwhile(runner: Runner) -> None:
        await eventually(lambda: len(ledger.keys) == 4 and runner.in_flight == 0)
        clock.set(clock.now().replace(minute=5))
        await eventually(lambda: len(ledger.keys) > 4)
        await eventually(lambda: runner.in_flight == 0)
        assert len(ledger.keys) == 5
        assert ledger.most <= 4

    running(dsn, ledger, meanwhile, per_sender=1)


def test_pauses_double_up_to_a_minute_and_end_when_the_gateway_is_reached() -> None:
    breaker = Breaker()
    assert breaker.is_closed
    pauses: list[float] = []
    for _ in range(9):
        assert breaker.unreached(monotonic())
        assert breaker.is_paused
        pauses.append(breaker.opens_at - monotonic())
        breaker.unreached(monotonic())  # of the same outage: no longer for it
        assert breaker.opens_at - monotonic() <= pauses[-1]
        breaker.opens_at = 0.0
    longest = [min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**n) for n in range(9)]
    bounds: Any = zip(pauses, longest, strict=True)
    assert all(most / 2 - 0.1 <= pause <= most for pause, most in bounds)
    assert breaker.reached()
    assert breaker.is_closed
    assert not breaker.reached()


def test_a_failure_beside_a_success_is_its_messages_own() -> None:
    breaker = Breaker()
    began_at = monotonic()
    breaker.reached()
    assert not breaker.unreached(began_at)
    assert breaker.is_closed
