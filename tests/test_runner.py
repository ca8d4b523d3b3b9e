"""The runner against a real database: what it sends, and what becomes of the rest when
a channel, the database or the runner itself fails."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from conftest import Clock, Connect
from pgdrip.channels import Failed, Outcome, Sent, Uncertain
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError, DatabaseUnavailable, SchemaMismatch
from pgdrip.runner import Runner

T = TypeVar("T")
Db = psycopg.Connection[Any]
Answer = Callable[[ClaimedMessage], Awaitable[Outcome]]


class Ledger:
    """A channel that keeps what it was given and answers as it is told."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.keys: list[str] = []
        self.now = self.most = 0
        self._answer = answer

    async def send(self, message: ClaimedMessage) -> Outcome:
        self.keys.append(message.idempotency_key)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(message) if self._answer else Sent()
        finally:
            self.now -= 1

    async def close(self) -> None:
        return None


class Enroll(Protocol):
    def __call__(
        self, people: int, *, days: tuple[int, ...] = (1,), url: str | None = None
    ) -> list[int]: ...


@pytest.fixture
def enroll(db: Db) -> Enroll:
    """Enrolls new contacts in a sequence over one sender; channel `log` without url."""

    def enroll(
        people: int, *, days: tuple[int, ...] = (1,), url: str | None = None
    ) -> list[int]:
        channel = {"channel": "webhook" if url else "log"}
        steps = [{"day": day, "body": f"Day {day}"} for day in days]
        sequence = {"name": "WARM Sequence", "trigger": "WARM", "status": "active"}
        sender = {"name": "device-0001", "config": {"url": url} if url else {}}
        db.execute("select pgdrip.apply_sender(%s)", [Jsonb(sender | channel)])
        db.execute(
            "select * from pgdrip.apply_sequence(%s)",
            [Jsonb(sequence | channel | {"steps": steps})],
        )
        rows = db.execute(
            "select pgdrip.add_trigger(pgdrip.upsert_contact('+60110' || n), 'WARM')"
            " as id from generate_series(1000001, 1000000 + %s) as n",
            [people],
        ).fetchall()
        return [row["id"] for row in rows]

    return enroll


def run(dsn: str, channel: Ledger, **options: Any) -> None:
    """One runner until nothing is due."""
    asyncio.run(Runner(dsn, channels={"log": channel}, once=True, **options).run())


def live(db: Db) -> list[dict[str, Any]]:
    return db.execute("select * from pgdrip.due order by enrollment_id").fetchall()


def last_events(db: Db) -> list[tuple[str, str | None, str | None]]:
    rows = db.execute(
        "select event, code, detail from pgdrip.deliveries order by enrollment_id, at"
    ).fetchall()
    return [(row["event"], row["code"], row["detail"]) for row in rows]


def violations(db: Db) -> list[dict[str, Any]]:
    return db.execute("select * from pgdrip.check()").fetchall()


async def eventually(holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for what another task or process is about to do."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def running(
    dsn: str,
    channel: Ledger,
    meanwhile: Callable[[Runner], Awaitable[T]],
    **options: Any,
) -> T:
    """A runner that runs while `meanwhile` does, and is stopped after it."""

    async def main() -> T:
        stop = asyncio.Event()
        runner = Runner(dsn, channels={"log": channel}, stop=stop, **options)
        task = asyncio.create_task(runner.run())
        try:
            return await meanwhile(runner)
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    return asyncio.run(main())


def backends(db: Db) -> list[int]:
    rows = db.execute(
        "select pid from pg_stat_activity"
        " where datname = current_database() and application_name = 'pgdrip-runner'"
    ).fetchall()
    return [row["pid"] for row in rows]


CLAIM = "claim", "p_runner text, p_limit integer, p_lease interval, p_channels text[]"
BEGIN = "begin_send", "p_enrollments bigint[], p_tokens bigint[]"
REPORT = (
    "report",
    "p_enrollments bigint[], p_tokens bigint[], p_outcomes text[],"
    " p_provider_ids text[], p_codes text[], p_details text[]",
)
RETURNS = {
    "claim": "pgdrip.claimed_message",
    "begin_send": "bigint",
    "report": "pgdrip.report_verdict",
}


def wrap(
    db: Db, function: tuple[str, str], *, before: str = "", after: str = ""
) -> None:
    """Puts statements around a function of the runner."""
    name, arguments = function
    passed = ", ".join(argument.split()[0] for argument in arguments.split(", "))
    db.execute(f"alter function pgdrip.{name} rename to {name}_really")
    db.execute(
        f"create function pgdrip.{name}({arguments})"
        f" returns setof {RETURNS[name]} language plpgsql as $body$ begin {before}"
        f" return query select * from pgdrip.{name}_really({passed});"
        f" {after} end $body$"
    )


# What it sends


def test_a_due_step_is_sent_once_and_the_next_one_waits(
    dsn: str, db: Db, clock: Clock, enroll: Enroll
) -> None:
    [enrollment] = enroll(1, days=(1, 3))
    ledger = Ledger()
    run(dsn, ledger)
    run(dsn, ledger)
    assert ledger.keys == [f"{enrollment}:1"]
    [due] = live(db)
    assert due["step"] == 3
    assert due["due_at"] == clock.now() + timedelta(days=2)
    assert due["lease_until"] is None


def test_the_hook_moves_time_and_every_step_goes_out_in_order(
    dsn: str, db: Db, clock: Clock, enroll: Enroll
) -> None:
    enrollments = enroll(20, days=(1, 3, 6, 9))
    ledger = Ledger()

    async def jump() -> bool:
        assert runner.in_flight == 0
        row = db.execute("select pgdrip.set_clock(pgdrip.next_wake()) from pgdrip.due")
        return row.fetchone() is not None

    runner = Runner(dsn, channels={"log": ledger}, on_idle=jump)
    started = clock.now()
    asyncio.run(runner.run())
    steps = [key.split(":") for key in ledger.keys]
    for enrollment in enrollments:
        of_one = [int(step) for id, step in steps if int(id) == enrollment]
        assert of_one == [1, 3, 6, 9]
    assert clock.now() - started == timedelta(days=8)
    assert live(db) == []
    assert violations(db) == []


def test_it_sends_as_many_at_once_as_it_has_slots_and_no_more(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    async def slow(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(0.05)
        return Sent()

    enroll(40)
    ledger = Ledger(slow)
    run(dsn, ledger, slots=8)
    assert len(ledger.keys) == 40
    assert ledger.most == 8
    assert violations(db) == []


def test_a_slow_send_does_not_hold_up_the_others(dsn: str, enroll: Enroll) -> None:
    slowest, *_ = enroll(60)
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
    dsn: str, db: Db, clock: Clock, enroll: Enroll
) -> None:
    enroll(700)
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
    dsn: str, db: Db, enroll: Enroll
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(message.enrollment_id % 7 / 1000)
        return Sent()

    enrollments = enroll(400)
    ledgers = [Ledger(answer), Ledger(answer)]

    async def main() -> None:
        stop = asyncio.Event()
        runners = [
            Runner(dsn, name=f"r{n}", channels={"log": ledger}, slots=10, stop=stop)
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


def test_it_leaves_messages_of_channels_it_does_not_have(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)
    ledger = Ledger()
    asyncio.run(Runner(dsn, channels={"webhook": ledger}, once=True).run())
    assert ledger.keys == []
    assert live(db)[0]["lease_until"] is None


def test_what_becomes_due_while_it_waits_goes_out_soon(
    dsn: str, clock: Clock, enroll: Enroll
) -> None:
    enroll(1, days=(1, 3))
    ledger = Ledger()

    async def meanwhile(runner: Runner) -> None:
        await eventually(lambda: len(ledger.keys) == 1 and runner.in_flight == 0)
        clock.advance(timedelta(days=2))
        await eventually(lambda: len(ledger.keys) == 2, seconds=3)

    running(dsn, ledger, meanwhile)


def test_triggers_written_by_copy_are_enrolled_by_the_runner(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(0)
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
    dsn: str, db: Db, enroll: Enroll
) -> None:
    bad, *_ = enroll(5)

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


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, MemoryError])
def test_no_exception_of_a_channel_ends_the_runner(
    dsn: str, db: Db, enroll: Enroll, error: type[BaseException]
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        raise error

    enroll(3)
    run(dsn, Ledger(answer))
    assert [due["parked_reason"] for due in live(db)] == ["uncertain"] * 3


def test_a_send_without_an_end_is_uncertain_after_its_timeout(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        await asyncio.sleep(60)
        return Sent()

    enroll(1)
    run(dsn, Ledger(answer), send_timeout=0.2)
    assert last_events(db) == [("uncertain", None, "no outcome within 0.2 s")]
    assert live(db)[0]["parked_reason"] == "uncertain"


def test_a_channel_that_answers_nonsense_is_uncertain(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    async def answer(message: ClaimedMessage) -> Any:
        return True

    enroll(1)
    run(dsn, Ledger(answer))
    assert last_events(db) == [("uncertain", None, "channel gave bool")]


def test_text_the_database_cannot_hold_does_not_spoil_the_batch(
    dsn: str, db: Db, enroll: Enroll
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

    enroll(7)
    run(dsn, Ledger(answer))
    details = [detail for _, _, detail in last_events(db)]
    assert details[0] == "nul  inside"
    assert details[1] == "half ? of it"
    assert len(details) == 7
    assert all(due["lease_until"] is None for due in live(db))


def test_one_result_the_database_refuses_does_not_spoil_the_batch(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    bad, *_ = enroll(9)
    refuse = "raise exception 'poison' using errcode = '22023'"
    wrap(db, REPORT, before=f"if {bad} = any (p_enrollments) then {refuse}; end if;")
    ledger = Ledger()
    run(dsn, ledger)
    assert len(ledger.keys) == 9
    assert [due["enrollment_id"] for due in live(db)] == [bad]


# When time runs out


def test_a_message_whose_time_is_over_after_begin_is_not_sent(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)
    wrap(db, BEGIN, after="perform pg_sleep(1.2);")
    ledger = Ledger()
    run(dsn, ledger, lease=timedelta(seconds=1), send_timeout=0.5)
    assert ledger.keys == []
    [(event, code, detail)] = last_events(db)
    assert (event, code) == ("failed", "transient")
    assert str(detail).startswith("not sent")
    [due] = live(db)
    assert due["parked_reason"] is None


def test_a_message_claimed_too_slowly_is_given_back_unbegun(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)
    db.execute("create sequence claims")
    slow = "if nextval('claims') = 1 then perform pg_sleep(1.2); end if;"
    wrap(db, CLAIM, after=slow)
    ledger = Ledger()
    run(dsn, ledger, lease=timedelta(seconds=1), send_timeout=0.5)
    assert len(ledger.keys) == 1
    assert [event for event, _, _ in last_events(db)] == ["abandoned", "sent"]


def test_a_lease_is_renewed_while_its_send_takes_long(
    dsn: str, db: Db, clock: Clock, enroll: Enroll
) -> None:
    enroll(1)
    lease = timedelta(seconds=3)
    seen: list[timedelta] = []

    async def answer(message: ClaimedMessage) -> Outcome:
        clock.advance(timedelta(seconds=2))
        await eventually(lambda: live(db)[0]["lease_until"] != message.lease_until)
        seen.append(live(db)[0]["lease_until"] - message.lease_until)
        return Sent()

    run(dsn, Ledger(answer), lease=lease, send_timeout=2.5)
    assert seen == [timedelta(seconds=2)]
    assert live(db) == []


# When it is stopped


def test_what_was_claimed_but_not_begun_is_given_back_at_the_end(
    dsn: str, db: Db, connect: Connect, enroll: Enroll
) -> None:
    enroll(5)
    wrap(db, CLAIM, after="perform pg_advisory_xact_lock(1);")
    ledger = Ledger()
    gate = connect()
    gate.execute("select pg_advisory_lock(1)")

    async def meanwhile(runner: Runner) -> None:
        waiting = "select from pg_locks where locktype = 'advisory' and not granted"
        await eventually(lambda: db.execute(waiting).rowcount == 1)
        asyncio.get_running_loop().call_later(
            0.1, gate.execute, "select pg_advisory_unlock(1)"
        )

    running(dsn, ledger, meanwhile)
    assert ledger.keys == []
    assert [(due["lease_until"], due["attempt"]) for due in live(db)] == [(None, 0)] * 5
    assert violations(db) == []


def test_after_the_grace_period_what_is_in_flight_is_uncertain(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # does not heed it at once
        return Sent()

    enroll(2)
    ledger = Ledger(answer)

    async def meanwhile(runner: Runner) -> float:
        await eventually(lambda: len(ledger.keys) == 2)
        return time.monotonic()

    stopped = running(dsn, ledger, meanwhile, grace=0.2)
    assert time.monotonic() - stopped < 5
    assert (
        last_events(db)
        == [("uncertain", None, "the runner stopped before it was answered")] * 2
    )


class SlowReceiver:
    """An HTTP server in threads that answers when `release` is set."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.keys.append(self.headers["Idempotency-Key"])
                receiver.release.wait(30)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture
def receiver() -> Iterator[SlowReceiver]:
    receiver = SlowReceiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.release.set()
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@contextmanager
def pgdrip_run(dsn: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pgdrip", "run", *options],
        env=os.environ | {"PGDRIP_DSN": dsn},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_drains_what_is_in_flight_and_leaves_the_rest_due(
    dsn: str, db: Db, enroll: Enroll, receiver: SlowReceiver, number: int, code: int
) -> None:
    enroll(10, url=receiver.url)
    with pgdrip_run(dsn, "--slots", "4") as process:
        asyncio.run(eventually(lambda: len(receiver.keys) == 4, seconds=20))
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)  # it waits for the answers
        receiver.release.set()
        _, errors = process.communicate(timeout=10)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert len(set(receiver.keys)) == len(receiver.keys) == 4
    assert last_events(db) == [("sent", None, None)] * 4
    rest = live(db)
    assert len(rest) == 6
    assert all(due["lease_until"] is None for due in rest)
    assert all(due["parked_reason"] is None for due in rest)
    assert violations(db) == []


# When the database fails


def test_a_lost_connection_loses_no_result(dsn: str, db: Db, enroll: Enroll) -> None:
    [enrollment] = enroll(1)
    lost: list[int] = []

    async def answer(message: ClaimedMessage) -> Outcome:
        for pid in backends(db):
            db.execute("select pg_terminate_backend(%s, 5000)", [pid])
            lost.append(pid)
        return Sent("p1")

    ledger = Ledger(answer)
    run(dsn, ledger)
    assert len(lost) == 1
    assert ledger.keys == [f"{enrollment}:1"]
    assert last_events(db) == [("sent", None, None)]
    assert live(db) == []


def test_a_long_outage_loses_no_result_and_sends_nothing_twice(
    dsn: str, db: Db, server: Any, enroll: Enroll
) -> None:
    enrollments = enroll(30, days=(1, 3))
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(server.dsn, autocommit=True) as other:

        def outage() -> None:
            other.execute(f'alter database "{name}" allow_connections false')
            for pid in backends(db):
                db.execute("select pg_terminate_backend(%s, 5000)", [pid])

        async def answer(message: ClaimedMessage) -> Outcome:
            if len(ledger.keys) == 20:
                outage()
                asyncio.get_running_loop().call_later(
                    1.0,
                    other.execute,
                    f'alter database "{name}" allow_connections true',
                )
            await asyncio.sleep(0.01)
            return Sent()

        ledger = Ledger(answer)
        run(dsn, ledger, slots=10)
    assert Counter(ledger.keys) == Counter(f"{id}:1" for id in enrollments)
    assert [due["step"] for due in live(db)] == [3] * 30
    assert violations(db) == []


def test_a_lost_answer_to_begin_is_asked_for_again(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    [enrollment] = enroll(1)
    db.execute("create sequence begins")
    lose = (
        "if nextval('begins') = 1 then"
        " perform pg_terminate_backend(pg_backend_pid()); end if;"
    )
    wrap(db, BEGIN, before=lose)
    ledger = Ledger()
    run(dsn, ledger)
    assert ledger.keys == [f"{enrollment}:1"]
    assert live(db) == []


def test_a_first_connection_that_fails_is_told_at_once(dsn: str) -> None:
    gone = make_conninfo(dsn, dbname="no_such_database")
    with pytest.raises(DatabaseUnavailable):
        run(gone, Ledger())


def test_a_schema_it_does_not_know_is_refused_and_nothing_claimed(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)
    db.execute(
        "create or replace function pgdrip.schema_version() returns text"
        " language sql as $$ select '999' $$"
    )
    ledger = Ledger()
    with pytest.raises(SchemaMismatch, match=r"is 999, pgdrip \S+ knows 1"):
        run(dsn, ledger)
    assert ledger.keys == []
    assert live(db)[0]["token"] is None


def test_a_schema_that_changes_under_it_ends_it_after_its_reports(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)

    async def answer(message: ClaimedMessage) -> Outcome:
        db.execute("alter function pgdrip.claim rename to claim_of_another_version")
        await asyncio.sleep(1.5)  # long enough for the next claim
        return Sent()

    with pytest.raises(SchemaMismatch, match="claim"):
        run(dsn, Ledger(answer))
    assert last_events(db) == [("sent", None, None)]
    assert live(db) == []


def test_a_locked_engine_is_waited_for(dsn: str, db: Db, enroll: Enroll) -> None:
    enroll(1)
    [control] = db.execute("select database_oid from pgdrip.control").fetchall()
    db.execute("update pgdrip.control set database_oid = 1")
    ledger = Ledger()

    async def meanwhile(runner: Runner) -> None:
        await asyncio.sleep(0.5)
        assert ledger.keys == []
        db.execute(
            "update pgdrip.control set database_oid = %s", [control["database_oid"]]
        )
        await eventually(lambda: len(ledger.keys) == 1)

    running(dsn, ledger, meanwhile)


def test_an_error_nobody_expects_is_tried_again_and_then_ends_it(
    dsn: str, db: Db, enroll: Enroll
) -> None:
    enroll(1)
    db.execute("create sequence claims")
    wrap(db, CLAIM, before="raise exception 'claim %', nextval('claims');")
    with pytest.raises(Exception, match="claim 4"):
        run(dsn, Ledger())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": {}}, "no channel"),
        ({"slots": 0}, "slots"),
        ({"batch": 0}, "batch"),
        ({"batch": 1001}, "batch"),
        ({"lease": timedelta(seconds=60)}, "lease .* must be longer"),
        ({"lease": timedelta(hours=2)}, "at most an hour"),
        ({"send_timeout": 0}, "lease"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Runner(**{"channels": {"log": Ledger()}} | options)
