"""verify and doctor find what differs from what was shipped; pg_cron ticks as well."""

import json
import time
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from commands import Database, Run, invoke, on
from conftest import Extension
from databases import Databases
from pgdrip.doctor import who_ticks
from pgdrip.migrate import migrate


@pytest.fixture
def real(empty: str) -> str:
    """A database like those in production: its clock is the server's."""
    migrate(empty)
    return empty


@pytest.fixture
def run(real: str) -> Run:
    return on(real)


@pytest.fixture
def live(real: str) -> Any:
    with psycopg.connect(real, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_a_new_database_is_as_it_was_shipped(run: Run) -> None:
    assert run("verify").stdout == "the database is as it was shipped\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("drop index pgdrip.due_claim", "index due_claim is missing or not valid"),
        (
            "alter table pgdrip.due drop constraint due_lease_has_token",
            "constraint due_lease_has_token is missing or not valid",
        ),
        ("drop function pgdrip.unsuppress", "function unsuppress() is missing"),
        (
            "create or replace function pgdrip.pause_all(p_reason text) returns boolean"
            " language sql security definer set search_path = pg_catalog, pg_temp"
            " as 'select true'",
            "function pause_all() is not the one that was shipped",
        ),
        (
            "alter function pgdrip.pause_all reset search_path",
            "function pause_all() has no search_path of its own",
        ),
        (
            "alter function pgdrip.settle security definer",
            "function settle() lends its owner's rights",
        ),
        (
            "alter function pgdrip.pause_all security invoker",
            "function pause_all() lacks its owner's rights",
        ),
        (
            "grant execute on function pgdrip.settle to public",
            "anybody may call function settle()",
        ),
    ],
)
def test_what_somebody_changed_by_hand_is_found(
    run: Run, live: Database, damage: str, said: str
) -> None:
    live.execute(damage.encode())
    found = run("verify")
    assert found.exit_code == 7
    first, last = found.stderr.splitlines()
    assert first.startswith(f"pgdrip: {said} (run `pgdrip migrate`")
    assert last == "pgdrip: 1 thing wrong"


def test_a_replaced_clock_is_found(dsn: str) -> None:
    found = invoke("verify", PGDRIP_DSN=dsn)
    assert found.exit_code == 7
    assert "clock() is not the server's time" in found.stderr
    found = invoke("verify", "--json", PGDRIP_DSN=dsn)
    assert found.exit_code == 7
    told = " ".join(one["what"] for one in json.loads(found.stdout)["findings"])
    assert "clock() is not the server's time" in told


def test_doctor_says_who_ticks(run: Run, live: Database) -> None:
    live.execute("select pgdrip.maintain()")
    found = run("doctor")
    assert found.exit_code == 0
    assert "nobody ticks" in found.stderr
    live.execute("select pgdrip.tick('desk', '0.0.1')")
    found = run("doctor")
    assert found.stdout == "ticked by: desk\n"
    assert "runner desk is of version 0.0.1" in found.stderr
    told = json.loads(run("doctor", "--json").stdout)
    assert told["ticked_by"] == ["desk"]
    assert [one["is_wrong"] for one in told["findings"]] == [False]


def test_doctor_misses_the_partition_of_this_month(run: Run, live: Database) -> None:
    live.execute("select pgdrip.tick('desk', pgdrip.schema_version())")
    row = live.execute(
        "select to_char(pgdrip.clock() at time zone 'UTC', 'YYYY_MM') as month"
    ).fetchone()
    assert row is not None
    live.execute(f"drop table pgdrip.deliveries_{row['month']}".encode())
    assert "history has no partition for this month" in run("doctor").stderr


# pg_cron


def test_without_pg_cron_there_is_nothing_to_schedule(live: Database) -> None:
    for function in ("schedule_jobs", "unschedule_jobs"):
        with pytest.raises(psycopg.Error, match="this database has no pg_cron"):
            live.execute(f"select pgdrip.{function}()".encode())


def test_pg_cron_ticks_in_the_place_of_a_runner(
    server: Databases, extension: Extension
) -> None:
    """pg_cron lives in one database of a server, here the one for maintenance."""
    with psycopg.connect(server.dsn, autocommit=True, row_factory=dict_row) as db:
        extension(db, "pg_cron")
        row = db.execute("select to_regnamespace('pgdrip') is null as free").fetchone()
        assert row == {"free": True}, (
            "the maintenance database holds a pgdrip of its own"
        )
        migrate(server.dsn)
        try:
            for _ in range(2):
                row = db.execute("select pgdrip.schedule_jobs() as jobs").fetchone()
                assert row == {"jobs": 3}
            jobs = db.execute("select jobname, schedule from cron.job order by 1")
            assert [one["jobname"] for one in jobs] == [
                *("pgdrip maintain", "pgdrip prune", "pgdrip tick"),
            ]
            command = db.execute(
                "select command from cron.job where jobname = 'pgdrip prune'"
            ).fetchone()
            assert command is not None
            db.execute(command["command"].encode())
            _wait_for_a_tick(db)
            assert who_ticks(server.dsn) == ["pg_cron"]
            row = db.execute("select pgdrip.unschedule_jobs() as jobs").fetchone()
            assert row == {"jobs": 3}
            row = db.execute("select pgdrip.unschedule_jobs() as jobs").fetchone()
            assert row == {"jobs": 0}
        finally:
            db.execute("drop extension pg_cron")
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where query ~ 'tick_for_a_minute' and pid <> pg_backend_pid()"
            )
            db.execute("drop schema pgdrip, pgdrip_yoyo cascade")


def _wait_for_a_tick(db: Database) -> None:
    """At the turn of the minute, where pg_cron knows only minutes."""
    for _ in range(350):
        found = db.execute("select 1 from pgdrip.runners where runner = 'pg_cron'")
        if found.fetchone():
            return
        time.sleep(0.2)
    row = db.execute(
        "select status, return_message from cron.job_run_details"
    ).fetchall()
    pytest.fail(f"no tick within 70 s: {row}")
