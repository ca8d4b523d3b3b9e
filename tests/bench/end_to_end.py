"""Steps a second of the real `pgdrip run`, sender and receiver on the same machine."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
from aiohttp import web

from bench.daemon import Db, runner, until
from bench.figure import Figure, Found, experiment, rates
from bench.limits import reported
from bench.meter import process_cpu
from bench.plan import Bench
from bench.workers import Turn, Workers

SLOW = 1.5
"""Seconds that a gateway takes which is far away."""
OVER_HTTP = """
update pgdrip.sequences set channel = 'webhook';
update pgdrip.paces set channel = 'webhook';
update pgdrip.senders
   set channel = 'webhook', config = jsonb_build_object('url', %s::text);
"""


@experiment("end to end")
def end_to_end(bench: Bench) -> Iterator[Found]:
    yield from log(bench)
    yield from webhook(bench, latency=0, asked=1000)
    yield from webhook(bench, latency=SLOW, asked=None)


def log(bench: Bench) -> Iterator[Found]:
    with bench.copy() as dsn:
        with Workers(dsn, 1) as one:
            turn = Turn(500, begins=True, seconds=bench.scale.seconds)
            base = [one.turn(turn).rate for _ in range(bench.scale.rounds)]
        found, notes = run(bench, dsn)
    yield Figure(
        "pgdrip run, channel log, 1,000 slots",
        found,
        "steps/s",
        at_least=4000,
        notes=[*notes, rates(base, "one client of SQL alone")],
    )


def webhook(bench: Bench, *, latency: float, asked: float | None) -> Iterator[Found]:
    with (
        receiver(latency) as url,
        bench.copy() as dsn,
    ):
        with psycopg.connect(dsn) as db:
            psycopg.ClientCursor(db).execute(OVER_HTTP, [url])
        found, notes = run(bench, dsn)
    answers = f"answering after {latency} s" if latency else "answering at once"
    yield Figure(
        f"pgdrip run, channel webhook, 1,000 slots, a receiver on loopback {answers}",
        found,
        "steps/s",
        at_least=asked,
        notes=notes,
    )


def run(bench: Bench, dsn: str) -> tuple[list[float], list[str]]:
    """Steps a second of each round, and what else was seen of the process."""
    with (
        psycopg.connect(dsn, autocommit=True) as db,
        runner(db, dsn, "--slots", "1000") as process,
    ):
        before = reported(db)
        until(lambda: reported(db) >= before + 500, "it sends")
        cpu, sent, began_at = process_cpu(process), reported(db), time.monotonic()
        found = [one_round(db, bench.scale.seconds) for _ in range(bench.scale.rounds)]
        steps = reported(db) - sent
        cpu = process_cpu(process) - cpu
        took = time.monotonic() - began_at
        status = Path(f"/proc/{process}/status").read_text()
    size = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return found, [
        f"Python {1000 * cpu / max(1, steps):.3f} ms/step, {cpu / took:.2f} cores,"
        f" {size:.0f} MB"
    ]


def one_round(db: Db, seconds: float) -> float:
    before, began_at = reported(db), time.perf_counter()
    time.sleep(seconds)
    return (reported(db) - before) / (time.perf_counter() - began_at)


@contextmanager
def receiver(latency: float) -> Iterator[str]:
    """A gateway in a process of its own; its URL."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(theirs, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.terminate()
        process.join()


def serve(pipe: Connection, latency: float) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if latency:
            await asyncio.sleep(latency)
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
