"""The runner against a real database: what it sends, and what a channel that fails does
to the rest."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from conftest import Clock
from pgdrip.channels import Failed, Outcome, Sent, Uncertain
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError
from pgdrip.runner import Runner
from pgdrip.settings import Settings
from running import (
    REPORT,
    Db,
    Ledger,
    enroll,
    eventually,
    last_events,
    live,
    run,
    runner_of,
    running,
    violations,
    wrap,
)

# What it sends


def test_a_due_step_is_sent_once_and_the_next_one_waits(
    dsn: str, db: Db, clock: Clock
) -> None:
    [enrollment] = enroll(db, 1, days=(1, 3))
    ledger = Ledger()
    run(dsn, ledger)
    run(dsn, ledger)
    assert ledger.keys == [f"{enrollment}:1"]
    [due] = live(db)
    assert due["step"] == 3
    assert due["due_at"] == clock.now() + timedelta(days=2)
    assert due["lease_until"] is None


def test_the_hook_moves_time_and_every_step_goes_out_in_order(
    dsn: str, db: Db, clock: Clock
) -> None:
    enrollments = enroll(db, 20, days=(1, 3, 6, 9))
    ledger = Ledger()

    async def jump() -> bool:
        assert runner.in_flight == 0
        row = db.execute("select pgdrip.set_clock(pgdrip.next_wake()) from pgdrip.due")
        return row.fetchone() is not None

    runner = runner_of(dsn, ledger, on_idle=jump)
    started = clock.now()
    asyncio.run(runner.run())
    steps = [key.split(":") for key in ledger.keys]
    for enrollment in enrollments:
        of_one = [int(step) for id, step in steps if int(id) == enrollment]
        assert of_one == [1, 3, 6, 9]
    assert clock.now() - started == timedelta(days=8)
    assert live(db) == []
    assert violations(db) == []


def test_it_sends_as_many_at_once_as_it_has_slots_and_no_more(dsn: str, db: Db) -> None:
    async def slow(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(0.05)
        return Sent()

    enroll(db, 40)
    ledger = Ledger(slow)
    run(dsn, ledger, slots=8)
    assert len(ledger.keys) == 40
    assert ledger.most == 8
    assert violations(db) == []


def test_a_slow_send_does_not_hold_up_the_others(dsn: str, db: Db) -> None:
    slowest, *_ = enroll(db, 60)
    release = asyncio.Event()

    async def answer(message: ClaimedMessage) -> Outcome:
        if message.enrollment_id == slowest:
            await release.wait()
        return Sent()

    ledger = Ledger(answer)

    async def meanwhile(runner: Runner) -> None:
        await eventually(lambda: len(ledger.keys) == 60 and runner.in_flight == 1)
        release.set()

    running(dsn, ledger, meanwhile, slots=4)


def test_once_does_not_end_at_rows_that_must_not_be_sent(
    dsn: str, db: Db, clock: Clock
) -> None:
    enroll(db, 700)
    db.execute("select pgdrip.pause_sequence('WARM Sequence', 'test')")
    clock.advance(timedelta(minutes=1))
    other: dict[str, Any] = {"name": "HOT Sequence", "trigger": "HOT"}
    other |= {"channel": "log", "status": "active", "steps": [{"day": 1, "body": "Hi"}]}
    db.execute("select pgdrip.apply_sequence(%s)", [Jsonb(other)])
    db.execute(
        "select pgdrip.add_trigger(pgdrip.upsert_contact('+60119999999'), 'HOT')"
    )
    ledger = Ledger()
    run(dsn, ledger, slots=4)
    assert len(ledger.keys) == 1


def test_two_runners_over_one_backlog_never_send_one_step_twice(
    dsn: str, db: Db
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(message.enrollment_id % 7 / 1000)
        return Sent()

    enrollments = enroll(db, 400)
    ledgers = [Ledger(answer), Ledger(answer)]

    async def main() -> None:
        stop = asyncio.Event()
        runners = [
            runner_of(dsn, ledger, name=f"r{n}", slots=10, stop=stop)
            for n, ledger in enumerate(ledgers)
        ]
        tasks = [asyncio.create_task(runner.run()) for runner in runners]
        await eventually(lambda: sum(len(ledger.keys) for ledger in ledgers) >= 400)
        stop.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    sent = Counter(ledgers[0].keys + ledgers[1].keys)
    assert sent == Counter(f"{enrollment}:1" for enrollment in enrollments)
    assert all(ledger.keys for ledger in ledgers)
    assert live(db) == []
    assert violations(db) == []


def test_it_leaves_messages_of_channels_it_does_not_have(dsn: str, db: Db) -> None:
    enroll(db, 1)
    ledger = Ledger()
    asyncio.run(Runner(dsn, channels={"webhook": ledger}, once=True).run())
    assert ledger.keys == []
    assert live(db)[0]["lease_until"] is None


def test_what_becomes_due_while_it_waits_goes_out_soon(
    dsn: str, clock: Clock, db: Db
) -> None:
    enroll(db, 1, days=(1, 3))
    ledger = Ledger()

    async def meanwhile(runner: Runner) -> None:
        await eventually(lambda: len(ledger.keys) == 1 and runner.in_flight == 0)
        clock.advance(timedelta(days=2))
        await eventually(lambda: len(ledger.keys) == 2, seconds=3)

    running(dsn, ledger, meanwhile)


def test_triggers_written_by_copy_are_enrolled_by_the_runner(dsn: str, db: Db) -> None:
    enroll(db, 0)
    db.execute("select pgdrip.upsert_contact('+60110000001')")
    with db.cursor().copy(
        "copy pgdrip.contact_triggers (contact_id, trigger) from stdin"
    ) as copy:
        copy.write("1\tWARM\n")
    ledger = Ledger()
    run(dsn, ledger)
    assert len(ledger.keys) == 1


# When a channel fails


def test_an_exception_of_a_channel_is_uncertain_and_stops_nobody_else(
    dsn: str, db: Db
) -> None:
    bad, *_ = enroll(db, 5)

    async def answer(message: ClaimedMessage) -> Outcome:
        if message.enrollment_id == bad:
            raise ValueError("secret +60110000001")
        return Sent()

    ledger = Ledger(answer)
    run(dsn, ledger)
    run(dsn, ledger)
    assert len(ledger.keys) == 5
    [parked] = live(db)
    assert (parked["enrollment_id"], parked["parked_reason"]) == (bad, "uncertain")
    assert last_events(db)[0] == ("uncertain", None, "channel raised ValueError")
    assert violations(db) == []


class Halt(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize(
    "error", [SystemExit, asyncio.CancelledError, MemoryError, Halt]
)
def test_no_exception_of_a_channel_ends_the_runner(
    dsn: str, db: Db, error: type[BaseException]
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        raise error

    enroll(db, 3)
    run(dsn, Ledger(answer))
    assert [due["parked_reason"] for due in live(db)] == ["uncertain"] * 3


def test_a_send_without_an_end_is_uncertain_after_its_timeout(dsn: str, db: Db) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(60)
        return Sent()

    enroll(db, 1)
    run(dsn, Ledger(answer), timeout=0.2)
    assert last_events(db) == [("uncertain", None, "no outcome within 0.2 s")]
    assert live(db)[0]["parked_reason"] == "uncertain"


def test_a_channel_that_answers_nonsense_is_uncertain(dsn: str, db: Db) -> None:
    async def answer(message: ClaimedMessage) -> Any:
        return True

    enroll(db, 1)
    run(dsn, Ledger(answer))
    assert last_events(db) == [("uncertain", None, "channel gave bool")]


def test_text_the_database_cannot_hold_does_not_spoil_the_batch(
    dsn: str, db: Db
) -> None:
    nasty: Iterator[Outcome] = iter(
        (
            Failed("content", "nul \0 inside"),
            Failed("content", "half \ud83d of it"),
            Failed("content", "x" * 1_000_000),
            Failed("c" * 5000),
            Uncertain("é" * 5000),
            Sent("i" * 5000),
            Sent(17),  # type: ignore[arg-type]
        )
    )

    async def answer(message: ClaimedMessage) -> Outcome:
        return next(nasty)

    enroll(db, 7)
    run(dsn, Ledger(answer))
    details = [detail for _, _, detail in last_events(db)]
    assert details[0] == "nul  inside"
    assert details[1] == "half ? of it"
    assert len(details) == 7
    assert all(due["lease_until"] is None for due in live(db))


def test_one_result_the_database_refuses_does_not_spoil_the_batch(
    dsn: str, db: Db
) -> None:
    bad, *_ = enroll(db, 9)
    refuse = "raise exception 'poison' using errcode = '22023'"
    wrap(db, REPORT, before=f"if {bad} = any (p_enrollments) then {refuse}; end if;")
    ledger = Ledger()
    run(dsn, ledger)
    assert len(ledger.keys) == 9
    assert [due["enrollment_id"] for due in live(db)] == [bad]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": 0}, "slots"),
        ({"per_sender": 0}, "per_sender"),
        ({"batch": 0}, "batch"),
        ({"batch": 1001}, "batch"),
        ({"lease": 60}, "lease .* must be longer"),
        ({"lease": 7200}, "at most an hour"),
        ({"timeout": 0}, "lease"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(**options)


def test_a_runner_without_a_channel_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no channel"):
        Runner(channels={})
