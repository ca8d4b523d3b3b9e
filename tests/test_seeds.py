"""What went wrong in the system that pgdrip replaces, one test for each failure."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

import stage
from conftest import Clock, Connect

Db = psycopg.Connection[DictRow]

FOUR_STEPS = (
    {"day": 1, "body": "One"},
    {"day": 3, "body": "Three", "delay": "12 hours"},
    {"day": 6, "body": "Six", "delay": "12 hours"},
    {"day": 9, "body": "Nine", "delay": "12 hours"},
)


def test_the_four_steps_of_a_sequence_never_go_out_within_one_second(
    db: Db, clock: Clock
) -> None:
    stage.sender(db)
    stage.sequence(db, steps=FOUR_STEPS)
    stage.lead(db)
    sent = []
    for _ in range(4):
        bodies = [m["body"] for _ in range(5) for m in stage.deliver(db)]
        sent.append((clock.now(), bodies))
        clock.advance(timedelta(hours=12) - timedelta(microseconds=1))
        assert stage.claim(db) == []
        clock.advance(timedelta(microseconds=1))
    start = sent[0][0]
    assert [(at - start, bodies) for at, bodies in sent] == [
        (timedelta(hours=0), ["One"]),
        (timedelta(hours=12), ["Three"]),
        (timedelta(hours=24), ["Six"]),
        (timedelta(hours=36), ["Nine"]),
    ]
    assert stage.violations(db) == []


def test_step_two_waits_from_the_actual_send_not_from_the_plan(
    db: Db, clock: Clock
) -> None:
    stage.sender(db)
    stage.sequence(db, steps=FOUR_STEPS)
    stage.lead(db)
    late = clock.advance(timedelta(days=5))
    stage.deliver(db)
    row = stage.live(db)[0]
    assert (row["step"], row["due_at"]) == (3, late + timedelta(hours=12))


def test_step_two_does_not_exist_before_step_one_is_confirmed(db: Db) -> None:
    stage.sender(db)
    stage.sequence(db, steps=FOUR_STEPS)
    stage.lead(db)
    messages = stage.claim(db)
    for call in (stage.begin, stage.report):
        assert [row["step"] for row in stage.live(db)] == [1]
        call(db, messages)
    assert [row["step"] for row in stage.live(db)] == [3]


def test_a_completed_step_never_has_a_due_time_in_the_future(
    db: Db, clock: Clock
) -> None:
    stage.sender(db)
    stage.sequence(db, steps=FOUR_STEPS)
    stage.leads(db, 3)
    for _ in range(4):
        assert len(stage.deliver(db)) == 3
        future = stage.every(
            db,
            "select from pgdrip.sequence_progress"
            " where step_status = 'completed' and (due_at > pgdrip.clock()"
            " or due_at > completed_at or completed_at is null)",
        )
        assert future == []
        clock.advance(timedelta(hours=12))
    done = (
        "select count(*) as n from pgdrip.sequence_progress where sent_at is not null"
    )
    assert stage.one(db, done)["n"] == 12


def test_one_contact_never_has_two_rows_for_one_step(db: Db, connect: Connect) -> None:
    stage.sender(db)
    stage.sequence(db)
    contact = stage.lead(db)
    enroll = "select pgdrip.enroll('WARM Sequence', %s) as id"
    assert stage.one(db, enroll, [contact])["id"] == 1
    assert stage.every(db, "select pgdrip.add_trigger(%s, 'WARM')", [contact]) == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "insert into pgdrip.due select (d).* from (select d from pgdrip.due as d) x"
        )
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "insert into pgdrip.enrollments"
            " (contact_id, sequence_id, version_id, run, enrolled_at)"
            " select contact_id, sequence_id, version_id, 2, enrolled_at"
            " from pgdrip.enrollments"
        )
    assert len(stage.live(db)) == 1


def test_two_sessions_that_enroll_one_contact_make_one_row(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    contact = stage.lead(db, trigger=None)
    first, second = connect(), connect()
    enroll = "select pgdrip.enroll('WARM Sequence', %s) as id"
    first.execute("begin")
    stage.one(first, enroll, [contact])
    with stage.meanwhile(stage.one, second, enroll, [contact]) as told:
        try:
            stage.waits(db, second)
        finally:
            first.execute("commit")
    assert told.result(10) == {"id": 1}
    assert len(stage.live(db)) == 1


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0", "\u200b"])
def test_no_sequence_has_a_blank_trigger(db: Db, blank: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        stage.sequence(db, trigger=blank)
    assert refused.value.sqlstate == "MD008"
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(
            "insert into pgdrip.sequences (name, trigger, channel)"
            " values ('WARM', %s, 'log')",
            [blank],
        )
    contact = stage.lead(db, trigger=None)
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(
            "insert into pgdrip.contact_triggers (contact_id, trigger) values (%s, %s)",
            [contact, blank],
        )


def test_all_1742_leads_of_an_audience_are_enrolled_or_explained(db: Db) -> None:
    people = [
        {"line": n, "phone": f"+6011{n:07}", "triggers": ["WARM"]}
        for n in range(1, 1743)
    ]
    people[7] = {"line": 8, "email": "someone@example.com", "triggers": ["WARM"]}
    db.execute("select * from pgdrip.import_contacts(%s)", [Jsonb(people)])
    stage.sender(db, channel="twilio")
    stage.sequence(db, channel="twilio")
    enrolled = 0
    while more := stage.one(db, "select pgdrip.enroll_waiting() as n")["n"]:
        enrolled += more
    rest = stage.every(
        db,
        "select pgdrip.explain_enroll('WARM Sequence', contact_id) as why"
        " from pgdrip.contacts as c where not exists (select from pgdrip.enrollments"
        " as e where e.contact_id = c.contact_id)",
    )
    assert enrolled + len(rest) == 1742
    assert [row["why"] for row in rest] == [
        "Not now: the contact has no address for the channel."
    ]


def test_an_audience_of_2500_is_enrolled_fully_through_batches_of_100(db: Db) -> None:
    people = [
        {"line": n, "phone": f"+6011{n:07}", "triggers": ["WARM"]}
        for n in range(1, 2501)
    ]
    db.execute("select * from pgdrip.import_contacts(%s)", [Jsonb(people)])
    stage.sender(db)
    stage.sequence(db)
    batches = []
    while more := stage.one(db, "select pgdrip.enroll_waiting(100) as n")["n"]:
        batches.append(more)
    assert batches == [100] * 25
    assert len(stage.live(db)) == 2500


def test_1487_device_faults_fail_no_message(db: Db, clock: Clock) -> None:
    for name in ("dead", "alive"):
        stage.sender(db, name)
    stage.sequence(db, steps=FOUR_STEPS[:1])
    db.execute(
        "select pgdrip.add_trigger(pgdrip.upsert_contact('+6011' || 1000000 + n,"
        " p_sender => case when n <= 1487 then 'dead' else 'alive' end), 'WARM')"
        " from generate_series(1, 1535) as n"
    )
    outcomes: Counter[str] = Counter()
    for _ in range(20):
        messages = stage.claim(db, 1000)
        stage.begin(db, messages)
        dead = [m for m in messages if m["sender"] == "dead"]
        alive = [m for m in messages if m["sender"] == "alive"]
        outcomes.update(stage.report(db, dead, "failed", "http_401"))
        outcomes.update(stage.report(db, alive))
        clock.advance(timedelta(minutes=1))
    assert set(outcomes) == {"deferred", "completed"}
    assert outcomes["completed"] == 48
    rows = stage.live(db)
    assert len(rows) == 1487
    assert {row["attempt"] for row in rows} == {0}
    failed = "select from pgdrip.enrollments where status = 'failed'"
    assert stage.every(db, failed) == []
    db.execute("select pgdrip.resume_sender('dead')")
    while sent := stage.deliver(db, 1000):
        outcomes.update("sent" for _ in sent)
    assert outcomes["sent"] == 1487
    assert stage.violations(db) == []


def test_no_message_fails_without_a_reason(db: Db) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    one, two, three = stage.claim(db)
    stage.report(db, [one], "failed")
    stage.report(db, [two], "failed", "http_599")
    stage.report(db, [three], "failed", "http_410")
    rows = stage.every(
        db,
        "select step_status, error_class from pgdrip.sequence_progress where step = 1",
    )
    assert Counter((row["step_status"], row["error_class"]) for row in rows) == {
        ("active", None): 2,  # uncertain until somebody knows
        ("failed", "contact"): 1,
    }
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(
            "insert into pgdrip.deliveries"
            " (at, enrollment_id, token, event, step, attempt)"
            " values (pgdrip.clock(), 1, 1, 'failed', 1, 1)"
        )


def test_one_failure_fails_one_enrollment_and_no_other(db: Db) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 50)
    messages = stage.claim(db)
    stage.begin(db, messages)
    query = (
        "select verdict from pgdrip.report(%s::bigint[], %s::bigint[], %s, null, %s)"
    )
    outcomes = ["failed"] + ["sent"] * 49
    rows = stage.every(
        db,
        query,
        [
            [m["enrollment_id"] for m in messages],
            [m["token"] for m in messages],
            outcomes,
            ["permanent"] + [None] * 49,
        ],
    )
    assert Counter(r["verdict"] for r in rows) == {"failed": 1, "advanced": 49}
    runs = stage.every(db, "select status from pgdrip.enrollments")
    assert Counter(r["status"] for r in runs) == {"failed": 1, "active": 49}


@pytest.mark.parametrize(
    "timezone", ["UTC", "Asia/Kuala_Lumpur", "America/New_York", "Etc/GMT-8"]
)
def test_nine_in_kuala_lumpur_is_nine_there_in_any_session(
    db: Db, clock: Clock, timezone: str
) -> None:
    clock.set(datetime(2026, 3, 7, 12, tzinfo=UTC))
    db.execute("select set_config('TimeZone', %s, false)", [timezone])
    stage.sender(db)
    stage.sequence(
        db,
        steps=[{"day": 1, "body": "One", "at": "09:00"}, {"day": 3, "body": "Three"}],
    )
    stage.lead(db, p_timezone="Asia/Kuala_Lumpur")
    nine = datetime(2026, 3, 8, 1, tzinfo=UTC)
    assert stage.live(db)[0]["due_at"] == nine
    clock.set(nine - timedelta(seconds=1))
    assert stage.claim(db) == []
    clock.set(nine)
    assert [m["body"] for m in stage.deliver(db)] == ["One"]
    assert stage.live(db)[0]["due_at"] == nine + timedelta(days=2)


def test_no_row_is_too_old_to_be_claimed(db: Db, clock: Clock) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    clock.advance(timedelta(days=3 * 365))
    assert [m["body"] for m in stage.claim(db)] == ["One"] * 3


def test_a_lease_shorter_than_the_batch_it_covers_sends_nothing_twice(
    db: Db, clock: Clock
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 10)
    claim = "select * from pgdrip.claim(%s, 100, '20 seconds')"
    slow = stage.every(db, claim, ["slow"])
    sent = stage.begin(db, slow[:1])
    clock.advance(timedelta(seconds=15))
    beat = "select pgdrip.heartbeat(%s, %s, '20 seconds') as token"
    kept = stage.every(db, beat, [[slow[0]["enrollment_id"]], [slow[0]["token"]]])
    assert [row["token"] for row in kept] == sent
    clock.advance(timedelta(seconds=6))
    fast = stage.every(db, claim, ["fast"])
    assert len(fast) == 9  # all but the one that is kept alive
    for message in slow[1:]:
        assert stage.begin(db, [message]) == []
    sent += stage.begin(db, fast)
    assert len(sent) == 10
    assert stage.report(db, slow[:1]) == ["advanced"]
    assert stage.report(db, slow[1:]) == ["stale"] * 9
    assert stage.report(db, fast) == ["advanced"] * 9
    assert stage.violations(db) == []


def test_a_report_with_a_stale_token_never_advances(db: Db, clock: Clock) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db)
    first = stage.claim(db)
    clock.advance(timedelta(minutes=3))
    second = stage.claim(db, runner="runner-2")
    assert stage.report(db, first) == ["stale"]
    assert [row["step"] for row in stage.live(db)] == [1]
    assert stage.report(db, second) == ["advanced"]
