"""Retention beside other sessions: it waits for nobody long; what it took is final."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

import stage
from conftest import Clock, Connect
from stage import Db

MARCH = datetime(2026, 3, 20, 9, tzinfo=UTC)


@pytest.fixture
def failed(db: Db, clock: Clock) -> int:
    """A run that failed in January, with retention due in March."""
    db.execute("select pgdrip.maintain()")
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db)
    assert stage.report(db, claimed(db), "failed", "permanent") == ["failed"]
    clock.set(MARCH)
    db.execute("select pgdrip.set_retention('30 days')")
    run: int = stage.one(db, "select enrollment_id from pgdrip.enrollments")[
        "enrollment_id"
    ]
    return run


def claimed(db: Db) -> list[stage.Row]:
    messages = stage.claim(db)
    stage.begin(db, messages)
    return messages


def retired(db: Db) -> int:
    """How many months one maintain() took."""
    months: int = stage.one(db, "select * from pgdrip.maintain()")["months_retired"]
    return months


@contextmanager
def reading(reader: Db) -> Iterator[None]:
    """A transaction that has read the history and is not over."""
    with reader.transaction():
        reader.execute("select count(*) from pgdrip.deliveries")
        yield


def test_who_reads_the_history_keeps_it_and_maintain_goes_on(
    db: Db, connect: Connect, failed: int
) -> None:
    other = connect()
    with reading(connect()):
        assert retired(db) == 0
        row = stage.one(db, "select pruned_until, maintained_at from pgdrip.control")
        assert row == {"pruned_until": None, "maintained_at": MARCH}
        assert stage.every(db, "select from pgdrip.history_sums") == []
        other.execute("select count(*) from pgdrip.deliveries")  # nobody waits in line
    assert retired(db) == 1
    assert stage.violations(db) == []


def test_a_run_taken_up_again_keeps_its_history(
    db: Db, connect: Connect, failed: int
) -> None:
    retrying = connect()
    with retrying.transaction():
        retrying.execute("select pgdrip.retry_failed(%s, 'x')", [failed])
        assert retired(db) == 0
    assert retired(db) == 0  # it is live
    assert stage.report(db, claimed(db)) == ["advanced"]
    assert stage.violations(db) == []


def test_a_run_is_not_taken_up_again_while_its_history_goes(
    db: Db, connect: Connect, failed: int
) -> None:
    retrying, watcher = connect(), connect()
    query = "select pgdrip.retry_failed(%s, 'x')"
    db.execute("begin")
    assert retired(db) == 1
    with stage.meanwhile(retrying.execute, query, [failed]) as told:
        stage.waits(watcher, retrying)
        db.execute("commit")
    with pytest.raises(psycopg.Error, match="no longer kept") as caught:
        told.result()
    assert caught.value.sqlstate == "MD003"
    assert stage.violations(db) == []


def test_a_month_that_belongs_to_somebody_else_is_left_alone(
    db: Db, failed: int
) -> None:
    db.execute("alter table pgdrip.deliveries_2026_01 owner to current_user")
    assert retired(db) == 0
    db.execute("alter table pgdrip.deliveries_2026_01 owner to pgdrip_owner")
    assert retired(db) == 1
