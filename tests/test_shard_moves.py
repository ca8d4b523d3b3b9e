"""A bucket moves from shard to shard: whole, once, and whatever breaks on the way."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from databases import Databases
from sharding import Cluster, cluster
from stage import Db, Row, every, one
from test_shards import DEFINITIONS, enrolled

LOCK = 7_000_007
# Where a mover can be stopped: the database, what it is about to do, and whether the
# bucket has left by then.
STAGES = {
    "before anything is held": ("source", "is_still_here", False),
    "while it is held": ("source", "drain_bucket", False),
    "while it is copied": ("target", "arrive", False),
    "before it has landed": ("target", "land_bucket", False),
    "while it is compared": ("target", "bucket_checksum", False),
    "before it leaves": ("source", "remove_bucket", False),
    "between the two commits": ("target", "commit", True),
    "after both commits": ("target", "foreign_ids", True),
    "before calls go there": ("router", "end_move", True),
}


@pytest.fixture(scope="module")
def shared(
    server: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with cluster(server, shards=2) as found:
        file = tmp_path_factory.mktemp("definitions") / "all.yaml"
        file.write_text(DEFINITIONS)
        assert found.pgdrip("shard", "apply", file).exit_code == 0
        yield found


@pytest.fixture
def two(shared: Cluster) -> Cluster:
    shared.empty()
    for db in shared.shards.values():
        db.execute("select pgdrip.set_clock('2026-01-05 09:00+00')")
    return shared


def a_bucket(two: Cluster, *, shard: int = 1) -> int:
    """The fullest bucket of a shard."""
    query = "select bucket from pgdrip.contacts group by 1 order by count(*) desc, 1"
    return int(one(two.shards[shard], query)["bucket"])


def deliver(db: Db) -> list[str]:
    """Claim, begin and confirm what is due; the keys of what went out."""
    rows = every(db, "select * from pgdrip.claim('runner-1', 1000)")
    ids = [[row[name] for row in rows] for name in ("enrollment_id", "token")]
    every(db, "select pgdrip.begin_send(%s::bigint[], %s::bigint[])", ids)
    every(
        db,
        "select pgdrip.report(%s::bigint[], %s::bigint[], %s)",
        [*ids, ["sent"] * len(rows)],
    )
    return [row["idempotency_key"] for row in rows]


def move(two: Cluster, bucket: int, to: int) -> None:
    done = two.pgdrip("shard", "move", str(bucket), "--to", str(to))
    assert done.exit_code == 0, done.output


def history(two: Cluster) -> list[Row]:
    """What every shard together knows of everybody, apart from who sends it next."""
    columns = (
        "select c.contact_id, c.phone, c.bucket, e.enrollment_id, e.status, d.step,"
        "       d.due_at, d.attempt, d.token, d.parked_reason, d.awaits, (select"
        "       array_agg(row(j.*)::text order by j.at, j.token) from pgdrip.deliveries"
        "       as j where j.enrollment_id = e.enrollment_id) as journal"
        "  from pgdrip.contacts as c left join pgdrip.enrollments as e using (contact_id)"
        "  left join pgdrip.due as d using (enrollment_id)"
    )
    rows = [row for found in two.everywhere(columns).values() for row in found]
    return sorted(rows, key=lambda row: str((row["contact_id"], row["enrollment_id"])))


def test_a_bucket_moves_whole_and_goes_on_there(two: Cluster) -> None:
    enrolled(two, 400)
    bucket = a_bucket(two)
    for db in two.shards.values():
        deliver(db)
    before = history(two)
    here = "select contact_id from pgdrip.contacts where bucket = %s order by 1"
    people = every(two.shards[1], here, [bucket])
    assert len(people) > 1
    move(two, bucket, 2)
    assert history(two) == before
    assert every(two.shards[1], here, [bucket]) == []
    assert every(two.shards[2], here, [bucket]) == people
    assert two.violations() == []
    for db in two.shards.values():
        db.execute("select pgdrip.set_clock(pgdrip.clock() + interval '12 hours')")
        assert len(deliver(db)) > 0
    assert (
        two.sums("select count(*) from pgdrip.enrollments where status = 'completed'")
        == 400
    )
    assert two.violations() == []


def test_calls_by_old_ids_and_addresses_find_a_bucket_that_moved(two: Cluster) -> None:
    enrollments = enrolled(two, 200)
    bucket = a_bucket(two)
    move(two, bucket, 2)
    moved = every(
        two.shards[2],
        "select contact_id, phone, enrollment_id from pgdrip.contacts"
        "  join pgdrip.enrollments using (contact_id) where bucket = %s",
        [bucket],
    )
    assert {row["enrollment_id"] >> 40 for row in moved} == {1}
    assert {row["enrollment_id"] for row in moved} < set(enrollments)
    for row in moved:
        again = two.ask("select pgdrip.upsert_contact(%s)", [row["phone"]])
        assert again == row["contact_id"]
        why = "select why from pgdrip.explain_contact(%s)"
        assert "next free runner" in two.ask(why, [row["contact_id"]])
        end = "select pgdrip.exit_enrollment(%s, 'a test')"
        assert two.ask(end, [row["enrollment_id"]])
    two.shards[2].execute("select pgdrip.tick('runner-1', '1')")
    move(two, bucket, 1)
    assert every(two.router, "select from pgdrip.moved_ids") == []
    end = "select status from pgdrip.explain_contact(%s)"
    assert two.ask(end, [moved[0]["contact_id"]]) == "exited"
    assert two.violations() == []


@contextmanager
def stopped_at(two: Cluster, database: str, function: str) -> Iterator[Db]:
    """A mover stops there until the lock is given back; who holds the lock."""
    dsn = {"source": two.dsns[1], "target": two.dsns[2], "router": two.dsn}[database]
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("select pg_advisory_lock(%s)", [LOCK])
        if function == "commit":
            db.execute(
                "create function public.stop() returns trigger language plpgsql as"
                f" $$ begin perform pg_advisory_xact_lock_shared({LOCK}); return null;"
                " end $$;"
                "create constraint trigger stop after insert on pgdrip.contacts"
                " initially deferred for each row execute function public.stop()"
            )
            undo = "drop function public.stop cascade"
        else:
            found = one_row(
                db,
                "select oid::regprocedure::text as signature, pg_get_function_result(oid) as result,"
                "       pg_get_function_arguments(oid) as arguments, proargnames as names"
                "  from pg_proc where proname = %s and pronamespace = 'pgdrip'::regnamespace",
                [function],
            )
            db.execute(f"alter function {found['signature']} rename to really".encode())
            passed = ", ".join(found["names"] or [])
            call = f"pgdrip.really({passed})"
            body = (
                "return query select * from" if "SETOF" in found["result"] else "return"
            )
            if found["result"] == "void":
                call, body = f"perform {call}; return", ""
            db.execute(
                f"create function pgdrip.{function}({found['arguments']}) returns"
                f" {found['result']} language plpgsql as $body$ begin perform"
                f" pg_advisory_xact_lock_shared({LOCK}); {body} {call}; end $body$".encode()
            )
            undo = (
                f"drop function {found['signature']};"
                f"alter function {found['signature'].replace(f'pgdrip.{function}', 'pgdrip.really')}"
                f" rename to {function}"
            )
        try:
            yield db
        finally:
            db.execute("select pg_advisory_unlock_all()")
            db.execute(undo.encode())


def one_row(db: psycopg.Connection[Any], query: str, parameters: Any) -> Row:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return row


def killed_there(two: Cluster, bucket: int, db: Db) -> None:
    """Start a mover, and kill it with its sessions as soon as it waits for the lock."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgdrip", "--dsn", two.dsn, "shard", "move", str(bucket)]
        + ["--to", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    waiting = (
        "select from pg_locks where locktype = 'advisory' and not granted"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    deadline = time.monotonic() + 20
    while not db.execute(waiting.encode()).rowcount:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    gone = (
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name in ('pgdrip-shard', 'pgdrip')"
    )
    db.execute(gone.encode())


@pytest.mark.parametrize("stage", STAGES)
def test_a_mover_killed_anywhere_loses_nothing_and_doubles_nothing(
    two: Cluster, stage: str
) -> None:
    database, function, has_left = STAGES[stage]
    enrolled(two, 300)
    bucket = a_bucket(two)
    before = history(two)
    with stopped_at(two, database, function) as db:
        killed_there(two, bucket, db)
    # Whoever runs meanwhile: each step goes out once.
    keys = [key for db in two.shards.values() for key in deliver(db)]
    assert len(keys) == len(set(keys))
    if not has_left:
        assert len(keys) == 300
    done = two.pgdrip("shard", "move", "--resume")
    assert done.exit_code == 0, done.output
    keys += [key for db in two.shards.values() for key in deliver(db)]
    assert sorted(keys) == sorted(f"{row['enrollment_id']}:1" for row in before)
    rest = "select count(*) as n from pgdrip.contacts where bucket = %s"
    assert one(two.shards[1], rest, [bucket])["n"] == 0
    assert one(two.shards[2], rest, [bucket])["n"] > 0
    assert every(two.router, "select from pgdrip.moves") == []
    assert two.sums("select count(*) from pgdrip.arrivals") == 0
    assert two.sums("select count(*) from pgdrip.contacts") == 300
    assert two.violations() == []
