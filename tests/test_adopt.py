"""A legacy system is adopted: nobody gets a step again, and no row is forgotten."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import legacy
import stage
from commands import Run, on, told
from conftest import Clock
from databases import Databases
from pgdrip.adopt.phones import reader
from pgdrip.legacy import TABLES
from stage import Db, every, one

LEADS = 500
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)  # of the test clock
ADOPT = ("adopt", "--from-schema", "legacy", "--region", "MY", "--channel", "log")

# Each person's step and what is parked, beside what they were really sent.
STATES = """
select s.phone, max(s.step) as sent, min(e.status) as status, min(d.step) as live,
       min(d.parked_reason) as parked, min(e.last_confirmed_step) as confirmed
  from truth.sent as s
  join pgdrip.adoptions as a
    on a.legacy_table = 'sequences' and a.legacy_id = s.sequence_id::text
  join pgdrip.sequences as q on q.sequence_id = a.object_id
  join pgdrip.contacts as c on c.phone = s.phone and c.pool = q.pool
  left join pgdrip.enrollments as e
         on e.contact_id = c.contact_id and e.sequence_id = q.sequence_id
  left join pgdrip.due as d on d.enrollment_id = e.enrollment_id
 group by s.phone, s.sequence_id
"""
NEXT = {1: 3, 3: 6, 6: 9, 9: None}
# One live step: whose, and how it stands.
LIVE = """
select d.*, e.last_confirmed_step, e.status, s.name as sender
  from pgdrip.contacts as c
  join pgdrip.enrollments as e using (contact_id)
  left join pgdrip.due as d using (enrollment_id)
  left join pgdrip.senders as s on s.sender_id = d.sender_id
 where c.phone = %s
"""


def open_(dsn: str) -> Db:
    return psycopg.connect(dsn, autocommit=True, row_factory=dict_row)


@pytest.fixture(scope="module")
def adopted(server: Databases) -> Iterator[tuple[Db, Run]]:
    """A legacy system with every damage, adopted; for tests that only look."""
    with server.clone() as dsn, open_(dsn) as db:
        legacy.build(db, LEADS)
        run = on(dsn)
        assert run(*ADOPT).exit_code == 6  # some rows can only be refused
        yield db, run


@pytest.fixture
def run(dsn: str) -> Run:
    return on(dsn)


@pytest.fixture
def small(db: Db) -> Db:
    """A legacy system with senders and sequences, and nobody in them yet."""
    legacy.build(db, 0)
    return db


def put(db: Db, table: str, **columns: Any) -> None:
    """Write a legacy row; `sequence` and `step` are numbers of tests/legacy.py."""
    row: dict[str, Any] = one(db, "select gen_random_uuid()::text as id")
    for name, column in (("sequence", "sequence_id"), ("step", "sequence_stepid")):
        if name in columns:
            given = [name, columns.pop(name)]
            found = one(db, "select legacy.id(%s, %s)::text as id", given)
            row[column] = found["id"]
    row |= columns
    names = ", ".join(row)
    marks = ", ".join(["%s"] * len(row))
    statement = f"insert into legacy.{table} ({names}) values ({marks})"
    db.execute(statement.encode(), list(row.values()))


def sent(db: Db, step: int, at: str, **columns: Any) -> None:
    """A message to the lead of `small` that was sent; `step` counts from 1."""
    message = {"sequence": 0, "step": step, "recipient_phone": "60123000001"}
    message |= {"status": "sent", "sent_at": at, "created_at": at} | columns
    put(db, "broadcast_messages", **message)


def enrolled(db: Db, **columns: Any) -> None:
    row = {"sequence": 0, "contact_phone": "60123000001"} | columns
    put(db, "sequence_contacts", **row)


def live(db: Db) -> stage.Row:
    return one(db, LIVE, ["+60123000001"])


def why(db: Db, table: str) -> list[tuple[str, str | None]]:
    rows = every(
        db,
        "select outcome, detail from pgdrip.adoptions where legacy_table = %s"
        " order by outcome, detail",
        [table],
    )
    return [(row["outcome"], row["detail"]) for row in rows]


# Everybody


def test_everybody_goes_on_right_after_what_was_sent(adopted: tuple[Db, Run]) -> None:
    db, _ = adopted
    states = every(db, STATES)
    assert len(states) == LEADS * 4 // 5  # all who were sent anything
    for state in states:
        assert state["confirmed"] == state["sent"]
        assert state["live"] == NEXT[state["sent"]]
        assert (state["status"] == "completed") == (state["sent"] == 9)


def test_whoever_is_in_a_sequence_or_has_its_word_is_enrolled(
    adopted: tuple[Db, Run],
) -> None:
    db, _ = adopted
    missing = every(
        db,
        "select p.i from legacy.people as p where p.i % 100 <> 19 and not exists ("
        " select from pgdrip.contacts as c"
        "   join pgdrip.enrollments as e using (contact_id)"
        "   join pgdrip.adoptions as a on a.object_id = e.sequence_id"
        "  where a.legacy_table = 'sequences'"
        "    and a.legacy_id = legacy.id('sequence', p.n)::text"
        "    and c.phone = '+' || p.e164"
        "    and c.pool = 'user-' || left(p.user_id::text, 8))",
    )
    assert missing == []


@pytest.mark.parametrize("table", TABLES)
def test_every_legacy_row_is_accounted_for_once(
    adopted: tuple[Db, Run], table: str
) -> None:
    db, _ = adopted
    rows = every(db, f"select id::text from legacy.{table} order by 1")
    accounts = every(
        db,
        "select legacy_id as id from pgdrip.adoptions where legacy_table = %s"
        " order by 1",
        [table],
    )
    assert accounts == rows


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ("user_devices", "its status was spelled otherwise"),
        ("user_devices", "paused: offline in the legacy system"),
        ("user_devices", "its delays were the wrong way round"),
        ("leads", "phone: a spreadsheet shortened the number"),
        ("leads", "its phone was a spreadsheet's number"),
        ("leads", "its phone was a WhatsApp id"),
        ("leads", "its e-mail is no address"),
        ("leads", "its e-mail belongs to another phone"),
        ("leads", "its trigger list became single words"),
        ("leads", "what was no word in its trigger list was left out"),
        ("leads", "the contact is known by another row"),
        ("sequences", "its trigger was blank: taken from its first step"),
        ("sequences", "its trigger was blank: taken from its start trigger"),
        ("sequences", "status and is_active contradicted each other: paused"),
        ("sequences", "has no step with a text"),
        ("sequences", "template has {{ without }}"),
        ("sequence_steps", "the sequence has the same step of the same day already"),
        ("sequence_steps", "its day was taken or none: it is step 10 now"),
        ("sequence_steps", "it had no delay: 24 hours"),
        ("sequence_contacts", "one of several rows of the contact in this sequence"),
        ("sequence_contacts", "its step was found by the day"),
        ("sequence_contacts", "it was completed before its time"),
        ("sequence_contacts", "a claim that nobody works on was released"),
        ("sequence_contacts", "that it failed says nothing of the contact"),
        ("sequence_contacts", "it has no lead: the contact is made from this row"),
        ("broadcast_messages", "its step was found by the text"),
        ("broadcast_messages", "its step was found by the day"),
        ("broadcast_messages", "its step was found by the order"),
        ("broadcast_messages", "it was sent in the future"),
        ("broadcast_messages", "it was sent before it was created"),
        ("broadcast_messages", "it was sent without a time"),
        ("broadcast_messages", "it failed unsent"),
        ("broadcast_messages", "nobody knows whether step 3 was sent: parked"),
        ("broadcast_messages", "step 1 was sent before"),
        ("broadcast_messages", "is of no sequence"),
        ("broadcast_messages", "its sequence does not exist"),
    ],
)
def test_every_damage_is_told(adopted: tuple[Db, Run], table: str, note: str) -> None:
    db, _ = adopted
    found = one(
        db,
        "select count(*) as n from pgdrip.adoptions"
        " where legacy_table = %s and strpos(detail, %s) > 0",
        [table, note],
    )
    assert found["n"] > 0


def test_every_invariant_holds(adopted: tuple[Db, Run]) -> None:
    db, run = adopted
    assert stage.violations(db) == []
    assert run("check").exit_code == 0


def test_adopting_twice_changes_nothing(adopted: tuple[Db, Run]) -> None:
    db, run = adopted
    before = stage.contents(db)
    assert "0 enrollments made" in run(*ADOPT).stdout
    assert stage.contents(db) == before


def test_the_report_tells_of_every_row(adopted: tuple[Db, Run], tmp_path: Path) -> None:
    db, run = adopted
    file = tmp_path / "report.csv"
    result = run(*ADOPT, "--json", "--report", file)
    assert told(result, 6).endswith(f"(see {file})")
    with file.open(newline="") as lines:
        report = list(csv.DictReader(lines))
    told_of = json.loads(result.stdout)
    assert len(report) == sum(account["rows"] for account in told_of["accounts"])
    assert len(report) == one(db, "select count(*) as n from pgdrip.adoptions")["n"]
    assert all(row["why"] for row in report if row["outcome"] != "adopted")


def test_one_phone_of_two_users_is_a_contact_of_each(adopted: tuple[Db, Run]) -> None:
    db, _ = adopted
    rows = every(
        db,
        "select c.pool, q.pool as of_sequence from pgdrip.contacts as c"
        " join pgdrip.enrollments as e using (contact_id)"
        " join pgdrip.sequences as q using (sequence_id)"
        " where c.phone = '+60120000054' order by 1",
    )
    assert [row["pool"] for row in rows] == ["user-aaaaaaaa", "user-bbbbbbbb"]
    assert all(row["pool"] == row["of_sequence"] for row in rows)


def test_a_sequence_for_prospects_takes_no_customer_in(small: Db, run: Run) -> None:
    lead = {"user_id": legacy.USERS["A"], "trigger": "WARMEXAMA"}
    put(small, "leads", phone="60123000001", status="Customer", **lead)
    put(small, "leads", phone="60123000002", status="PROSPECT ", **lead)
    run(*ADOPT)
    phones = every(
        small,
        "select c.phone from pgdrip.contacts as c"
        " join pgdrip.enrollments as e using (contact_id)",
    )
    assert phones == [{"phone": "+60123000002"}]
    small.execute("select pgdrip.enroll_waiting()")
    assert live_count(small) == 1


def test_whoever_was_erased_and_suppressed_is_suppressed_when_adopted(
    small: Db, run: Run
) -> None:
    for phone in ("+60123000001", "+60123000002"):
        contact = one(small, "select pgdrip.upsert_contact(%s) as id", [phone])["id"]
        small.execute("select pgdrip.suppress(%s, 'asked to')", [phone])
        small.execute("select pgdrip.erase_contact(%s, 'asked to')", [contact])
    lead = {"user_id": legacy.USERS["A"], "status": "PROSPECT"}
    put(small, "leads", phone="60123000001", trigger="WARMEXAMA", **lead)
    sent(small, 1, "2026-01-04 20:00", recipient_phone="60123000002")
    run(*ADOPT)
    found = every(small, "select address from pgdrip.suppressions order by 1")
    assert [row["address"] for row in found] == ["+60123000001", "+60123000002"]
    small.execute("select pgdrip.enroll_waiting()")
    assert every(small, "select * from pgdrip.claim('runner-1')") == []


def test_history_shows_what_the_legacy_system_sent(adopted: tuple[Db, Run]) -> None:
    db, _ = adopted
    shown = every(
        db,
        "select step, current_state, sent_at from pgdrip.sequence_progress"
        " where recipient = '+60120000003' and sequence like 'WARM%' order by step",
    )
    assert [row["current_state"] for row in shown] == ["Sent"] * 3 + ["Ready to send"]
    assert shown[0]["sent_at"] == datetime(2025, 12, 20, 3, tzinfo=UTC)
    months = every(db, "select count(*) as n from pgdrip.deliveries_default")
    assert months == [{"n": 0}]


def test_to_the_end_nobody_gets_a_step_twice(run: Run, db: Db, clock: Clock) -> None:
    legacy.build(db, 100)
    run(*ADOPT, "--rate-per-hour", "100000", "--rate-per-day", "1000000")
    db.execute("update pgdrip.senders set gap_min = '0', gap_max = '0'")
    for row in stage.every(db, "select token from pgdrip.uncertain_deliveries"):
        db.execute("select pgdrip.resolve_uncertain(%s, 'sent')", [row["token"]])
    for _ in range(45):  # days; some are to begin in February
        while stage.deliver(db, 1000):
            pass
        clock.advance(timedelta(days=1))
    assert every(db, "select from pgdrip.due as d where d.parked_reason is null") == []
    again = every(
        db,
        "select j.enrollment_id, j.step from pgdrip.deliveries as j"
        " where j.event in ('sent', 'resolved') group by 1, 2 having count(*) > 1",
    )
    assert again == []
    assert stage.violations(db) == []


def test_a_dry_run_tells_the_same_and_changes_nothing(run: Run, db: Db) -> None:
    legacy.build(db, 100)
    before = stage.contents(db)
    planned = run(*ADOPT, "--dry-run")
    assert stage.contents(db) == before
    assert "enrollments would be made" in planned.stdout
    done = run(*ADOPT)
    assert done.stdout == planned.stdout.replace("would be made", "made")


def test_a_hundred_thousand_leads_are_adopted(run: Run, db: Db) -> None:
    legacy.build(db, 100_000)
    assert run(*ADOPT).exit_code == 6
    wrong = every(
        db,
        f"select * from ({STATES}) as s where s.confirmed <> s.sent"
        " or s.live <= s.sent or (s.status = 'completed') <> (s.sent = 9)"
        " or s.status is null",
    )
    assert wrong == []
    rows = one(
        db,
        "select (select count(*) from legacy.leads)"
        " + (select count(*) from legacy.sequence_contacts)"
        " + (select count(*) from legacy.broadcast_messages) as n",
    )
    accounts = one(
        db,
        "select count(*) as n from pgdrip.adoptions where legacy_table in"
        " ('leads', 'sequence_contacts', 'broadcast_messages')",
    )
    assert accounts == rows
    assert stage.violations(db) == []


# One lead


def test_the_next_step_counts_from_the_actual_send(small: Db, run: Run) -> None:
    enrolled(small, status="active", current_step=9, completed_at="2026-01-04 20:00")
    sent(small, 1, "2026-01-04 20:00")
    run(*ADOPT)
    found = live(small)
    assert found["step"] == 3
    assert found["due_at"] == datetime(2026, 1, 5, 20, tzinfo=UTC)


def test_what_was_sent_long_ago_is_counted_though_the_page_counted_before(
    small: Db, run: Run
) -> None:
    small.execute("select pgdrip.tally('history')")
    sent(small, 1, "2026-01-04 20:00")
    run(*ADOPT)
    small.execute("select pgdrip.tally('history')")
    counted = every(small, "select step, sent from pgdrip.step_tally where sent > 0")
    assert counted == [{"step": 1, "sent": 1}]


def test_legacy_times_are_read_in_their_own_zone(small: Db, run: Run) -> None:
    sent(small, 1, "2026-01-05 04:00")
    run(*ADOPT, "--legacy-timezone", "Asia/Kuala_Lumpur")
    assert live(small)["due_at"] == datetime(2026, 1, 5, 20, tzinfo=UTC)


def test_times_eight_hours_ahead_make_nothing_come_early(small: Db, run: Run) -> None:
    sent(small, 1, "2026-01-05 16:30")  # local time, read as UTC: not yet
    run(*ADOPT)
    assert live(small)["due_at"] == NOW + timedelta(days=1)


def test_who_was_to_begin_later_begins_then(small: Db, run: Run) -> None:
    enrolled(small, status="pending", current_step=9, next_trigger_time="2026-01-07")
    run(*ADOPT)
    assert (live(small)["step"], live(small)["due_at"].day) == (1, 7)


def test_a_stuck_send_is_parked_until_somebody_says(small: Db, run: Run) -> None:
    sent(small, 1, "2026-01-02")
    sent(small, 2, "2026-01-03", status="processing", sent_at=None)
    run(*ADOPT)
    found = live(small)
    assert (found["step"], found["parked_reason"]) == (3, "uncertain")
    assert stage.violations(small) == []
    stage.deliver(small)
    assert run("resolve", found["token"], "sent", "--yes").exit_code == 0
    assert (live(small)["step"], live(small)["parked_reason"]) == (6, None)
    assert stage.violations(small) == []


@pytest.mark.parametrize(("taken_for", "step"), [("sent", 6), ("unsent", 3)])
def test_what_is_in_doubt_can_be_taken_for_either(
    small: Db, run: Run, taken_for: str, step: int
) -> None:
    sent(small, 1, "2026-01-02")
    sent(small, 2, "2026-01-03", status="queued", sent_at=None)
    run(*ADOPT, "--in-doubt", taken_for)
    assert (live(small)["step"], live(small)["parked_reason"]) == (step, None)
    assert stage.violations(small) == []


def test_a_failed_message_that_has_a_send_time_is_in_doubt(small: Db, run: Run) -> None:
    sent(small, 1, "2026-01-02", status="failed")
    run(*ADOPT)
    assert (live(small)["step"], live(small)["parked_reason"]) == (1, "uncertain")


def test_a_completed_row_without_any_message_is_in_doubt(small: Db, run: Run) -> None:
    for number in range(4):  # all of the last step: their number is what they say
        status = "completed" if number < 2 else "pending"
        enrolled(small, status=status, current_step=9, completed_at="2026-01-01")
    run(*ADOPT)
    assert (live(small)["step"], live(small)["parked_reason"]) == (3, "uncertain")


def test_completed_before_its_time_and_never_sent_is_not_completed(
    small: Db, run: Run
) -> None:
    for day in (1, 3, 6, 9):
        enrolled(
            small,
            status="completed",
            current_step=day,
            completed_at="2026-01-04",
            next_trigger_time=f"2026-01-{day + 5:02}",
        )
    run(*ADOPT)
    assert (live(small)["step"], live(small)["status"]) == (1, "active")
    assert live(small)["parked_reason"] is None


def test_a_step_that_was_skipped_is_passed_and_not_confirmed(
    small: Db, run: Run
) -> None:
    sent(small, 1, "2026-01-02")
    sent(small, 2, "2026-01-03", status="skipped", sent_at=None)
    run(*ADOPT)
    assert (live(small)["step"], live(small)["last_confirmed_step"]) == (6, 1)
    assert stage.violations(small) == []


def test_nothing_goes_back_behind_what_was_sent(small: Db, run: Run) -> None:
    sent(small, 3, "2026-01-02")
    sent(small, 1, "2026-01-01", status="pending", sent_at=None)
    run(*ADOPT)
    assert live(small)["step"] == 9


def test_a_suppressed_address_is_refused(small: Db, run: Run) -> None:
    stage.one(small, "select pgdrip.suppress('+60123000001', 'asked to')")
    enrolled(small, status="pending", user_id=legacy.USERS["A"])
    run(*ADOPT)
    assert live_count(small) == 0
    assert why(small, "sequence_contacts")[0][0] == "refused"
    assert "its address is suppressed" in str(why(small, "sequence_contacts"))


def live_count(db: Db) -> int:
    return int(one(db, "select count(*) as n from pgdrip.enrollments")["n"])


def test_a_row_of_another_users_sequence_is_refused(small: Db, run: Run) -> None:
    enrolled(small, status="pending", user_id=legacy.USERS["B"])
    run(*ADOPT)
    assert why(small, "sequence_contacts") == [
        ("refused", "its sequence belongs to another user")
    ]


def test_what_is_sent_after_adoption_is_refused_and_moves_nobody(
    small: Db, run: Run
) -> None:
    enrolled(small, status="pending")
    run(*ADOPT)
    sent(small, 1, "2026-01-05")
    run(*ADOPT)
    assert live(small)["step"] == 1
    [(outcome, reason)] = why(small, "broadcast_messages")
    assert outcome == "refused"
    assert "stop the legacy system" in str(reason)


def test_what_was_refused_is_tried_again(small: Db, run: Run) -> None:
    put(
        small, "leads", user_id=legacy.USERS["A"], phone="6.01E+10", trigger="WARMEXAMA"
    )
    run(*ADOPT)
    assert live_count(small) == 0
    small.execute("update legacy.leads set phone = '60123000001', status = 'prospect'")
    run(*ADOPT)
    assert (live(small)["step"], why(small, "leads")) == (1, [("adopted", None)])


def test_what_was_adopted_belongs_to_the_operator(small: Db, run: Run) -> None:
    run(*ADOPT)
    small.execute("select pgdrip.resume_sender(name) from pgdrip.senders")
    before = stage.contents(small)
    run(*ADOPT)
    assert stage.contents(small) == before


def test_the_contact_stays_with_its_device(small: Db, run: Run) -> None:
    device = one(
        small,
        "select id::text, device_name as name from legacy.user_devices"
        " where user_id = %s and status = 'online' order by id limit 1",
        [legacy.USERS["A"]],
    )
    put(
        small,
        "leads",
        user_id=legacy.USERS["A"],
        phone="60123000001",
        trigger="COLDEXAMA",
        device_id=device["id"],
    )
    run(*ADOPT)
    found = one(
        small,
        "select object_id from pgdrip.adoptions where legacy_id = %s",
        [device["id"]],
    )
    assert live(small)["sender_id"] == found["object_id"]


def test_contacts_get_their_zone_and_the_end_leads_on(small: Db, run: Run) -> None:
    put(small, "leads", user_id=legacy.USERS["A"], phone="60123000001")
    run(*ADOPT, "--contact-timezone", "Asia/Kuala_Lumpur")
    contact = one(small, "select timezone from pgdrip.contacts")
    assert contact == {"timezone": "Asia/Kuala_Lumpur"}
    cold = one(
        small,
        "select v.adds_trigger from pgdrip.sequences as q"
        " join pgdrip.sequence_versions as v using (version_id) where q.name = 'COLD'",
    )
    assert cold == {"adds_trigger": "WARMEXAMA"}


def test_an_installation_may_lack_columns(small: Db, run: Run) -> None:
    small.execute(
        "alter table legacy.sequence_contacts drop column processing_device_id"
    )
    small.execute("alter table legacy.leads drop column niche")
    enrolled(small, status="pending")
    assert run(*ADOPT).exit_code == 6
    assert live(small)["step"] == 1


# What cannot be


def test_a_schema_that_is_no_legacy_system_is_exit_2(run: Run) -> None:
    assert "no table user_devices" in told(run("adopt", "--from-schema", "public"), 2)


def test_an_unknown_zone_is_exit_2(small: Db, run: Run) -> None:
    assert "Mars/Base" in told(run(*ADOPT, "--legacy-timezone", "Mars/Base"), 2)
    assert "Mars/Base" in told(run(*ADOPT, "--contact-timezone", "Mars/Base"), 2)


@pytest.mark.parametrize(
    ("written", "phone"),
    [
        ("60123456789", "+60123456789"),
        ("+60 12-345 6789", "+60123456789"),
        ("0123456789", "+60123456789"),
        ("123456789", "+60123456789"),  # a spreadsheet took the 0
        ("6591234567", "+6591234567"),
        ("60123456789:7@s.whatsapp.net", "+60123456789"),
        ("60123456789.0", "+60123456789"),
        ("6.0123456789E+10", "+60123456789"),
        ("'60123456789", "+60123456789"),
        ("6.01E+10", None),
        ("abc", None),
        ("12", None),
        ("120363000000000000@g.us", None),
    ],
)
def test_phones_are_read_as_people_wrote_them(written: str, phone: str | None) -> None:
    found, _, problem = reader("MY")(written)
    assert found == phone
    assert (problem is None) == (phone is not None)


def test_without_a_region_a_short_number_is_no_phone() -> None:
    assert reader(None)("0123456789")[0] is None
    assert reader(None)("60123456789")[0] == "+60123456789"
