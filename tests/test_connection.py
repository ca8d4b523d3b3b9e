"""One connection to the database: its session, deadline, retries and errors."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdrip import __version__
from pgdrip.engine import ATTEMPTS, Engine
from pgdrip.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EngineRefused,
    PermissionDenied,
    PgdripError,
    SchemaMismatch,
    from_database,
)

T = TypeVar("T")
Db = psycopg.Connection[Any]

# Methods that are no function of the database, and those in which a name differs.
NO_FUNCTION = {"close", "connect", "database_id", "transaction", "wake_in"} | {
    "ask",
    "rejected_lines",
    "savepoint",
    "staging",
    "stream",
    "tallied",
}


def call(
    dsn: str, work: Callable[[Engine], Awaitable[T]], *, timeout: float = 60.0
) -> T:
    async def main() -> T:
        async with await Engine.connect(dsn, timeout=timeout) as engine:
            return await work(engine)

    return asyncio.run(main())


def database(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


def replace_function(db: Db, name: str, returns: str, body: str) -> None:
    db.execute(
        f"create or replace function pgdrip.{name}() returns {returns}"
        f" language plpgsql as $body$ {body} $body$"
    )


def test_each_method_is_a_function_with_the_same_arguments(db: Db) -> None:
    found = db.execute(
        "select proname, coalesce(proargnames[:pronargs], '{}') as arguments"
        " from pg_proc where pronamespace = 'pgdrip'::regnamespace"
    ).fetchall()
    functions = {
        row["proname"]: [name.removeprefix("p_") for name in row["arguments"]]
        for row in found
    }
    methods = {
        name: list(inspect.signature(method).parameters)[1:]
        for name, method in inspect.getmembers(Engine, inspect.isfunction)
        if not name.startswith("_") and name not in NO_FUNCTION
    }
    assert len(methods) > 30
    assert methods == {name: functions.get(name) for name in methods}


def test_settings_of_the_role_do_not_matter(dsn: str, db: Db) -> None:
    name = database(dsn)
    for setting in (
        "default_transaction_isolation = 'repeatable read'",
        "timezone = 'America/New_York'",
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
    ):
        db.execute(f'alter database "{name}" set {setting}')

    async def work(engine: Engine) -> tuple[datetime, list[object]]:
        return await engine.clock(), list(await engine.claim("r1"))

    now, claimed = call(dsn, work)
    assert now == datetime(2026, 1, 5, 9, tzinfo=UTC)
    assert now.utcoffset() == datetime.now(UTC).utcoffset()
    assert claimed == []


def test_no_answer_in_time_is_an_outage_and_not_a_hang(dsn: str, db: Db) -> None:
    replace_function(
        db, "next_wake", "timestamptz", "begin perform pg_sleep(30); return null; end"
    )
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"no answer .* within 0\.3 s"):
        call(dsn, Engine.next_wake, timeout=0.3)
    assert time.monotonic() - started < 5


def test_a_passing_conflict_is_retried(dsn: str, db: Db) -> None:
    db.execute("create sequence tries")
    replace_function(
        db,
        "next_wake",
        "timestamptz",
        "begin if nextval('tries') < 3 then"
        " raise exception 'deadlock' using errcode = '40P01';"
        " end if; return '2026-01-06 09:00+00'; end",
    )
    assert call(dsn, Engine.next_wake) == datetime(2026, 1, 6, 9, tzinfo=UTC)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014"])
def test_a_conflict_that_stays_becomes_an_outage(dsn: str, db: Db, state: str) -> None:
    db.execute("create sequence tries")
    replace_function(
        db,
        "next_wake",
        "timestamptz",
        f"begin raise exception 'try %', nextval('tries') using errcode = '{state}';"
        " end",
    )
    with pytest.raises(DatabaseUnavailable, match=f"try {ATTEMPTS}"):
        call(dsn, Engine.next_wake)


def test_inside_a_transaction_nothing_is_retried(dsn: str, db: Db) -> None:
    db.execute("create sequence tries")
    replace_function(
        db,
        "next_wake",
        "timestamptz",
        "begin raise exception 'try %', nextval('tries') using errcode = '40001'; end",
    )

    async def work(engine: Engine) -> None:
        async with engine.transaction():
            await engine.next_wake()

    with pytest.raises(DatabaseUnavailable, match="try 1"):
        call(dsn, work)


def test_a_transaction_is_all_or_nothing(dsn: str, db: Db) -> None:
    async def work(engine: Engine) -> None:
        async with engine.transaction():
            await engine.upsert_contact(phone="+60110000001")
            await engine.upsert_contact(phone="+60110000002")
        async with engine.transaction():
            await engine.upsert_contact(phone="+60110000003")
            await engine.upsert_contact(phone="no number")

    with pytest.raises(EngineRefused):
        call(dsn, work)
    rows = db.execute("select phone from pgdrip.contacts order by phone").fetchall()
    assert [row["phone"] for row in rows] == ["+60110000001", "+60110000002"]


def test_a_nul_in_a_text_is_refused(dsn: str) -> None:
    with pytest.raises(EngineRefused, match="NUL"):
        call(dsn, lambda engine: engine.pause_all("a\0b"))


def test_a_text_that_is_no_unicode_is_refused(dsn: str) -> None:
    with pytest.raises(EngineRefused, match="Unicode"):
        call(dsn, lambda engine: engine.pause_all("a\udcff"))


def test_a_read_only_server_is_no_place_for_a_runner(dsn: str, db: Db) -> None:
    db.execute(
        f'alter database "{database(dsn)}" set default_transaction_read_only = on'
    )
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        asyncio.run(Engine.connect(dsn, writable=True))
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        call(dsn, lambda engine: engine.upsert_contact(phone="+60110000001"))


def test_an_unreachable_server_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(Engine.connect("host=/nowhere"))


def test_a_missing_database_is_unavailable(dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        asyncio.run(Engine.connect(make_conninfo(dsn, dbname="no_such_database")))


def test_a_bad_connection_string_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        asyncio.run(Engine.connect("password=hunter2 nonsense"))
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in str(refused.value.hint)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"service": "nope"}, ConfigurationError),
        ({"sslmode": "nope"}, ConfigurationError),
        ({"connect_timeout": "nope"}, ConfigurationError),
        ({"user": "nobody at all"}, PermissionDenied),
    ],
)
def test_a_wrong_setting_of_a_connection_has_its_error(
    dsn: str, wrong: dict[str, str], kind: type[PgdripError]
) -> None:
    with pytest.raises(kind):
        asyncio.run(Engine.connect(make_conninfo(dsn, **wrong)))


def test_another_schema_version_is_refused_naming_both(dsn: str, db: Db) -> None:
    replace_function(db, "schema_version", "text", "begin return '999'; end")
    with pytest.raises(SchemaMismatch) as refused:
        asyncio.run(Engine.connect(dsn))
    assert refused.value.message == (
        f"the schema version of the database is 999, pgdrip {__version__} knows 1"
    )
    assert "pgdrip migrate" in str(refused.value.hint)


def test_a_database_without_a_schema_is_refused(empty: str) -> None:
    with pytest.raises(SchemaMismatch, match="of the database is none"):
        asyncio.run(Engine.connect(empty))


@pytest.mark.parametrize(
    ("state", "kind", "exit_code"),
    [
        ("08006", DatabaseUnavailable, 4),
        ("25006", DatabaseUnavailable, 4),
        ("53100", DatabaseUnavailable, 4),
        ("53300", DatabaseUnavailable, 4),
        ("57P01", DatabaseUnavailable, 4),
        ("42883", SchemaMismatch, 5),
        ("42703", SchemaMismatch, 5),
        ("0A000", SchemaMismatch, 5),
        ("MD006", SchemaMismatch, 5),
        ("42501", PermissionDenied, 8),
        ("28000", PermissionDenied, 8),
        ("MD003", EngineRefused, 1),
        ("22023", EngineRefused, 1),
        ("23514", EngineRefused, 1),
        ("XX000", PgdripError, 1),
    ],
)
def test_each_sqlstate_has_its_error(
    db: Db, state: str, kind: type[PgdripError], exit_code: int
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        db.execute(
            "do $$ begin raise exception 'no' using hint = 'try', errcode = '"
            + state
            + "'; end $$"
        )
    error = from_database(raised.value)
    assert type(error) is kind
    assert (error.exit_code, error.sqlstate) == (exit_code, state)
    assert (error.message, error.hint) == ("no", "try")
