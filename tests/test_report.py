"""Reports and begins that meet a second session: a report, a claim, an exit."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import DictRow

import stage
from conftest import Clock, Connect

Db = psycopg.Connection[DictRow]
T = TypeVar("T")
PHONE = "+60110000001"


@pytest.fixture
def message(db: Db) -> stage.Row:
    """A claimed message of step 1, whose step may be tried again when uncertain."""
    stage.sender(db)
    retried = [step | {"on_uncertain": "retry"} for step in stage.TWO_STEPS]
    stage.sequence(db, steps=retried)
    stage.lead(db)
    return stage.claim(db)[0]


def events(db: Db) -> list[str]:
    query = "select event from pgdrip.deliveries order by at, event"
    return [row["event"] for row in stage.every(db, query)]


def blocked(
    db: Db, holder: Db, waiting: Db, call: Callable[..., T], *arguments: Any
) -> T:
    """What `call` on `waiting` returns when `holder` commits while it waits."""
    with stage.meanwhile(call, waiting, *arguments) as result:
        try:
            stage.waits(db, waiting)
        finally:
            holder.execute("commit")
    return result.result(10)


def suppress(db: Db) -> None:
    db.execute("select pgdrip.suppress(%s, 'asked to')", [PHONE])


def exit_enrollment(db: Db) -> bool:
    query = "select pgdrip.exit_enrollment(1, 'asked to') as ended"
    ended: bool = stage.one(db, query)["ended"]
    return ended


def test_two_reports_of_one_token_advance_it_once(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    first, second = connect(), connect()
    stage.begin(db, [message])
    first.execute("begin")
    assert stage.report(first, [message]) == ["advanced"]
    assert blocked(db, first, second, stage.report, [message]) == ["advanced"]
    assert events(db) == ["sent"]
    assert stage.live(db)[0]["step"] == 3


def test_two_reports_that_differ_settle_on_the_first(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    first, second = connect(), connect()
    stage.begin(db, [message])
    first.execute("begin")
    assert stage.report(first, [message], "failed", "permanent") == ["failed"]
    assert blocked(db, first, second, stage.report, [message]) == ["contradiction"]
    assert events(db) == ["failed"]
    assert stage.live(db) == []


def test_a_report_that_waits_for_a_new_claim_voids_it(
    db: Db, connect: Connect, clock: Clock, message: stage.Row
) -> None:
    runner, late = connect(), connect()
    stage.begin(db, [message])
    clock.advance(timedelta(minutes=3))
    assert stage.claim(db) == []  # finds it uncertain; it is due again
    runner.execute("begin")
    later = stage.claim(runner, runner="runner-2")
    assert [m["enrollment_id"] for m in later] == [message["enrollment_id"]]
    assert blocked(db, runner, late, stage.report, [message]) == ["late"]
    assert stage.begin(db, later) == []
    assert stage.report(db, later) == ["stale"]
    assert stage.live(db)[0]["step"] == 3
    assert stage.violations(db) == []


def test_a_report_that_waits_for_a_new_begin_is_stale(
    db: Db, connect: Connect, clock: Clock, message: stage.Row
) -> None:
    runner, late = connect(), connect()
    stage.begin(db, [message])
    clock.advance(timedelta(minutes=3))
    assert stage.claim(db) == []  # finds it uncertain; it is due again
    later = stage.claim(db, runner="runner-2")
    runner.execute("begin")
    assert stage.begin(runner, later) == [later[0]["token"]]
    assert blocked(db, runner, late, stage.report, [message]) == ["stale"]
    assert stage.report(db, later) == ["advanced"]
    assert stage.violations(db) == []


def test_a_claim_passes_by_what_is_being_reported(
    db: Db, connect: Connect, clock: Clock, message: stage.Row
) -> None:
    late, runner = connect(), stage.never_waits(connect())
    stage.begin(db, [message])
    clock.advance(timedelta(minutes=3))
    with late.transaction():
        assert stage.report(late, [message]) == ["late"]
        assert stage.claim(runner) == []
    assert stage.claim(runner) == []
    assert stage.live(db)[0]["step"] == 3


def test_a_report_that_waits_for_an_exit_is_stale(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    operator, runner = connect(), connect()
    stage.begin(db, [message])
    operator.execute("begin")
    assert exit_enrollment(operator)
    assert blocked(db, operator, runner, stage.report, [message]) == ["stale"]
    assert events(db) == ["sent", "uncertain"]
    assert stage.live(db) == []
    assert stage.violations(db) == []


def test_an_exit_that_waits_for_a_report_ends_the_next_step(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    runner, operator = connect(), connect()
    stage.begin(db, [message])
    runner.execute("begin")
    assert stage.report(runner, [message]) == ["advanced"]
    assert blocked(db, runner, operator, exit_enrollment)
    assert events(db) == ["sent"]
    run = stage.one(db, "select status, last_confirmed_step from pgdrip.enrollments")
    assert run == {"status": "exited", "last_confirmed_step": 1}


def test_an_exit_that_waits_for_the_last_report_finds_it_ended(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db, steps=[{"day": 1, "body": "One"}])
    stage.lead(db)
    runner, operator = connect(), connect()
    messages = stage.claim(db)
    runner.execute("begin")
    assert stage.report(runner, messages) == ["completed"]
    assert not blocked(db, runner, operator, exit_enrollment)


def test_a_suppression_that_waits_for_a_begin_sees_it_begun(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    runner, operator = connect(), connect()
    runner.execute("begin")
    assert stage.begin(runner, [message]) == [message["token"]]
    blocked(db, runner, operator, suppress)
    assert events(db) == ["uncertain"]
    assert stage.report(db, [message]) == ["stale"]
    assert stage.live(db) == []
    assert stage.violations(db) == []


def test_a_begin_that_waits_for_a_suppression_may_not_send(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    operator, runner = connect(), connect()
    operator.execute("begin")
    suppress(operator)
    assert blocked(db, operator, runner, stage.begin, [message]) == []
    assert events(db) == ["abandoned"]
    assert stage.live(db) == []
    assert stage.violations(db) == []


def test_a_begin_that_waits_for_a_pause_may_not_send(
    db: Db, connect: Connect, message: stage.Row
) -> None:
    operator, runner = connect(), connect()
    operator.execute("begin")
    operator.execute("select pgdrip.pause_enrollment(1, 'asked to')")
    assert blocked(db, operator, runner, stage.begin, [message]) == []
    assert events(db) == ["refused"]
    assert stage.claim(db) == []
    assert stage.live(db)[0]["parked_reason"] == "enrollment_paused"


def twins(db: Db) -> list[stage.Row]:
    """The last messages of two enrollments that one trigger row started."""
    stage.sender(db)
    for name in ("WARM Sequence", "WARM News"):
        stage.sequence(db, name, steps=[{"day": 1, "body": "One"}])
    stage.lead(db)
    messages = stage.claim(db)
    stage.begin(db, messages)
    assert len(messages) == 2
    return messages


@pytest.mark.parametrize("order", [1, -1])
def test_two_enrollments_by_one_trigger_that_complete_at_once_remove_it(
    db: Db, connect: Connect, order: int
) -> None:
    one, other = twins(db)[::order]
    first, second = connect(), connect()
    first.execute("begin")
    assert stage.report(first, [one]) == ["completed"]
    assert blocked(db, first, second, stage.report, [other]) == ["completed"]
    assert stage.every(db, "select from pgdrip.contact_triggers") == []
    assert stage.violations(db) == []


def test_a_trigger_goes_once_no_live_enrollment_uses_it(db: Db) -> None:
    one, other = twins(db)
    stage.report(db, [one])
    assert len(stage.every(db, "select from pgdrip.contact_triggers")) == 1
    assert stage.violations(db) == []
    db.execute("select pgdrip.exit_enrollment(%s, 'x')", [other["enrollment_id"]])
    assert stage.every(db, "select from pgdrip.contact_triggers") == []
    assert stage.violations(db) == []


def test_reports_of_the_same_rows_in_opposite_order_never_deadlock(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 20)
    messages = stage.claim(db)
    stage.begin(db, messages)
    first, second = connect(), connect()
    first.execute("begin")
    stage.report(first, messages[10:])
    verdicts = blocked(db, first, second, stage.report, messages[::-1])
    assert verdicts == ["advanced"] * 20
    assert events(db) == ["sent"] * 20


def test_faults_of_two_senders_reported_crosswise_never_deadlock(
    db: Db, connect: Connect
) -> None:
    for name in ("device-0001", "device-0002"):
        stage.sender(db, name)
    stage.sequence(db)
    for number in range(1, 5):
        stage.lead(db, number, p_sender=f"device-000{1 + number % 2}")
    messages = stage.claim(db)
    stage.begin(db, messages)
    messages.sort(key=lambda m: m["enrollment_id"])
    first, second = connect(), connect()
    first.execute("begin")
    stage.report(first, messages[1::-1], "failed", "sender")
    told = blocked(db, first, second, stage.report, messages[2:], "failed", "sender")
    assert told == ["deferred"] * 2
    health = stage.every(db, "select health, faults from pgdrip.senders")
    assert health == [{"health": "down", "faults": 1}] * 2
