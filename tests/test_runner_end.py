"""The runner when time runs out, and when it is stopped."""

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from conftest import Clock, Connect
from pgdrip.channels import Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.runner import Runner
from running import (
    BEGIN,
    CLAIM,
    Db,
    Ledger,
    SlowReceiver,
    enroll,
    eventually,
    last_events,
    live,
    pgdrip_run,
    receiving,
    run,
    running,
    violations,
    wrap,
)


@pytest.fixture
def receiver() -> Iterator[SlowReceiver]:
    with receiving() as receiver:
        yield receiver


# When time runs out


def test_a_message_whose_time_is_over_after_begin_is_not_sent(dsn: str, db: Db) -> None:
    enroll(db, 1)
    wrap(db, BEGIN, after="perform pg_sleep(1.2);")
    ledger = Ledger()
    run(dsn, ledger, lease=1, timeout=0.5)
    assert ledger.keys == []
    [(event, code, detail)] = last_events(db)
    assert (event, code) == ("failed", "transient")
    assert str(detail).startswith("not sent")
    [due] = live(db)
    assert due["parked_reason"] is None


def test_a_message_claimed_too_slowly_is_given_back_unbegun(dsn: str, db: Db) -> None:
    enroll(db, 1)
    db.execute("create sequence claims")
    slow = "if nextval('claims') = 1 then perform pg_sleep(1.2); end if;"
    wrap(db, CLAIM, after=slow)
    ledger = Ledger()
    run(dsn, ledger, lease=1, timeout=0.5)
    assert len(ledger.keys) == 1
    assert [event for event, _, _ in last_events(db)] == ["abandoned", "sent"]


def test_a_lease_is_renewed_while_its_send_takes_long(
    dsn: str, db: Db, clock: Clock
) -> None:
    enroll(db, 1)
    lease = timedelta(seconds=3)
    seen: list[timedelta] = []

    async def answer(message: ClaimedMessage) -> Outcome:
        clock.advance(timedelta(seconds=2))
        await eventually(lambda: live(db)[0]["lease_until"] != message.lease_until)
        seen.append(live(db)[0]["lease_until"] - message.lease_until)
        return Sent()

    run(dsn, Ledger(answer), lease=lease.total_seconds(), timeout=2.5)
    assert seen == [timedelta(seconds=2)]
    assert live(db) == []


# When it is stopped


def test_what_was_claimed_but_not_begun_is_given_back_at_the_end(
    dsn: str, db: Db, connect: Connect
) -> None:
    enroll(db, 5)
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
    dsn: str, db: Db
) -> None:
    async def answer(message: ClaimedMessage) -> Outcome:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # does not heed it at once
        return Sent()

    enroll(db, 2)
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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_drains_what_is_in_flight_and_leaves_the_rest_due(
    dsn: str, db: Db, receiver: SlowReceiver, number: int, code: int
) -> None:
    enroll(db, 10, url=receiver.url)
    with pgdrip_run(dsn, "--slots", "4", "--per-sender", "4") as process:
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


def test_a_second_signal_ends_the_grace_period(
    dsn: str, db: Db, receiver: SlowReceiver
) -> None:
    enroll(db, 2, url=receiver.url)
    with pgdrip_run(dsn, "--per-sender", "2") as process:
        asyncio.run(eventually(lambda: len(receiver.keys) == 2, seconds=20))
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert [event for event, _, _ in last_events(db)] == ["uncertain"] * 2


class Crowd:
    """A gateway that holds every request until it is told to answer the first few."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._answers: list[asyncio.Event] = []

    def answer(self, number: int) -> set[str]:
        """Answer the first so many; their keys."""
        for event in self._answers[:number]:
            event.set()
        return set(self.keys[:number])

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/", self._hold)
        server = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await server.setup()
        try:
            await web.TCPSite(server, "127.0.0.1", 0, backlog=1024).start()
            host, port = server.addresses[0][:2]
            yield f"http://{host}:{port}/"
        finally:
            self.answer(len(self.keys))
            await server.cleanup()

    async def _hold(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        self._answers.append(asyncio.Event())
        await self._answers[-1].wait()
        return web.Response()


def test_sigterm_with_500_in_flight_ends_within_the_grace_period(
    dsn: str, db: Db
) -> None:
    crowd = Crowd()

    async def main() -> tuple[set[str], float]:
        async with crowd.served() as url:
            enroll(db, 800, url=url)
            options = ("--slots", "700", "--per-sender", "500", "--grace", "3")
            with pgdrip_run(dsn, *options) as process:
                await eventually(lambda: len(crowd.keys) == 500, seconds=30)
                process.send_signal(signal.SIGTERM)
                stopped_at = time.monotonic()
                answered = crowd.answer(200)
                _, errors = await asyncio.to_thread(process.communicate, timeout=30)
                assert process.returncode == 0, errors
                return answered, time.monotonic() - stopped_at

    answered, seconds = asyncio.run(main())
    assert seconds < 3 + 3
    assert len(set(crowd.keys)) == len(crowd.keys) == 500
    assert Counter(
        event for event, _, _ in last_events(db) if event != "abandoned"
    ) == {
        "sent": 200,
        "uncertain": 300,
    }
    rows = live(db)
    begun = [f"{row['enrollment_id']}:1" for row in rows if row["parked_reason"]]
    assert set(begun) == set(crowd.keys) - answered  # never what was not begun
    rest = [row for row in rows if not row["parked_reason"]]
    assert len(rest) == 300
    assert {(row["token"], row["lease_until"], row["attempt"]) for row in rest} == {
        (None, None, 0)
    }
    assert violations(db) == []


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--name", "n" * 64], 2, "63 bytes"),
        (["--name", "é" * 32], 2, "63 bytes"),
        (["--name", "  "], 2, "visible"),
        (["--spool", "/tmp"], 2, "needs --name"),
        (["--per-sender", "0"], 2, "per-sender"),
        (["--health-address", "8080"], 2, "host:port"),
        (["--health-address", "localhost:70000"], 2, "host:port"),
        (["--lease", "60"], 3, "longer than the timeout"),
        (["--timeout", "300"], 3, "longer than the timeout"),
    ],
)
def test_options_that_cannot_be_are_refused(
    dsn: str, options: list[str], code: int, words: str
) -> None:
    with pgdrip_run(dsn, *options) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert words in errors
    assert len(errors.splitlines()) <= 2
