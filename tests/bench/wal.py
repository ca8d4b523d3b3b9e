"""The log: bytes for each step, with full-page images and without; HOT updates."""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import fleet, limit
from bench.figure import Figure, Found, experiment
from bench.meter import metered
from bench.plan import Bench
from bench.workers import Turn, Workers

BATCH = 500
CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of the log for a step: its records, and the images of pages beside."""

    records: float
    images: float


@experiment("wal")
def wal(bench: Bench) -> Iterator[Found]:
    """The same steps after a checkpoint each: one in ten of the fleet."""
    count = bench.scale.enrollments // 10
    rows = fleet.limit_rows(bench.usual)
    ours: list[Written] = []
    theirs: list[Written] = []
    with bench.copy() as dsn, Workers(dsn, CLIENTS) as workers:
        workers.turn(Turn(BATCH, seconds=0.5))

        def work() -> int:
            return workers.turn(Turn(BATCH, steps=count)).steps

        def least() -> int:
            _, steps = limit.steps(
                bench.cluster, dsn, clients=CLIENTS, batch=BATCH, count=count, rows=rows
            )
            return steps

        for _ in range(bench.scale.rounds):
            fleet.make_due(dsn, 2 * count)
            theirs.append(written(bench, dsn, least))
            ours.append(written(bench, dsn, work))
    both = list(zip(ours, theirs, strict=True))
    note = f"of {count:,} steps after a checkpoint, bytes a step"
    yield Figure(
        "WAL of claim + report without full-page images",
        [a.records / b.records for a, b in both],
        "x limit",
        at_most=1.3,
        notes=[f"{note}: {middle(ours, 'records')}, limit {middle(theirs, 'records')}"],
    )
    yield Figure(
        "WAL of claim + report with full-page images",
        [(a.records + a.images) / (b.records + b.images) for a, b in both],
        "x limit",
        at_most=1.5,
        notes=[
            f"{note}, images alone: {middle(ours, 'images')},"
            f" limit {middle(theirs, 'images')}"
        ],
    )


def middle(found: list[Written], what: str) -> str:
    return f"{sorted(getattr(one, what) for one in found)[len(found) // 2]:,.0f}"


def written(bench: Bench, dsn: str, work: Callable[[], int]) -> Written:
    """What a piece of work, told in steps, wrote after a checkpoint."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("checkpoint")
        start = position(db)
        steps = work()
        end = position(db)
        row = db.execute("show data_directory").fetchone()
        assert row
    told = subprocess.run(
        [
            *(str(bench.cluster.binaries / "pg_waldump"), "--stats"),
            *("--path", str(Path(str(row[0])) / "pg_wal"), "--start", start),
            *("--end", end),
        ],
        capture_output=True,
        text=True,
    )
    total = re.search(
        r"^Total\s+\d+\s+(\d+) \[.*?\]\s+(\d+) \[", told.stdout, re.MULTILINE
    )
    if not total:
        raise SystemExit(f"pg_waldump: {told.stdout}{told.stderr}")
    return Written(int(total[1]) / steps, int(total[2]) / steps)


def position(db: psycopg.Connection[tuple[object, ...]]) -> str:
    # Flushed, so that all of it can be read from the files.
    db.execute("select pg_logical_emit_message(true, 'bench', '')")
    row = db.execute("select pg_current_wal_flush_lsn()").fetchone()
    assert row
    return str(row[0])


@experiment("hot")
def hot(bench: Bench) -> Iterator[Found]:
    """Of a step's three updates of its row the report's moves it in an index."""
    shares = []
    with bench.copy() as dsn, Workers(dsn, CLIENTS) as workers:
        turn = Turn(BATCH, begins=True, seconds=bench.scale.seconds)
        workers.turn(Turn(BATCH, begins=True, seconds=0.5))
        for _ in range(bench.scale.rounds):
            fleet.make_due(dsn, bench.scale.enrollments // 5)
            with metered(dsn, "due") as spent:
                steps = workers.turn(turn).steps
            shares.append(100 * spent.hot / (spent.updates - steps))
    yield Figure(
        "HOT share of the updates of claim and begin_send", shares, "%", at_least=90
    )
