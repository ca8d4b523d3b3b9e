"""The clock of a production database is the server's, whatever a session sets."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.rows import dict_row

import stage
from databases import Databases
from pgdrip.migrate import SQL_ROOT, migrate
from stage import Db
from test_roles import DENIED, MAY, acting_as, sqlstate

SETTERS = [*MAY, "pgdrip_owner"]
FAR = datetime(2031, 3, 5, tzinfo=UTC)
SETTINGS: dict[str, tuple[str, ...]] = {
    "pgdrip.now": (str(FAR),),
    "pgdrip.clock": (str(FAR),),
    "pgdrip.test_clock": ("on", str(FAR)),
    "pgdrip.offset": ("5 years",),
    "test.clock": (str(FAR),),
    "timezone": ("Asia/Kolkata", "<+99>-99", "posixrules"),
    "timezone_abbreviations": ("India", "Australia"),
    "datestyle": ("SQL, DMY", "German, MDY"),
    "lc_time": ("C",),
    "search_path": ("pg_temp, pgdrip, pg_catalog", "pg_temp, mine, pg_catalog", ""),
}
SHADOWS = (
    "create table {}.test_clock as select true as is_singleton,"
    " '2031-03-05 00:00Z'::timestamptz as now",
    "create function {}.clock_timestamp() returns timestamptz"
    " return timestamptz '2031-03-05 00:00Z'",
    "create function {}.clock() returns timestamptz"
    " return timestamptz '2031-03-05 00:00Z'",
    "create domain {}.timestamptz as text",
)


@pytest.fixture(scope="module")
def production(server: Databases) -> Iterator[Db]:
    """A migrated database as users have it."""
    with server.empty() as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db:
            yield db


def is_true(db: Db) -> bool:
    """Whether the clock goes with the server's."""
    row = stage.one(
        db,
        "select pgdrip.clock() between a.at and pg_catalog.clock_timestamp() as yes"
        "  from (select pg_catalog.clock_timestamp() as at offset 0) as a",
    )
    yes: bool = row["yes"]
    return yes


def switches(db: Db) -> dict[str, tuple[str, ...]]:
    """What a session may set of PostgreSQL itself, and all it may be set to."""
    rows = stage.every(
        db,
        "select name, case vartype when 'bool' then '{on,off}' else enumvals end as all"
        "  from pg_catalog.pg_settings"
        " where vartype in ('bool', 'enum') and context in ('user', 'superuser')"
        "   and name <> 'exit_on_error'",
    )
    return {row["name"]: tuple(row["all"]) for row in rows}


@pytest.mark.parametrize("role", SETTERS)
def test_no_setting_of_a_session_moves_the_clock(production: Db, role: str) -> None:
    db = production
    tried = switches(db) | SETTINGS
    assert "session_replication_role" in tried
    count = 0
    with db.transaction(force_rollback=True):
        db.execute("create schema mine")
        db.execute(f"grant all on schema mine to {role}".encode())
        with acting_as(db, role):
            for made in SHADOWS:
                db.execute(made.format("mine").encode())
                db.execute(made.format("pg_temp").encode())
            for name, values in tried.items():
                for value in values:
                    with suppress(psycopg.Error), db.transaction(force_rollback=True):
                        db.execute(
                            "select pg_catalog.set_config(%s, %s, true)", [name, value]
                        )
                        assert is_true(db), (name, value)
                        count += 1
    assert count > 120


@pytest.mark.parametrize("role", MAY)
def test_nobody_but_the_owner_makes_a_database_one_for_tests(
    production: Db, role: str
) -> None:
    with acting_as(production, role):
        for statement in (
            "select pgdrip.set_clock('2031-03-05 00:00Z')",
            "create table pgdrip.test_clock ()",
            "create or replace function pgdrip.clock() returns timestamptz"
            " return timestamptz '2031-03-05 00:00Z'",
            "alter function pgdrip.clock() set timezone = 'UTC'",
            (SQL_ROOT / "test_clock.sql").read_text(),
        ):
            assert sqlstate(production, statement) in {DENIED, "42883"}, statement
    assert is_true(production)


def test_a_row_of_test_clock_does_not_set_the_clock_of_production(
    production: Db,
) -> None:
    with production.transaction(force_rollback=True):
        production.execute("set local role pgdrip_owner")
        production.execute(SHADOWS[0].format("pgdrip").encode())
        assert is_true(production)
