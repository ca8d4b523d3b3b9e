"""An operator has every function of the API, and becomes the owner by none of them."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import hostile
import stage
from databases import Databases
from stage import Db
from test_roles import DENIED, relations, role_with, sqlstate

NAME = "pgdrip_test_operator"
# What leads from a role to another, or past the functions to what they keep.
ATTEMPTS = (
    "set role pgdrip_owner",
    "set session authorization pgdrip_owner",
    f"grant pgdrip_owner to {NAME}",
    f"grant pgdrip_operator to {NAME} with admin option",
    "alter role pgdrip_owner login",
    "reassign owned by pgdrip_owner to current_user",
    "drop owned by pgdrip_owner",
    "alter default privileges for role pgdrip_owner grant select on tables to public",
    "alter schema pgdrip rename to theirs",
    "alter schema pgdrip owner to current_user",
    "drop schema pgdrip cascade",
    "grant execute on all routines in schema pgdrip to public",
    "copy pgdrip.contacts to stdout",
    "copy pgdrip.contacts from stdin",
    "create trigger t before insert on pgdrip.contacts for each row"
    " execute function suppress_redundant_updates_trigger()",
    "create rule r as on select to pgdrip.contacts do instead select 1",
    "create policy p on pgdrip.contacts",
    "create table public.child () inherits (pgdrip.contacts)",
    "create table mine.child (like pgdrip.contacts);"
    " alter table pgdrip.deliveries attach partition mine.child default",
    "create table mine.refers (id bigint references pgdrip.contacts)",
    "create statistics mine.s on phone, email from pgdrip.contacts",
    "create index on pgdrip.contacts (phone)",
    "create or replace view pgdrip.failures as select 1",
    "alter view pgdrip.failures set (security_invoker = on)",
    "alter function pgdrip.enroll(text, bigint, timestamptz) set search_path = mine",
    "alter function pgdrip.enroll(text, bigint, timestamptz) security invoker",
    "create or replace function pgdrip.mask(p_text text) returns text return p_text",
    "create function mine.f() returns int return 1;"
    " alter function mine.f() owner to pgdrip_owner",
    "select pg_catalog.pg_read_file('/etc/passwd')",
    "select pg_catalog.lo_import('/etc/passwd')",
    "copy mine.t from program 'true'",
    "set session_replication_role = replica",
    "load 'auto_explain'",
)


@pytest.fixture(scope="module")
def world(server: Databases) -> Iterator[tuple[Db, Db]]:
    """A superuser, and an operator who may make schemas, tables and functions."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        hostile.canary(db)
        stage.sender(db)
        stage.sequence(db)
        stage.lead(db, p_email="jane@example.com", p_name="Jane Doe")
        stage.deliver(db)
        db.execute("analyze")
        with role_with(db, NAME, "in role pgdrip_operator"):
            mine = make_conninfo(dsn, user=NAME, password="secret")
            with psycopg.connect(mine, autocommit=True, row_factory=dict_row) as own:
                db.execute(f"create schema mine authorization {NAME}".encode())
                own.execute("create table mine.t (a text)")
                yield db, own
            db.execute(f"drop owned by {NAME} cascade".encode())


@pytest.fixture
def db(world: tuple[Db, Db]) -> Db:
    return world[0]


@pytest.fixture
def operator(world: tuple[Db, Db]) -> Db:
    return world[1]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_operator_does_not_get_past_the_functions(
    operator: Db, attempt: str
) -> None:
    assert sqlstate(operator, attempt) == DENIED


def test_an_operator_reads_no_table_and_no_statistics_of_one(operator: Db) -> None:
    for name in relations(operator, "rp"):
        assert sqlstate(operator, f"select * from {name}") == DENIED
        assert sqlstate(operator, f"select t from {name} as t") == DENIED
    for view in ("pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"):
        found = f"select * from pg_catalog.{view} where schemaname = 'pgdrip'"
        assert stage.every(operator, found) == []


def test_a_schema_of_its_name_is_not_taken_for_pg_cron(db: Db) -> None:
    with db.transaction(force_rollback=True):
        db.execute(f"create schema cron authorization {NAME}".encode())
        db.execute(f"set local role {NAME}".encode())
        db.execute(
            "create function cron.schedule(text, text, text) returns bigint"
            " language plpgsql as 'begin raise exception $$planted$$; end'"
        )
        assert sqlstate(db, "select pgdrip.schedule_jobs()") == "MD003"


def test_what_an_operator_schedules_has_the_rights_of_the_operator(db: Db) -> None:
    rows = stage.every(
        db,
        "select proname from pg_catalog.pg_proc where prosecdef"
        "   and pronamespace = 'pgdrip'::regnamespace and proname in ('schedule_jobs',"
        "    'unschedule_jobs', 'assert_cron', 'cron_jobs', 'tick_for_a_minute')",
    )
    assert rows == []


@pytest.mark.parametrize(
    "call",
    [
        "adopt(10)",
        "adopt_people('UTC', 'park')",
        "adopt_months('2020-01-01')",
        "retire_month(null, true)",
        "retire_history(now(), null)",
        "set_clock(now())",
        "settle(null, now())",
        "scrub_history(array[1])",
    ],
)
def test_an_operator_calls_nothing_that_is_the_owners(operator: Db, call: str) -> None:
    assert sqlstate(operator, f"select * from pgdrip.{call}") == DENIED


@pytest.mark.parametrize(
    ("function", "definition"),
    [
        (
            "apply_sender",
            {
                "name": "pgdrip.contacts",
                "channel": "webhook",
                "config": {
                    "url": "postgresql:///postgres",
                    "media_hosts": ["localhost", "'; drop table public.canary"],
                    "table": "pgdrip.contacts",
                    "search_path": "mine",
                },
                "secret": "/etc/passwd",
            },
        ),
        (
            "apply_sequence",
            {
                "name": "pgdrip.contacts",
                "trigger": "pgdrip.enroll(1)",
                "channel": "webhook",
                "status": "active",
                "exit_when": {"pgdrip.control": "select 1"},
                "steps": [{"day": 1, "body": "{{name|pgdrip.contacts}}"}],
            },
        ),
        ("apply_group", {"name": "pg_class", "rate": 1, "per": "1 second"}),
    ],
)
def test_a_definition_names_no_object_of_the_database(
    operator: Db, db: Db, function: str, definition: dict[str, object]
) -> None:
    before = hostile.schema(db)
    operator.execute(
        f"select * from pgdrip.{function}(%s)".encode(), [Jsonb(definition)]
    )
    operator.execute("select * from pgdrip.check()")
    stage.claim(operator)
    operator.execute("select pgdrip.maintain()")
    assert hostile.schema(db) == before
    assert stage.violations(db) == []
