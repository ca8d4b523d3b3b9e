"""What operators wait for, with the whole fleet live."""

import time
from collections.abc import Iterator

import psycopg

from bench.daemon import Db
from bench.figure import Figure, Found, experiment
from bench.plan import Bench

VIEWS = ("queue_health", "sender_load")


@experiment("pause")
def pause(bench: Bench) -> Iterator[Found]:
    times = []
    with bench.copy() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        for _ in range(1 + bench.scale.rounds):
            times.append(
                1000 * seconds(db, "select pgdrip.pause_sequence('WARM', 'x')")
            )
            db.execute("select pgdrip.resume_sequence('WARM')")
    yield Figure(
        f"pause_sequence with {bench.scale.enrollments:,} live",
        times[1:],
        "ms",
        at_most=50,
    )


@experiment("check")
def check(bench: Bench) -> Iterator[Found]:
    with bench.copy() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        broken = db.execute("select count(*) from pgdrip.check()").fetchone()
        assert broken == (0,), broken
        query = "select count(*) from pgdrip.check()"
        times = [seconds(db, query) for _ in range(bench.scale.rounds)]
    yield Figure(
        f"check() of {bench.scale.enrollments:,} enrollments", times, "s", at_most=10
    )


@experiment("views")
def views(bench: Bench) -> Iterator[Found]:
    with bench.copy() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        for view in VIEWS:
            query = f"select * from pgdrip.{view}"
            times = [1000 * seconds(db, query) for _ in range(1 + bench.scale.rounds)]
            yield Figure(
                f"{view} of {bench.scale.enrollments:,} enrollments",
                times[1:],
                "ms",
                at_most=50,
            )


def seconds(db: Db, query: str) -> float:
    began_at = time.perf_counter()
    db.execute(query.encode()).fetchall()
    return time.perf_counter() - began_at
