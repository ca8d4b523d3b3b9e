"""Who was erased is nowhere in the database any more."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

import stage
from conftest import Clock, Connect
from stage import Db

SECRETS = (
    "60129876543",
    "Jane.Doe",
    "Jane Doe",
    "Ipoh",
    "secret garden",
    "wamid.HBgM",
    "Asia/Kuala_Lumpur",
)


def dump(db: Db) -> str:
    """Every value of every table, in whatever schema."""
    names = stage.every(
        db,
        "select oid::regclass::text as name from pg_catalog.pg_class"
        " where relkind = 'r' and relnamespace::regnamespace::text"
        "   not in ('pg_catalog', 'information_schema', 'pg_toast')",
    )
    texts = [
        row["text"]
        for name in names
        for row in stage.every(db, f"select t::text as text from {name['name']} as t")
    ]
    return "\n".join(texts)


def test_nothing_that_was_known_of_an_erased_person_is_in_a_dump(
    db: Db, clock: Clock
) -> None:
    stage.sender(db)
    stage.sequence(db)
    contact = stage.lead(
        db,
        p_phone="+60129876543",
        p_email="Jane.Doe@example.com",
        p_name="Jane Doe",
        p_timezone="Asia/Kuala_Lumpur",
    )
    db.execute('update pgdrip.contacts set attributes = \'{"city": "Ipoh"}\'')
    db.execute(
        "select pgdrip.record_event(%s, 'looked', '{\"page\": \"secret garden\"}')",
        [contact],
    )
    [message] = stage.claim(db)
    stage.begin(db, [message])
    db.execute(
        "select pgdrip.report(array[%s::bigint], array[%s::bigint], '{sent}',"
        " '{wamid.HBgM}')",
        [message["enrollment_id"], message["token"]],
    )
    clock.advance(timedelta(days=3))
    [message] = stage.claim(db)
    stage.begin(db, [message])
    db.execute(
        "select pgdrip.report(array[%s::bigint], array[%s::bigint], '{failed}', null,"
        " '{sender}', array['+60129876543 (Jane.Doe@example.com) is not reachable'])",
        [message["enrollment_id"], message["token"]],
    )
    db.execute("select pgdrip.suppress('jane.doe@example.com', 'asked to')")
    before = dump(db)
    assert all(one in before for one in SECRETS), before

    db.execute("select pgdrip.erase_contact(%s, 'asked to')", [contact])

    after = dump(db)
    assert [one for one in SECRETS if one.lower() in after.lower()] == []
    assert len(after) > 1000
    assert stage.violations(db) == []


def test_codes_and_reasons_name_an_erased_person_no_more(db: Db) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.sequence(db, "HOT", trigger="HOT")
    contact = stage.lead(db, p_phone="+60129876543")
    [message] = stage.claim(db)
    stage.begin(db, [message])
    stage.report(db, [message], "failed", "+60129876543 is off")
    stage.lead(db, 1, "HOT", p_phone="+60129876543")
    db.execute(
        "select pgdrip.exit_enrollment(enrollment_id, 'jane@example.com asked to')"
        "  from pgdrip.enrollments join pgdrip.sequences using (sequence_id)"
        " where name = 'HOT'"
    )

    db.execute("select pgdrip.erase_contact(%s, 'asked to')", [contact])

    assert "9876543" not in dump(db)
    told = "select code from pgdrip.deliveries where event = 'uncertain'"
    assert stage.every(db, told)[0] == {"code": "+60…43 is off"}
    ends = "select end_reason from pgdrip.enrollments order by enrollment_id"
    assert [row["end_reason"] for row in stage.every(db, ends)] == [
        "erased",
        "j…@example.com asked to",
    ]
    assert stage.violations(db) == []


def merge(db: Db, line: dict[str, str]) -> int:
    """What `pgdrip import` does of a file with one line; how many were stored."""
    with db.transaction():
        db.execute("select pgdrip.stage_import()")
        db.execute(
            "insert into pg_temp.import_lines (phone, name, trigger)"
            " values (%(phone)s, %(name)s, %(trigger)s)",
            line,
        )
        row = stage.one(db, "select pgdrip.merge_import() as stored")
    stored: int = row["stored"]
    return stored


def batch(db: Db, line: dict[str, str]) -> int:
    """The same by import_contacts()."""
    one = {"phone": line["phone"], "name": line["name"], "triggers": [line["trigger"]]}
    rows = stage.every(db, "select * from pgdrip.import_contacts(%s)", [Jsonb([one])])
    return sum(row["reason"] is None for row in rows)


def upsert(db: Db, line: dict[str, str]) -> int:
    stage.lead(db, 1, line["trigger"], p_phone=line["phone"], p_name=line["name"])
    return 1


@pytest.mark.parametrize("name", ["Jane Doe", "Jane"])
@pytest.mark.parametrize("store", [merge, batch, upsert])
def test_who_is_stored_again_while_erased_is_somebody_new(
    connect: Connect, db: Db, store: Callable[..., int], name: str
) -> None:
    other, watcher = connect(), connect()
    stage.sender(db)
    stage.sequence(db)
    old = stage.lead(db, p_name="Jane Doe")
    line = {"phone": "+60110000001", "name": name, "trigger": "WARM"}
    with ExitStack() as waiting, db.transaction():
        db.execute("select pgdrip.erase_contact(%s, 'asked to')", [old])
        stored = waiting.enter_context(stage.meanwhile(store, other, line))
        stage.waits(watcher, other)
    assert stored.result() == 1
    db.execute("select pgdrip.enroll_waiting()")
    people = stage.every(
        db,
        "select contact_id, phone, name, trigger from pgdrip.contacts"
        " left join pgdrip.contact_triggers using (contact_id) order by 1",
    )
    assert [list(one.values()) for one in people] == [
        [old, None, None, None],
        [people[1]["contact_id"], "+60110000001", name, "WARM"],
    ]
    assert stage.violations(db) == []


def test_an_open_erasure_holds_up_nobody_else(
    connect: Connect, db: Db, clock: Clock
) -> None:
    other = stage.never_waits(connect())
    stage.sender(db)
    stage.sequence(db)
    contacts = stage.leads(db, 4)
    first, second = stage.claim(db, 2)
    stage.begin(db, [first, second])
    db.execute(
        "select pgdrip.report(array[%s::bigint], array[%s::bigint], '{failed}', null,"
        " '{sender}', array['+60110000001 is not reachable'])",
        [first["enrollment_id"], first["token"]],
    )
    db.execute("select pgdrip.resume_sender('device-0001')")
    with db.transaction():
        db.execute("select pgdrip.erase_contact(%s, 'asked to')", contacts[:1])
        assert stage.report(other, [second]) == ["advanced"]
        assert len(stage.deliver(other)) == 2
        other.execute("select pgdrip.tick('runner-1', '1')")
        other.execute("select pgdrip.maintain()")
        other.execute("select pgdrip.suppress('+60110000002', 'asked to')")
        other.execute("select pgdrip.record_reply('webhook', '+60110000003', 'Hi')")
        stage.lead(other, 4, "HOT", p_name="Ben")
        assert merge(other, {"phone": "+60110000005", "name": "E", "trigger": "WARM"})
        assert len(stage.deliver(other)) == 0
        other.execute("select pgdrip.enroll_waiting()")
        assert len(stage.deliver(other)) == 1
    assert stage.violations(db) == []
