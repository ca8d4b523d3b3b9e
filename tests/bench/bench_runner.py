"""How many steps one `pgdrip run` does a second, and what Python's part in it is.

Prints a table: the database alone (claim, begin_send and report called by a procedure),
then the real process over the same work. The rate counts from the first report to the
last, start and end of the process left out. `python` is the CPU time of the process for
each step. Whatever else the machine does shows in the numbers: compare the ratios.
"""

import argparse
import asyncio
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psycopg
from aiohttp import web
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from databases import Databases, choose
from pgdrip.migrate import migrate

LATENCY = 1.5  # seconds the gateway takes
BATCH = 500

SQL_ONLY = """
create procedure work(p_batch integer) language plpgsql as $$
declare
  v_ids bigint[];
  v_tokens bigint[];
begin
  loop
    select array_agg(enrollment_id), array_agg(token) into v_ids, v_tokens
      from pgdrip.claim('bench', p_batch);
    commit;
    exit when v_ids is null;
    perform pgdrip.begin_send(v_ids, v_tokens);
    commit;
    perform pgdrip.report(v_ids, v_tokens,
      array_fill('sent'::text, array[cardinality(v_ids)]));
    commit;
  end loop;
end $$
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Steps a second; CPU milliseconds of Python for a step; its largest size in MB."""

    rate: float
    python: float = 0.0
    size: float = 0.0


@contextmanager
def database(steps: int, senders: int, sender: dict[str, object]) -> Iterator[str]:
    """A new database with so many steps due now."""
    with choose(os.environ).start() as server, Databases(server).empty() as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as db:
            for number in range(senders):
                definition = sender | {"name": f"device-{number:04}"}
                db.execute("select pgdrip.apply_sender(%s)", [Jsonb(definition)])
            sequence = {
                "name": "WARM",
                "trigger": "WARM",
                "status": "active",
                "channel": sender["channel"],
                "steps": [{"day": 1, "body": "Hi {{name|there}}"}],
            }
            db.execute("select * from pgdrip.apply_sequence(%s)", [Jsonb(sequence)])
            db.execute(
                "insert into pgdrip.contact_triggers (contact_id, trigger)"
                " select pgdrip.upsert_contact('+60110' || n), 'WARM'"
                "   from generate_series(1000001, 1000000 + %s) as n",
                [steps],
            )
            while db.execute("select pgdrip.enroll_waiting(1000)").fetchone() != (0,):
                pass
            db.execute("vacuum analyze")
        yield dsn


def due(dsn: str) -> int:
    with psycopg.connect(dsn) as db:
        [steps] = db.execute("select count(*) from pgdrip.due").fetchone() or [0]
        return int(steps)


def rate(dsn: str) -> float:
    """Steps a second between the first report and the last."""
    if left := due(dsn):
        raise SystemExit(f"{left} steps are left")
    with psycopg.connect(dsn) as db:
        [found] = db.execute(
            "select count(*) / extract(epoch from max(at) - min(at))::float8"
            "  from pgdrip.deliveries where event = 'sent'"
        ).fetchone() or [0.0]
        return float(found)


def sql_only(dsn: str) -> Measured:
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(SQL_ONLY)
        db.execute("call work(%s)", [BATCH])
    return Measured(rate(dsn))


def run(dsn: str, *options: str) -> Measured:
    """`pgdrip run --once` over all of it."""
    steps = due(dsn)
    seconds, size = usage("-m", "pgdrip", "run", "--once", *options, dsn=dsn)
    startup, _ = usage("-c", "import pgdrip.cli.run", dsn=dsn)
    return Measured(rate(dsn), (seconds - startup) / steps * 1000, size)


def usage(*command: str, dsn: str) -> tuple[float, float]:
    """CPU seconds of a Python process, and its largest size in MB: no less than that
    of this process, which it was for a moment."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PGDRIP_DSN": dsn},
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


@contextmanager
def gateway() -> Iterator[str]:
    """A server in a process of its own that answers after LATENCY; its URL."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.terminate()
        process.join()


def serve(pipe: Connection) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(LATENCY)
        return web.json_response({"id": request.headers["Idempotency-Key"]})

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/", answer)
        server = web.AppRunner(application, access_log=None)
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0, backlog=2048).start()
        pipe.send(server.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    table = Table("what", "senders", "steps/s", "of SQL only", "python ms/step", "MB")
    log: dict[str, object] = {"channel": "log", "config": {"file": "/dev/null"}}

    def row(what: str, senders: int, found: Measured, base: Measured) -> None:
        share = f"{found.rate / base.rate:.2f}"
        python = f"{found.python:.3f}" if found.python else ""
        size = f"{found.size:.0f}" if found.size else ""
        table.add_row(what, str(senders), f"{found.rate:,.0f}", share, python, size)

    for senders, per_sender in ((1, 1000), (300, 10)):
        with database(steps, senders, log) as dsn:
            base = sql_only(dsn)
        row("SQL only, one session", senders, base, base)
        with database(steps, senders, log) as dsn:
            options = ("--slots", "1000", "--per-sender", str(per_sender))
            row(f"run, log, {per_sender} each", senders, run(dsn, *options), base)
    with gateway() as url:
        webhook: dict[str, object] = {"channel": "webhook", "config": {"url": url}}
        with database(steps, 1, webhook) as dsn:
            found = run(dsn, "--slots", "1000", "--per-sender", "1000")
        row(f"run, webhook of {LATENCY} s, 1000 slots", 1, found, base)
    Console().print(table)


if __name__ == "__main__":
    main()
