"""Failover and retirement against what goes on at once; every order is forced."""

from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import DictRow

import stage
from conftest import Clock, Connect

Db = psycopg.Connection[DictRow]

HOUR = timedelta(hours=1)
TICK = "select pgdrip.tick('runner-1', '1')"
WORK = (
    "select s.name, count(*) as n from pgdrip.due join pgdrip.senders as s"
    " using (sender_id) group by s.name"
)

SENT_BY = (
    "select s.name from pgdrip.deliveries as j join pgdrip.senders as s"
    " using (sender_id) where j.event = 'sent'"
)


def work(db: Db) -> dict[str, int]:
    return {row["name"]: row["n"] for row in stage.every(db, WORK)}


def status(db: Db, name: str) -> str:
    query = "select status from pgdrip.senders where name = %s"
    found: str = stage.one(db, query, [name])["status"]
    return found


def outage(db: Db, clock: Clock, count: int = 6) -> None:
    """`sick` has so many due steps and is down for longer than it may; not `well`."""
    stage.sender(db, "sick", failover_after="1 hour")
    stage.sequence(db)
    stage.leads(db, count)
    stage.sender(db, "well")
    db.execute(
        "with sick as (update pgdrip.senders set health = 'down', faults = 1,"
        " down_at = pgdrip.clock() where name = 'sick' returning sender_id)"
        " update pgdrip.paces set ready_at = pgdrip.clock(), next_at = 'epoch'"
        " where sender_id = (select sender_id from sick)"
    )
    clock.advance(HOUR)
    db.execute("select pgdrip.maintain()")  # hourly, and no tick's business here


def test_failover_leaves_the_row_that_a_report_is_settling(
    db: Db, connect: Connect, clock: Clock
) -> None:
    outage(db, clock)
    probe = stage.claim(db, 1)
    stage.begin(db, probe)
    reporter, ticker = connect(), stage.never_waits(connect())
    with reporter.transaction():
        assert stage.report(reporter, probe) == ["advanced"]
        ticker.execute(TICK)
        assert work(ticker) == {"sick": 1, "well": 5}
    assert stage.one(db, SENT_BY) == {"name": "sick"}
    assert stage.violations(db) == []


def test_a_report_after_failover_finds_its_row_where_it_was(
    db: Db, connect: Connect, clock: Clock
) -> None:
    outage(db, clock)
    probe = stage.claim(db, 1)
    stage.begin(db, probe)
    ticker, reporter = connect(), stage.never_waits(connect())
    with ticker.transaction():
        ticker.execute(TICK)
        assert work(ticker) == {"sick": 1, "well": 5}
        assert stage.report(reporter, probe, "failed", "sender") == ["deferred"]
    db.execute(TICK)
    assert work(db) == {"well": 6}
    assert stage.violations(db) == []


def test_failover_and_claim_never_take_the_same_row(
    db: Db, connect: Connect, clock: Clock
) -> None:
    outage(db, clock)
    claimer, ticker = connect(), stage.never_waits(connect())
    with claimer.transaction():
        [probe] = stage.claim(claimer)  # one message probes a sender that is down
        assert probe["sender"] == "sick"
        ticker.execute(TICK)
    where = "select sender_id from pgdrip.due where enrollment_id = %s"
    assert stage.one(db, where, [probe["enrollment_id"]]) == {"sender_id": 1}
    db.execute(TICK)
    assert work(db) == {"sick": 1, "well": 5}
    assert {m["sender"] for m in stage.claim(db)} == {"well"}
    assert stage.violations(db) == []


def test_a_claim_during_failover_skips_what_moves_and_waits_for_nothing(
    db: Db, connect: Connect, clock: Clock
) -> None:
    outage(db, clock)
    ticker, claimer = connect(), stage.never_waits(connect())
    with ticker.transaction():
        ticker.execute(TICK)
        assert stage.claim(claimer) == []
    assert [m["sender"] for m in stage.claim(claimer)] == ["well"] * 6
    assert stage.violations(db) == []


def test_two_ticks_at_once_move_each_row_once(
    db: Db, connect: Connect, clock: Clock
) -> None:
    outage(db, clock)
    first, second = connect(), stage.never_waits(connect())
    with first.transaction():
        first.execute(TICK)
        second.execute("select pgdrip.tick('runner-2', '1')")
    moved = "select sum(split_part(reason, ' ', 1)::int) as n from pgdrip.audit"
    assert stage.one(db, moved + " where action = 'failover'") == {"n": 6}
    assert work(db) == {"well": 6}


def retiring(db: Db, count: int = 4) -> None:
    """`old` has so many due steps; `new` could take them."""
    stage.sender(db, "old")
    stage.sequence(db)
    stage.leads(db, count)
    stage.sender(db, "new")
    db.execute("select pgdrip.maintain()")


def test_a_retirement_leaves_what_a_claim_is_taking_until_it_is_reported(
    db: Db, connect: Connect
) -> None:
    retiring(db)
    messages = stage.claim(db, 1)  # drains the wakes: that locks the sender
    claimer, operator = connect(), stage.never_waits(connect())
    with claimer.transaction():
        messages += stage.claim(claimer, 1)
        operator.execute("select pgdrip.retire_sender('old', 'default')")
        assert work(operator) == {"old": 2, "new": 2}
    assert status(db, "old") == "retiring"
    assert stage.begin(db, messages) == []  # refused: the sender is out of service
    assert stage.violations(db) == []
    db.execute(TICK)
    assert (status(db, "old"), work(db)) == ("retired", {"new": 4})
    assert len(stage.claim(db)) == 4
    assert stage.violations(db) == []


def test_a_claim_during_a_retirement_takes_nothing_of_it(
    db: Db, connect: Connect
) -> None:
    retiring(db)
    operator, claimer = connect(), stage.never_waits(connect())
    with operator.transaction():
        operator.execute("select pgdrip.retire_sender('old', 'default')")
        assert stage.claim(claimer) == []
    assert [m["sender"] for m in stage.claim(claimer)] == ["new"] * 4


def test_a_report_during_a_retirement_is_taken(db: Db, connect: Connect) -> None:
    retiring(db)
    messages = stage.claim(db, 1)
    stage.begin(db, messages)
    operator, reporter = connect(), stage.never_waits(connect())
    with operator.transaction():
        operator.execute("select pgdrip.retire_sender('old', 'default')")
        assert stage.report(reporter, messages) == ["advanced"]
    db.execute(TICK)
    assert (status(db, "old"), work(db)) == ("retired", {"new": 4})
    assert stage.violations(db) == []


@pytest.mark.parametrize(
    "leave",
    ["pgdrip.retire_sender('old')", "pgdrip.move_sender('old', 'other')"],
    ids=["retire", "move"],
)
def test_an_enrollment_open_while_its_sender_leaves_goes_to_another(
    db: Db, connect: Connect, leave: str
) -> None:
    stage.sender(db, "old")
    stage.sender(db, "far", pool="other")
    stage.sequence(db)
    client, operator = connect(), stage.never_waits(connect())
    with client.transaction():
        stage.lead(client)
        operator.execute(f"select {leave}".encode())
    stage.sender(db, "new")
    db.execute(TICK)
    assert work(db) == {"new": 1}
    assert stage.violations(db) == []
    assert len(stage.claim(db)) == 1


def test_an_open_enrollment_holds_up_no_operator_and_no_tick(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, "old")
    stage.sender(db, "new")
    stage.sequence(db)
    stage.lead(db, 1)
    db.execute("select pgdrip.maintain()")
    client, other = connect(), stage.never_waits(connect())
    with client.transaction():
        stage.leads(client, 5)
        stage.sender(other, "new", rate_per_hour=80)
        other.execute("select pgdrip.pause_sender('new', 'x')")
        other.execute("select pgdrip.resume_sender('new')")
        other.execute("select pgdrip.retire_sender('old', 'default')")
        other.execute(TICK)
        other.execute("select pgdrip.delete_sender('old')")
