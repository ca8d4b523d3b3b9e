"""What tests of the runner share: a channel that keeps a ledger, work to do, and the
runner as an object or a process."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from pgdrip.channels import Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.runner import Runner
from pgdrip.settings import Settings

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


def enroll(
    db: Db,
    people: int,
    *,
    days: tuple[int, ...] = (1,),
    url: str | None = None,
    senders: int = 1,
    **step: Any,
) -> list[int]:
    """Enroll new contacts in one sequence; channel `log` without url."""
    channel = {"channel": "webhook" if url else "log"}
    steps = [{"day": day, "body": f"Day {day}"} | step for day in days]
    sequence = {"name": "WARM Sequence", "trigger": "WARM", "status": "active"}
    config = {"config": {"url": url} if url else {}}
    for number in range(1, senders + 1):
        sender = {"name": f"device-{number:04}"} | config | channel
        db.execute("select pgdrip.apply_sender(%s)", [Jsonb(sender)])
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


def run(dsn: str, channel: Ledger, **options: Any) -> None:
    """One runner until nothing is due, with these settings."""
    asyncio.run(runner_of(dsn, channel, once=True, **options).run())


def runner_of(
    dsn: str,
    channel: Ledger,
    *,
    once: bool = False,
    on_idle: Callable[[], Awaitable[bool]] | None = None,
    stop: asyncio.Event | None = None,
    **options: Any,
) -> Runner:
    """Senders are no bottleneck unless a test says so."""
    return Runner(
        dsn,
        channels={"log": channel},
        settings=Settings(**{"per_sender": 1000} | options),
        once=once,
        on_idle=on_idle,
        stop=stop,
    )


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
        runner = runner_of(dsn, channel, stop=stop, **options)
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


@contextmanager
def receiving() -> Iterator[SlowReceiver]:
    receiver = SlowReceiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.release.set()
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@contextmanager
def pgdrip_run(
    dsn: str, *options: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pgdrip", "run", *options],
        env=os.environ | {"PGDRIP_DSN": dsn} | (environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
