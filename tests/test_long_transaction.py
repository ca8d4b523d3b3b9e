"""A transaction that somebody leaves open, while messages go out: what a claim costs
then, and who is to blame."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

import fleet
import stage
from conftest import Clock, Connect
from pgdrip.doctor import doctor
from stage import Db

SENDERS, PEOPLE, MESSAGES, BATCH, TAKEN = 300, 3000, 25_000, 500, 100
LIMITS = {"rate_per_hour": 100_000, "burst": 1000}
STEPS = [
    {"day": day, "body": "Hi", "delay": "0 s" if day == 1 else "1 hour"}
    for day in range(1, 41)
]


@contextmanager
def left_open(connect: Connect) -> Iterator[Db]:
    """A transaction that sees everything as it is now."""
    reader = connect()
    reader.execute("set application_name = 'monthly report'")
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with reader.transaction():
        stage.one(reader, "select count(*) from pgdrip.due")
        yield reader


def send(db: Db, clock: Clock, messages: int) -> None:
    """Claim, begin and report so many; hours pass as soon as nothing is due."""
    sent = 0
    while sent < messages:
        batch = len(stage.deliver(db, BATCH))
        sent += batch
        if batch < BATCH:
            clock.advance(timedelta(hours=1))
    db.execute("select pg_stat_force_next_flush()")


def buffers(db: Db) -> int:
    """What one claim reads that is rolled back."""
    with db.transaction(force_rollback=True):
        row = stage.one(
            db,
            "explain (analyze, buffers, format json)"
            f" select * from pgdrip.claim('probe', {TAKEN})",
        )
    plan = row["QUERY PLAN"][0]["Plan"]
    assert plan["Actual Rows"] == TAKEN
    read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


def normal(db: Db) -> int:
    """What it reads once everything is clean; the first one after marks rows."""
    db.execute("vacuum analyze")
    buffers(db)
    return buffers(db)


def test_an_old_snapshot_makes_a_claim_read_less_than_ten_times_as_much_until_it_ends(
    db: Db, clock: Clock, connect: Connect, dsn: str
) -> None:
    stage.sequence(db, steps=STEPS)
    names = [f"sender-{number}" for number in range(SENDERS)]
    fleet.senders(db, [{"name": n, "channel": "webhook"} | LIMITS for n in names])
    fleet.work(db, dict.fromkeys(names, PEOPLE // SENDERS), ["WARM"])
    send(db, clock, BATCH)  # drains the wakes
    before = normal(db)

    with left_open(connect) as reader:
        send(db, clock, MESSAGES)
        clock.advance(timedelta(hours=1))
        held = buffers(db)
        pid = reader.info.backend_pid
        found = [one.what for one in doctor(dsn) if f"process {pid} " in one.what]
    after = normal(db)

    assert held > 1.5 * before, "nothing was held back: this shows nothing"
    assert held < 10 * before
    assert after < 2 * before
    [culprit] = found
    assert "of monthly report" in culprit
    assert "idle in transaction" in culprit
    assert " s old" in culprit
