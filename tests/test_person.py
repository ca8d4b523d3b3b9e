"""Who was erased is nowhere in the database any more."""

from datetime import timedelta

import stage
from conftest import Clock
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
