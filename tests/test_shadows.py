"""Nothing a caller makes under the names of the engine or of PostgreSQL runs in one of
its functions: no relation, function, operator, domain or cast."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import stage
from databases import Databases
from stage import Db
from test_injection import GIVEN, GROUP, PERSON, SENDER
from test_roles import MAY, acting_as, each_role

TRAP = "TRAP0"  # the SQLSTATE of whatever was planted
OF_ONE: dict[str, dict[str, Any]] = {
    "apply_sender": {"p_definition": SENDER},
    "apply_group": {"p_definition": GROUP},
    "cron_jobs": {"p_version": "1.4"},
    "delete_sender": {"p_sender": "device-0009"},
    "forecast": {"p_contacts": 5},
    "import_contacts": {"p_contacts": Jsonb([PERSON])},
    "retire_sender": {"p_move_to_pool": "default"},
    "resume_sequence": {"p_keep_remaining": True},
    "sender_queue": {"p_sender": 1, "p_depth": 10, "p_now": GIVEN["p_start"]},
    "senders_to_probe": {"p_after": ""},
    "set_retention": {"p_detach": False},
    "tally": {"p_name": "queue"},
    "uncertain_sends": {"p_older_than": "0", "p_after": 0},
}
# What a call needs before it.
FIRST = {
    "delete_sender": "select pgdrip.retire_sender('device-0009')",
    "merge_import": "select pgdrip.stage_import();"
    " insert into pg_temp.import_lines (phone, name, trigger)"
    " values ('+60119999999', 'New', 'WARM')",
}
NO_CRON = {
    name: "MD003" for name in ("assert_cron", "schedule_jobs", "unschedule_jobs")
}
SHADOWS = Path(__file__).with_name("shadows.sql")


@pytest.fixture(scope="module")
def world(server: Databases) -> Iterator[tuple[Db, dict[str, Any]]]:
    """A database with work in every state, where each role has a schema of its own; and
    what calls can be given of it."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        stage.sender(db)
        stage.sequence(db)
        stage.leads(db, 4)
        stage.sender(db, "device-0009")
        messages = stage.claim(db, 3)
        stage.begin(db, messages)
        stage.report(db, messages[:1], "uncertain")
        for role in MAY:
            db.execute(f"create schema {role}_trap authorization {role}".encode())
        yield (
            db,
            GIVEN
            | {
                "p_enrollments": [messages[1]["enrollment_id"]],
                "p_tokens": [messages[1]["token"]],
                "p_token": messages[0]["token"],
                "p_contact": 4,
            },
        )


def calls(
    db: Db, role: str, given: dict[str, Any]
) -> Iterator[tuple[str, str, list[Any]]]:
    """What this role may ask: a name, a statement and its arguments."""
    rows = stage.every(
        db,
        "select proname as name, coalesce(proargnames[1:pronargs], '{}') as names,"
        "  array(select format('%%I.%%I', t.typnamespace::regnamespace, t.typname)"
        "          from unnest(proargtypes) with ordinality as a(type, place)"
        "          join pg_catalog.pg_type as t on t.oid = a.type"
        "         order by a.place) as types"
        "  from pg_catalog.pg_proc as p"
        " where pronamespace = 'pgdrip'::regnamespace"
        "   and has_function_privilege(%s, p.oid, 'execute') and prokind = 'f'"
        "   and not exists (select from pg_catalog.pg_type as t"
        "                    where t.oid = any (p.proargtypes) and t.typtype = 'c')"
        " order by 1",
        [role],
    )
    for row in rows:
        values = given | OF_ONE.get(row["name"], {})
        used = [values.get(one) for one in row["names"]]
        used = [Jsonb(one) if isinstance(one, dict) else one for one in used]
        places = ", ".join(f"%s::{one}" for one in row["types"])
        yield row["name"], f"select * from pgdrip.{row['name']}({places})", used
    views = stage.every(
        db,
        "select relname as name from pg_catalog.pg_class as c"
        " where relnamespace = 'pgdrip'::regnamespace and relkind = 'v'"
        "   and has_table_privilege(%s, c.oid, 'select')",
        [role],
    )
    for row in views:
        yield row["name"], f"select * from pgdrip.{row['name']}", []


def outcomes(db: Db, role: str, given: dict[str, Any]) -> dict[str, str | None]:
    """The SQLSTATE of each call, None where it succeeds; each is undone."""
    found: dict[str, str | None] = {}
    path = "select pg_catalog.set_config('search_path', %s, true)"
    for name, statement, arguments in list(calls(db, role, given)):
        try:
            with db.transaction(force_rollback=True):
                if name in FIRST:
                    db.execute(FIRST[name].encode())
                db.execute(path, [f"pg_temp, {role}_trap, pg_catalog"])
                db.execute(statement.encode(), arguments)
            found[name] = None
        except psycopg.Error as error:
            found[name] = error.sqlstate
    return found


def plant(db: Db, role: str) -> None:
    """Act as the role, with all of it in place, to the end of the transaction."""
    db.execute("set local search_path = pg_catalog, pg_temp")
    db.execute(f"set local role {role}".encode())
    for schema in ("pg_temp", f"{role}_trap"):
        db.execute("select set_config('test.schema', %s, true)", [schema])
        db.execute(SHADOWS.read_bytes())


@each_role
def test_nothing_a_caller_planted_runs_in_any_function_it_may_call(
    world: tuple[Db, dict[str, Any]], role: str
) -> None:
    db, given = world
    with acting_as(db, role):
        before = outcomes(db, role, given)
    refused = {name: code for name, code in before.items() if code}
    assert refused == {name: NO_CRON[name] for name in before if name in NO_CRON}
    with db.transaction(force_rollback=True):
        plant(db, role)
        after = outcomes(db, role, given)
    assert after == before


@pytest.mark.parametrize(
    "asks",
    [
        "from contacts",
        "from pg_temp.pg_class",
        "lower('X')",
        "1 + 1",
        "'60'::text",
        "'(60)'::pg_catalog.text::contacts",
    ],
)
def test_a_function_that_pins_no_path_would_be_caught(
    world: tuple[Db, dict[str, Any]], asks: str
) -> None:
    db, _ = world
    with db.transaction(force_rollback=True):
        db.execute(
            "create function public.unpinned() returns void language plpgsql"
            f" security definer as $$ begin perform {asks}; end $$".encode()
        )
        plant(db, "pgdrip_app")
        db.execute("set local search_path = pg_temp, pgdrip_app_trap, pg_catalog")
        with pytest.raises(psycopg.Error) as caught:
            db.execute("select public.unpinned()")
    assert caught.value.sqlstate == TRAP
