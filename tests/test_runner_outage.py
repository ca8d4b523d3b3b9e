"""The runner when the database fails, or is another one than it knows."""

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdrip.channels import Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import DatabaseUnavailable, SchemaMismatch
from pgdrip.runner import Runner
from running import (
    BEGIN,
    CLAIM,
    Db,
    Ledger,
    backends,
    enroll,
    eventually,
    last_events,
    live,
    run,
    running,
    violations,
    wrap,
)


def test_a_lost_connection_loses_no_result(dsn: str, db: Db) -> None:
    [enrollment] = enroll(db, 1)
    lost: list[int] = []

    async def answer(message: ClaimedMessage) -> Outcome:
        for pid in backends(db):
            db.execute("select pg_terminate_backend(%s, 5000)", [pid])
            lost.append(pid)
        return Sent("p1")

    ledger = Ledger(answer)
    run(dsn, ledger)
    assert len(lost) == 2
    assert ledger.keys == [f"{enrollment}:1"]
    assert last_events(db) == [("sent", None, None)]
    assert live(db) == []


def test_a_long_outage_loses_no_result_and_sends_nothing_twice(
    dsn: str, db: Db, server: Any
) -> None:
    enrollments = enroll(db, 30, days=(1, 3))
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(server.dsn, autocommit=True) as other:

        def outage() -> None:
            other.execute(f'alter database "{name}" allow_connections false')
            for pid in backends(db):
                db.execute("select pg_terminate_backend(%s, 5000)", [pid])

        async def answer(message: ClaimedMessage) -> Outcome:
            if len(ledger.keys) == 20:
                outage()
                asyncio.get_running_loop().call_later(
                    1.0,
                    other.execute,
                    f'alter database "{name}" allow_connections true',
                )
            await asyncio.sleep(0.01)
            return Sent()

        ledger = Ledger(answer)
        run(dsn, ledger, slots=10)
    assert Counter(ledger.keys) == Counter(f"{id}:1" for id in enrollments)
    assert [due["step"] for due in live(db)] == [3] * 30
    assert violations(db) == []


def test_a_lost_answer_to_begin_is_asked_for_again(dsn: str, db: Db) -> None:
    [enrollment] = enroll(db, 1)
    db.execute("create sequence begins")
    lose = (
        "if nextval('begins') = 1 then"
        " perform pg_terminate_backend(pg_backend_pid()); end if;"
    )
    wrap(db, BEGIN, before=lose)
    ledger = Ledger()
    run(dsn, ledger)
    assert ledger.keys == [f"{enrollment}:1"]
    assert live(db) == []


def test_a_first_connection_that_fails_is_told_at_once(dsn: str) -> None:
    gone = make_conninfo(dsn, dbname="no_such_database")
    with pytest.raises(DatabaseUnavailable):
        run(gone, Ledger())


def test_a_schema_it_does_not_know_is_refused_and_nothing_claimed(
    dsn: str, db: Db
) -> None:
    enroll(db, 1)
    db.execute(
        "create or replace function pgdrip.schema_version() returns text"
        " language sql as $$ select '999' $$"
    )
    ledger = Ledger()
    with pytest.raises(SchemaMismatch, match=r"is 999, pgdrip \S+ knows 1"):
        run(dsn, ledger)
    assert ledger.keys == []
    assert live(db)[0]["token"] is None


def test_a_schema_that_changes_under_it_ends_it_after_its_reports(
    dsn: str, db: Db
) -> None:
    enroll(db, 1)

    async def answer(message: ClaimedMessage) -> Outcome:
        db.execute("alter function pgdrip.claim rename to claim_of_another_version")
        await asyncio.sleep(1.5)  # long enough for the next claim
        return Sent()

    with pytest.raises(SchemaMismatch, match="claim"):
        run(dsn, Ledger(answer))
    assert last_events(db) == [("sent", None, None)]
    assert live(db) == []


def test_a_locked_engine_is_waited_for(dsn: str, db: Db) -> None:
    enroll(db, 1)
    [control] = db.execute("select database_oid from pgdrip.control").fetchall()
    db.execute("update pgdrip.control set database_oid = 1")
    ledger = Ledger()

    async def meanwhile(runner: Runner) -> None:
        await asyncio.sleep(0.5)
        assert ledger.keys == []
        db.execute(
            "update pgdrip.control set database_oid = %s", [control["database_oid"]]
        )
        await eventually(lambda: len(ledger.keys) == 1)

    running(dsn, ledger, meanwhile)


def test_an_error_nobody_expects_is_tried_again_and_then_ends_it(
    dsn: str, db: Db
) -> None:
    enroll(db, 1)
    db.execute("create sequence claims")
    wrap(db, CLAIM, before="raise exception 'claim %', nextval('claims');")
    with pytest.raises(Exception, match="claim 4"):
        run(dsn, Ledger())
