"""Claiming in two sessions at once: nobody waits, nothing is handed out twice."""

from collections import Counter
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import DictRow

import stage
from conftest import Clock, Connect

Db = psycopg.Connection[DictRow]


def ids(messages: list[stage.Row]) -> set[int]:
    return {message["enrollment_id"] for message in messages}


def test_two_claimers_never_wait_and_never_share_a_message(
    db: Db, connect: Connect
) -> None:
    for number in range(4):
        stage.sender(db, f"device-{number}", rate_per_hour=80, burst=20)
    stage.sequence(db)
    stage.leads(db, 41)
    drained = stage.claim(db, 1)  # every sender knows of its work
    first, second = connect(), stage.never_waits(connect())
    with first.transaction():
        mine = stage.claim(first, 2)
        theirs = stage.claim(second, 40, "runner-2")
    rest = stage.claim(db, 40)
    assert len(mine) == 2
    assert len(theirs) >= 19  # the work of the senders that are left
    messages = drained + mine + theirs + rest
    assert len(ids(messages)) == len({m["token"] for m in messages}) == 41


def test_two_claimers_over_one_limited_sender_keep_its_limit(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    stage.leads(db, 5)
    first, second = connect(), stage.never_waits(connect())
    with first.transaction():
        assert len(stage.claim(first)) == 1
        assert stage.claim(second, 100, "runner-2") == []
    assert stage.claim(second, 100, "runner-2") == []


def test_two_runners_share_one_unlimited_sender_without_touching_it(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 20)
    version = "select xmin::text, xmax::text from pgdrip.senders"
    stage.claim(db, 1)  # drains the wakes
    before = stage.one(db, version)["xmin"]
    first, second = connect(), stage.never_waits(connect())
    with first.transaction():
        mine = stage.claim(first, 5)
        theirs = stage.claim(second, 14, "runner-2")
    assert (len(mine), len(theirs)) == (5, 14)
    assert not ids(mine) & ids(theirs)
    assert stage.one(db, version)["xmin"] == before


def test_claims_while_new_work_for_the_unlimited_sender_is_drained(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 10)
    first, second = connect(), stage.never_waits(connect())
    with first.transaction():  # holds the wakes
        mine = stage.claim(first, 5)
        theirs = stage.claim(second, 5, "runner-2")
    assert len(ids(mine) | ids(theirs)) == 10


@pytest.mark.parametrize(
    "statement",
    [
        "select pgdrip.enroll('COLD Sequence', 1)",
        "select pgdrip.add_trigger(1, 'COLD')",
        "select pgdrip.remove_trigger(1, 'WARM')",
        "select pgdrip.upsert_contact('+60110000001', p_name => 'Lim')",
        "select pgdrip.import_contacts("
        '\'[{"line": 1, "phone": "+60110000001", "triggers": ["COLD"]},'
        ' {"line": 2, "phone": "+60110000099", "triggers": ["WARM"]}]\')',
        "insert into pgdrip.contact_triggers (contact_id, trigger) values (1, 'COLD')",
        "select pgdrip.enroll_waiting()",
    ],
    ids=lambda statement: statement.split("(")[0].split(".")[1].split(" ")[0],
)
def test_an_open_transaction_of_a_client_never_blocks_a_claim(
    db: Db, connect: Connect, statement: str
) -> None:
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    stage.sequence(db, "COLD Sequence", trigger="COLD")
    assert stage.lead(db) == 1
    client, runner = connect(), stage.never_waits(connect())
    with client.transaction():
        client.execute(statement.encode())
        assert [m["body"] for m in stage.claim(runner)] == ["One"]


def test_a_word_that_is_being_added_never_blocks_the_end_that_adds_it(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80)
    step = {"day": 1, "body": "One", "only_if": {"city": "KL"}}
    stage.sequence(db, steps=[step], on_complete={"add_trigger": "DONE"})
    contact = stage.lead(db)
    client, runner = connect(), stage.never_waits(connect())
    with client.transaction():
        client.execute("select pgdrip.add_trigger(%s, 'DONE')", [contact])
        assert stage.claim(runner) == []
        assert len(stage.live(db)) == 1
    assert stage.claim(runner) == []
    assert stage.live(db) == []  # skipped, and so completed
    assert stage.violations(db) == []


def test_an_uncommitted_enrollment_is_claimed_once_it_is_committed(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    client, runner = connect(), stage.never_waits(connect())
    with client.transaction():
        stage.lead(client)
        assert stage.claim(runner) == []
    assert len(stage.claim(runner)) == 1


def test_a_claim_during_an_uncommitted_resume_loses_nothing(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80, burst=10)
    stage.sequence(db)
    stage.leads(db, 3)
    db.execute("select pgdrip.pause_sequence('WARM Sequence', 'holiday')")
    operator, runner = connect(), stage.never_waits(connect())
    with operator.transaction():
        operator.execute("select pgdrip.resume_sequence('WARM Sequence')")
        assert stage.claim(runner) == []
    assert len(stage.claim(runner)) == 3
    assert stage.violations(db) == []


def test_rows_parked_by_a_pause_come_back_by_a_resume(db: Db, connect: Connect) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    db.execute("select pgdrip.pause_sequence('WARM Sequence', 'holiday')")
    assert stage.claim(db) == []
    assert {row["parked_reason"] for row in stage.live(db)} == {"sequence_paused"}
    operator, runner = connect(), stage.never_waits(connect())
    with operator.transaction():
        operator.execute("select pgdrip.resume_sequence('WARM Sequence')")
        assert stage.claim(runner) == []
    assert len(stage.claim(runner)) == 3


def test_a_claim_during_an_uncommitted_resume_of_an_enrollment_loses_nothing(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db)
    message = stage.claim(db)[0]
    db.execute(
        "select pgdrip.pause_enrollment(%s, 'asked')", [message["enrollment_id"]]
    )
    assert stage.begin(db, [message]) == []
    operator, runner = connect(), stage.never_waits(connect())
    with operator.transaction():
        operator.execute(
            "select pgdrip.resume_enrollment(%s)", [message["enrollment_id"]]
        )
        assert stage.claim(runner) == []
    assert len(stage.claim(runner)) == 1
    assert stage.violations(db) == []


def test_a_claim_never_waits_for_whoever_holds_what_triage_would_settle(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    db.execute("select pgdrip.pause_sequence('WARM Sequence', 'holiday')")
    holder, runner = connect(), stage.never_waits(connect())
    for held in (
        "pgdrip.due where enrollment_id = 1",
        "pgdrip.enrollments where enrollment_id = 2",
        "pgdrip.contact_triggers where contact_id = 3",
        "pgdrip.sequences",
    ):
        with holder.transaction():
            holder.execute(f"select from {held} for update".encode())
            assert stage.claim(runner) == []
    assert stage.claim(runner) == []
    assert {row["parked_reason"] for row in stage.live(db)} == {"sequence_paused"}


def test_triage_of_many_paused_rows_never_spends_the_allowance(
    db: Db, clock: Clock
) -> None:
    stage.sender(db, rate_per_hour=80, rate_per_day=800)
    stage.sequence(db)
    stage.sequence(db, "HOT Sequence", trigger="HOT")
    stage.leads(db, 620)
    clock.advance(timedelta(minutes=1))
    stage.lead(db, 9999, "HOT")
    db.execute("select pgdrip.pause_sequence('WARM Sequence', 'holiday')")
    spent = "select tat, day_counts from pgdrip.paces"
    before = stage.one(db, spent)
    claims = [stage.claim(db) for _ in range(2)]
    assert [[m["sequence"] for m in messages] for messages in claims] == [
        [],  # 500 rows triaged
        ["HOT Sequence"],
    ]
    after = stage.one(db, spent)
    assert before["tat"].timestamp() == 0
    assert sum(after["day_counts"]) == 1
    parked = "select count(*) as n from pgdrip.due where parked_reason is not null"
    assert stage.one(db, parked)["n"] == 620


def test_each_sender_has_its_share_before_the_rest_is_filled(db: Db) -> None:
    for name in ("busy", "quiet-1", "quiet-2"):
        stage.sender(db, name)
    stage.sequence(db)
    for number in range(1, 105):
        preferred = {1: "quiet-1", 2: "quiet-1", 3: "quiet-2", 4: "quiet-2"}
        stage.lead(db, number, p_sender=preferred.get(105 - number, "busy"))
    first = Counter(m["sender"] for m in stage.claim(db, 6))
    assert first == {"busy": 2, "quiet-1": 2, "quiet-2": 2}
    assert Counter(m["sender"] for m in stage.claim(db, 10)) == {"busy": 10}


def test_a_backlog_of_one_limited_sender_does_not_hold_up_the_others(
    db: Db, clock: Clock
) -> None:
    for name in ("busy", "quiet"):
        stage.sender(db, name, rate_per_hour=80)
    stage.sequence(db)
    for number in range(1, 51):
        stage.lead(db, number, p_sender="busy")
    clock.advance(timedelta(minutes=5))
    stage.lead(db, 51, p_sender="quiet")
    assert sorted(m["sender"] for m in stage.claim(db, 10)) == ["busy", "quiet"]


def backlog(db: Db, rows: int) -> None:
    """So many enrollments over 20 senders, nine in ten not due yet."""
    for number in range(20):
        stage.sender(db, f"device-{number}", rate_per_hour=1000, burst=500)
    stage.sequence(db)
    db.execute(
        "insert into pgdrip.contacts (phone, bucket)"
        " select '+6012' || n, 0 from generate_series(10000001, 10000000 + %s) as n",
        [rows],
    )
    db.execute(
        "insert into pgdrip.enrollments"
        " (contact_id, sequence_id, version_id, sender_id, enrolled_at)"
        " select contact_id, 1, 1, 1 + contact_id %% 20, pgdrip.clock()"
        " from pgdrip.contacts limit %s",
        [rows],
    )
    db.execute(
        "insert into pgdrip.due (enrollment_id, sender_id, step, due_at)"
        " select enrollment_id, sender_id, 1, pgdrip.clock() + case"
        "   when enrollment_id % 10 = 0 then - interval '1 s' else interval '1 day' end"
        "   * (enrollment_id % 997) from pgdrip.enrollments"
    )
    db.execute(
        "insert into pgdrip.deliveries"
        " (at, enrollment_id, token, event, step, attempt, content_hash)"
        " select pgdrip.clock() - interval '1 day', enrollment_id, enrollment_id,"
        " 'abandoned', 1, 1, '' from pgdrip.enrollments"
    )


SCANS = """
select relname, seq_scan, coalesce(idx_tup_fetch, 0) as fetched
  from pg_stat_xact_user_tables
 where schemaname = 'pgdrip'
   and (relname in ('due', 'enrollments', 'contacts', 'contact_triggers')
        or relname like 'deliveries%')
"""


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["unanalyzed", "analyzed"])
def test_a_runner_reads_only_what_it_takes_of_50000_rows(
    db: Db, connect: Connect, *, is_analyzed: bool
) -> None:
    db.execute("alter table pgdrip.due set (autovacuum_enabled = off)")
    backlog(db, 50_000)
    if is_analyzed:
        db.execute("analyze")
    runner = connect()  # a session's counts reach back a second over its transactions
    with runner.transaction():
        messages = stage.claim(runner, 100)
        stage.begin(runner, messages)
        assert stage.report(runner, messages) == ["advanced"] * 100
        runner.execute("select pgdrip.next_wake()")
        scans = stage.every(runner, SCANS)
    assert len(messages) == 100
    assert {row["relname"]: row["seq_scan"] for row in scans if row["seq_scan"]} == {}
    fetched = {row["relname"]: row["fetched"] for row in scans}
    for table in ("due", "enrollments", "contacts", "deliveries_default"):
        assert fetched[table] < 50 * 100, fetched


def test_claim_and_begin_change_due_rows_in_place(db: Db, connect: Connect) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 20)
    runner = connect()
    with runner.transaction():
        stage.begin(runner, stage.claim(runner))
        row = stage.one(
            runner,
            "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables"
            " where schemaname = 'pgdrip' and relname = 'due'",
        )
    assert row["n_tup_upd"] == row["n_tup_hot_upd"] == 40


def test_two_runners_over_one_backlog_never_send_one_step_twice(
    db: Db, connect: Connect, clock: Clock
) -> None:
    for number in range(3):
        stage.sender(db, f"device-{number}", rate_per_hour=80, burst=5)
    stage.sequence(db)
    stage.leads(db, 30)
    first, second = connect(), stage.never_waits(connect())
    sent: Counter[str] = Counter()
    for _ in range(200):
        with first.transaction():
            mine = stage.deliver(first, 3)
            theirs = stage.deliver(second, 3, "runner-2")
        sent.update(m["idempotency_key"] for m in mine + theirs)
        wake = stage.one(db, "select pgdrip.next_wake() as at")["at"]
        if wake is None:
            break
        clock.set(max(wake, clock.now()))
    assert len(sent) == 60
    assert set(sent.values()) == {1}
    assert stage.violations(db) == []
