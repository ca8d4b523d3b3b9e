"""How soon after its time a step goes out, and what waiting for it costs."""

import time
from collections.abc import Iterator

import psycopg

from bench.daemon import Db, cores, runner, until
from bench.figure import Figure, Found, experiment
from bench.fleet import Fleet
from bench.limits import reported
from bench.plan import Bench

A_SECOND = 50
SEEDS_TWICE = 134
"""Steps a second: twice what 3,000 senders at 80 an hour send."""
SOON = "3 seconds"
"""When the first of them falls due, of steps that are told of now."""

# As enrolling does it: due rows, and a word to their senders.
SCHEDULE = """
with moved as (
  update pgdrip.due as d
     set due_at = %(from)s + (d.enrollment_id - 1) * interval '1 second' / %(a_second)s
   where d.enrollment_id <= %(count)s returning d.sender_id, d.due_at
)
insert into pgdrip.wakes (sender_id, due_at)
select sender_id, min(due_at) from moved group by sender_id
"""
DELAYS = """
select percentile_cont(array[0.5, 0.99]) within group (
         order by 1000 * extract(epoch from begun_at - due_at))
  from pgdrip.deliveries
 where event = 'sent'
   and due_at >= %(from)s + %(round)s * make_interval(secs => %(seconds)s)
   and due_at < %(from)s + (%(round)s + 1) * make_interval(secs => %(seconds)s)
"""
BACK_AFTER = """
select coalesce(extract(epoch from max(begun_at) - %(closed)s), 0)::float8,
       (select extract(epoch from max(begun_at - due_at))::float8
          from pgdrip.deliveries)
  from pgdrip.deliveries
 where begun_at > %(closed)s and begun_at - due_at >= interval '2 s'
"""


@experiment("latency")
def latency(bench: Bench) -> Iterator[Found]:
    seconds = 2 * bench.scale.seconds
    with (
        bench.copy(Fleet(bench.scale.enrollments // 10, due=0)) as dsn,
        psycopg.connect(dsn, autocommit=True) as db,
    ):
        with runner(db, dsn):
            idle = [100 * cores(db, seconds) for _ in range(bench.scale.rounds)]
            length = seconds * bench.scale.rounds
            began = schedule(db, length, A_SECOND)
            wait_for(db, int(length * A_SECOND), length)
        halves, lasts = [], []
        for number in range(bench.scale.rounds):
            values = {"from": began, "round": number, "seconds": seconds}
            [[half, last]] = db.execute(DELAYS, values).fetchone() or ([0.0, 0.0],)
            halves.append(half)
            lasts.append(last)
    what = f"due to begin, {A_SECOND} steps/s, default runner"
    yield Figure(f"{what}: p50", halves, "ms", at_most=100)
    yield Figure(f"{what}: p99", lasts, "ms", at_most=300)
    yield Figure(
        "database CPU of a runner that waits, nothing due",
        idle,
        "% of a core",
        at_most=0.5,
    )


@experiment("held transaction")
def held_transaction(bench: Bench) -> Iterator[Found]:
    """The hour of `make bench-large` in a minute, its ten minutes in ten seconds."""
    yield from held(bench, seconds=60 if bench.scale.rounds > 3 else 12)


@experiment("hour", is_large=True)
def hour(bench: Bench) -> Iterator[Found]:
    yield from held(bench, seconds=3600)


def held(bench: Bench, *, seconds: float) -> Iterator[Found]:
    """So long at twice the seeds' load; somebody looks on for a sixth of it."""
    steps = int(seconds * SEEDS_TWICE)
    with (
        bench.copy(Fleet(max(bench.scale.enrollments // 10, steps), due=0)) as dsn,
        psycopg.connect(dsn, autocommit=True) as db,
    ):
        with runner(db, dsn):
            schedule(db, seconds, SEEDS_TWICE)
            time.sleep(seconds / 3)
            with psycopg.connect(dsn) as reader:
                reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                reader.execute("select count(*) from pgdrip.due")
                time.sleep(seconds / 6)
            closed = now(db)
            wait_for(db, steps, seconds)
        found = db.execute(BACK_AFTER, {"closed": closed}).fetchone()
        assert found
        back, worst = map(float, map(str, found))
    yield Figure(
        f"{seconds:g} s of {SEEDS_TWICE} steps/s, a transaction held open for"
        f" {seconds / 6:g} s: lag < 2 s after it closed",
        [back],
        "s",
        at_most=120,
        notes=[f"greatest lag {worst:.2f} s"],
    )


def schedule(db: Db, seconds: float, a_second: int) -> object:
    """Steps fall due at that pace for so long, soon; when the first does."""
    first = db.execute(f"select pgdrip.clock() + interval '{SOON}'".encode()).fetchone()
    assert first
    db.execute(
        SCHEDULE,
        {"from": first[0], "count": int(seconds * a_second), "a_second": a_second},
    )
    return first[0]


def wait_for(db: Db, steps: int, seconds: float) -> None:
    until(lambda: reported(db) >= steps, "all is sent", seconds=seconds + 120)


def now(db: Db) -> object:
    row = db.execute("select pgdrip.clock()").fetchone()
    assert row
    return row[0]
