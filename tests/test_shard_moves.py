"""A bucket moves from shard to shard: whole, once, and whatever breaks on the way."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from commands import told
from databases import Databases
from sharding import Cluster, bucket_of, cluster, phone, phones_in
from stage import Db, Row, every, one
from test_shards import DEFINITIONS, WARM, error

LOCK = 7_000_007
# Where a mover can be stopped: the database, what it is about to do, and where the
# bucket is by then.
STAGES = {
    "before anything is held": ("source", "is_still_here", "source"),
    "while it is held": ("source", "drain_bucket", "source"),
    "while it is copied": ("target", "arrive", "source"),
    "before it has landed": ("target", "land_bucket", "source"),
    "while it is compared": ("target", "bucket_checksum", "source"),
    "before it leaves": ("source", "remove_bucket", "source"),
    "between the two commits": ("target", "commit", "arrivals"),
    "after both commits": ("target", "foreign_ids", "target"),
    "before calls go there": ("router", "end_move", "target"),
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
        db.execute("select pgdrip.apply_sequence(%s)", [Jsonb(WARM)])
    return shared


def people(two: Cluster) -> list[int]:
    """Some in bucket 0 of shard 1, and others around them; those of the bucket."""
    own = two.enroll(phones_in(0, 8))
    two.enroll([phone(number) for number in range(24)])
    return own


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
        "  from pgdrip.contacts as c"
        "  left join pgdrip.enrollments as e using (contact_id)"
        "  left join pgdrip.due as d using (enrollment_id)"
    )
    rows = [row for found in two.everywhere(columns).values() for row in found]
    return sorted(rows, key=lambda row: str((row["contact_id"], row["enrollment_id"])))


def test_a_bucket_moves_whole_and_goes_on_there(two: Cluster) -> None:
    own = people(two)
    for db in two.shards.values():
        deliver(db)
    before = history(two)
    move(two, 0, 2)
    assert history(two) == before
    assert [two.where(contact) for contact in own] == [2] * len(own)
    assert two.violations() == []
    for db in two.shards.values():
        db.execute("select pgdrip.set_clock(pgdrip.clock() + interval '12 hours')")
        deliver(db)
    assert two.sums("select count(*) from pgdrip.due") == 0
    assert two.sums("select count(*) from pgdrip.deliveries") == 2 * 32
    assert two.violations() == []


def test_calls_by_old_ids_and_addresses_find_a_bucket_that_moved(two: Cluster) -> None:
    own = people(two)
    move(two, 0, 2)
    rows = every(two.shards[2], "select * from pgdrip.enrollments")
    ids = {row["contact_id"]: row["enrollment_id"] for row in rows}
    for number, contact in zip(phones_in(0, 8), own, strict=True):
        assert ids[contact] >> 40 == 1
        assert two.ask("select pgdrip.upsert_contact(%s)", [number]) == contact
        why = "select why from pgdrip.explain_contact(%s)"
        assert "next free runner" in two.ask(why, [contact])
        end = "select pgdrip.exit_enrollment(%s, 'a test')"
        assert two.ask(end, [ids[contact]])
    assert not two.ask("select pgdrip.suppress(%s, 'x') is null", [number])
    move(two, 0, 1)
    assert every(two.router, "select from pgdrip.moved_ids") == []
    status = "select status from pgdrip.explain_contact(%s)"
    assert two.ask(status, [own[0]]) == "exited"
    assert two.violations() == []


def test_a_bucket_that_is_there_already_stays(two: Cluster) -> None:
    people(two)
    done = two.pgdrip("shard", "move", "0", "--to", "1")
    assert done.stdout == "bucket 0: 0 contacts moved\n"


def test_nothing_goes_out_twice_though_a_runner_has_it(two: Cluster) -> None:
    """The mover waits for the report, and gives up where there is none."""
    people(two)
    claimed = every(two.shards[1], "select * from pgdrip.claim('runner-1', 1000)")
    ids = [[row[name] for row in claimed] for name in ("enrollment_id", "token")]
    every(two.shards[1], "select pgdrip.begin_send(%s::bigint[], %s::bigint[])", ids)
    line = told(two.pgdrip("shard", "move", "0", "--to", "2", "--wait", "0s"), 4)
    assert line.startswith("runners still have 8 steps of the bucket")
    assert every(two.router, "select from pgdrip.moves") == []
    verdicts = every(
        two.shards[1],
        "select verdict from pgdrip.report(%s::bigint[], %s::bigint[], %s)",
        [*ids, ["sent"] * len(claimed)],
    )
    assert {row["verdict"] for row in verdicts} == {"advanced"}
    move(two, 0, 2)
    assert two.violations() == []


def test_a_send_that_nobody_reported_moves_as_uncertain(two: Cluster) -> None:
    """And whoever knows better settles it where it is now, also by a late report."""
    people(two)
    claimed = every(two.shards[1], "select * from pgdrip.claim('runner-1', 1000)")
    ids = [[row[name] for row in claimed] for name in ("enrollment_id", "token")]
    every(two.shards[1], "select pgdrip.begin_send(%s::bigint[], %s::bigint[])", ids)
    later = "select pgdrip.set_clock(pgdrip.clock() + interval '5 minutes')"
    two.everywhere(later)
    move(two, 0, 2)
    uncertain = every(
        two.shards[2], "select enrollment_id, token from pgdrip.uncertain_deliveries"
    )
    assert len(uncertain) == 8
    first, *others = uncertain
    settle = "select pgdrip.resolve_uncertain(%s, 'sent') as verdict"
    assert one(two.shards[2], settle, [first["token"]])["verdict"] == "advanced"
    rows = every(
        two.router,
        "select verdict from pgdrip.report(%s::bigint[], %s::bigint[], %s)",
        [
            [o["enrollment_id"] for o in others],
            [o["token"] for o in others],
            ["sent"] * 7,
        ],
    )
    assert [row["verdict"] for row in rows] == ["late"] * 7
    two.everywhere("select pgdrip.tick('runner-1', '1')")
    two.everywhere("select pgdrip.set_clock(pgdrip.clock() + interval '12 hours')")
    assert len([key for key in deliver(two.shards[2]) if key.endswith(":3")]) >= 8
    assert two.violations() == []


def test_two_shards_may_have_given_the_same_token(two: Cluster) -> None:
    """Then it alone does not say which send is meant; with the enrollment it does."""
    people(two)
    for db in two.shards.values():
        db.execute("select setval('pgdrip.token_seq', 9000000)")
        claimed = every(db, "select * from pgdrip.claim('runner-1', 1000)")
        ids = [[row[name] for row in claimed] for name in ("enrollment_id", "token")]
        every(db, "select pgdrip.begin_send(%s::bigint[], %s::bigint[])", ids)
    two.everywhere("select pgdrip.set_clock(pgdrip.clock() + interval '5 minutes')")
    two.everywhere("select pgdrip.claim('runner-1', 1000)")
    move(two, 0, 2)
    twice = every(
        two.shards[2],
        "select token, max(enrollment_id) as enrollment_id"
        "  from pgdrip.uncertain_deliveries group by 1 having count(*) > 1",
    )
    assert twice
    for row in twice:
        with pytest.raises(psycopg.Error, match="several uncertain deliveries"):
            two.shards[2].execute(
                "select pgdrip.resolve_uncertain(%s, 'sent')", [row["token"]]
            )
        report = "select verdict from pgdrip.report(array[%s], array[%s], '{sent}')"
        told = one(two.router, report, [row["enrollment_id"], row["token"]])
        assert told["verdict"] == "late"
        settle = "select pgdrip.resolve_uncertain(%s, 'sent') as verdict"
        assert one(two.shards[2], settle, [row["token"]])["verdict"] == "advanced"


def test_tokens_go_on_above_those_that_moved_here(two: Cluster) -> None:
    people(two)
    two.shards[1].execute("select setval('pgdrip.token_seq', 5000000)")
    deliver(two.shards[1])
    move(two, 0, 2)
    two.everywhere("select pgdrip.set_clock(pgdrip.clock() + interval '12 hours')")
    claimed = every(two.shards[2], "select * from pgdrip.claim('runner-1', 1000)")
    assert min(row["token"] & 2**40 - 1 for row in claimed) > 5000000


def test_what_belongs_to_a_contact_moves_along(two: Cluster) -> None:
    """Words, events, a suppression, a receipt, the version it is on, its sender."""
    [contact, other] = two.enroll(phones_in(0, 2))
    two.ask("select pgdrip.record_event(%s, 'looked', '{\"n\": 1.10}')", [contact])
    every(two.router, "select pgdrip.add_trigger(%s, 'LATER')", [contact])
    here = two.shards[1]
    here.execute(
        "select pgdrip.suppress(%s, 'told the shard alone')", [phones_in(0, 2)[1]]
    )
    [row] = every(here, "select * from pgdrip.claim('runner-1')")
    every(
        here,
        "select pgdrip.report(array[%s], array[%s], '{sent}', '{ref}')",
        [row["enrollment_id"], row["token"]],
    )
    here.execute(
        "select pgdrip.apply_sequence(%s)",
        [
            Jsonb(
                WARM
                | {"steps": [{"day": 1, "body": "One"}, {"day": 9, "body": "Nine"}]}
            )
        ],
    )
    three = two.enroll(phones_in(0, 3))[2]
    person = two.ask("select pgdrip.export_contact(%s)", [contact])
    sender = one(here, "select sender_id from pgdrip.deliveries")["sender_id"]
    move(two, 0, 2)
    [sent] = person["enrollments"][0]["deliveries"]
    sent["sender"] = f"everywhere (former {sender})"
    assert two.ask("select pgdrip.export_contact(%s)", [contact]) == person
    assert two.ask("select pgdrip.record_receipt('log', 'ref', 'read')")
    assert every(two.router, "select why from pgdrip.explain_contact(%s)", [other])
    there = two.shards[2]
    assert one(there, "select pgdrip.is_suppressed(%s) as x", [phones_in(0, 2)[1]])["x"]
    query = (
        "select s.number from pgdrip.enrollments as e join pgdrip.steps as s"
        " using (version_id) where e.contact_id = %s order by 1"
    )
    assert [row["number"] for row in every(there, query, [contact])] == [1, 3]
    assert [row["number"] for row in every(there, query, [three])] == [1, 9]
    assert two.violations() == []


def test_work_of_a_blocked_sender_is_not_moved(two: Cluster) -> None:
    people(two)
    two.shards[1].execute("update pgdrip.senders set health = 'blocked', faults = 1")
    try:
        line = told(two.pgdrip("shard", "move", "0", "--to", "2"), 1)
    finally:
        two.shards[1].execute(
            "update pgdrip.senders set health = 'healthy', faults = 0"
        )
    assert line.startswith("sender 'everywhere' is blocked: its work is not moved")
    assert every(two.router, "select from pgdrip.moves") == []


def test_what_retention_took_is_remembered_where_its_contact_is(two: Cluster) -> None:
    two.everywhere("select pgdrip.maintain()")
    people(two)
    for _ in range(2):
        for db in two.shards.values():
            deliver(db)
        two.everywhere("select pgdrip.set_clock(pgdrip.clock() + interval '12 hours')")
    for db in two.shards.values():
        db.execute("select pgdrip.set_retention('30 days')")
        db.execute("select pgdrip.set_clock('2026-06-05 09:00+00')")
    # It gives way to a vacuum that is at work.
    deadline = time.monotonic() + 20
    while two.sums("select count(*) from pgdrip.deliveries"):
        assert time.monotonic() < deadline
        two.everywhere("select pgdrip.maintain()")
    move(two, 0, 2)
    assert two.violations() == []
    move(two, 0, 1)
    assert two.violations() == []


def test_while_a_bucket_moves_its_callers_are_told_to_come_again(two: Cluster) -> None:
    [contact, *_] = people(two)
    stranger = two.lead(0) if bucket_of(phone(0)) else two.lead(1)
    with stopped_at(two, "target", "arrive") as db, mover(two, 0) as process:
        awaits_lock(db, process)
        for call, argument in (
            ("record_reply('log', %s, 'yes')", phones_in(0, 1)[0]),
            ("upsert_contact(%s)", phones_in(0, 9)[8]),
            ("suppress(%s, 'asked to')", phones_in(0, 1)[0]),
        ):
            found = error(two, f"select pgdrip.{call}", [argument])
            assert (found.sqlstate, found.diag.message_primary) == (
                "55P03",
                "bucket 0 is being moved",
            )
        every(two.router, "select pgdrip.add_trigger(%s, 'OTHER')", [stranger])
        db.execute("select pg_advisory_unlock_all()")
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert output == "bucket 0: 8 contacts moved\n"
    assert two.where(contact) == 2


def test_who_waits_for_what_leaves_is_not_told_that_there_is_nothing_to_do(
    two: Cluster,
) -> None:
    """A stop that came too late for this shard must reach the other one."""
    people(two)
    [row, *_] = every(
        two.shards[1],
        "select enrollment_id, phone from pgdrip.enrollments join pgdrip.contacts"
        " using (contact_id) where bucket = 0",
    )
    id = row["enrollment_id"]
    calls = {
        "exit_enrollment(%s, 'asked to')": [id],
        "pause_enrollment(%s, 'asked to')": [id],
        "resume_enrollment(%s)": [id],
        "retry_failed(%s, 'again')": [id],
    }

    def call(function: str) -> str | None:
        return sqlstate(two.dsn, function, calls[function])

    with (
        stopped_at(two, "target", "commit") as target,
        stopped_at(two, "source", "remove_bucket") as source,
        mover(two, 0) as process,
        ThreadPoolExecutor() as threads,
    ):
        awaits_lock(source, process)
        told = [threads.submit(call, function) for function in calls]
        # Straight to the shard, where nobody knows of the move.
        stop = "suppress(%s, 'asked to')"
        told += [threads.submit(sqlstate, two.dsns[1], stop, [row["phone"]])]
        await_rows(source, len(told))
        source.execute("select pg_advisory_unlock_all()")
        awaits_lock(target, process)
        assert [one.result(30) for one in told] == ["55P03"] * len(told)
        receipt = "select pgdrip.record_receipt('log', 'unheard-of', 'read')"
        assert error(two, receipt).sqlstate == "55P03"
        target.execute("select pg_advisory_unlock_all()")
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert two.ask("select pgdrip.exit_enrollment(%s, 'asked to')", [id])


def sqlstate(dsn: str, call: str, values: list[object]) -> str | None:
    """Of the error that a call ends with; None: it does not."""
    with psycopg.connect(dsn, autocommit=True) as own:
        try:
            own.execute(f"select pgdrip.{call}".encode(), values)
        except psycopg.Error as found:
            return found.sqlstate
    return None


def await_rows(db: Db, count: int) -> None:
    """Return once so many sessions here wait for what another has locked."""
    waiting = (
        "select from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and wait_event in ('transactionid', 'tuple')"
    )
    deadline = time.monotonic() + 20
    while db.execute(waiting.encode()).rowcount < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["cancel_move(%s)", "end_move(%s, '{}', '{}')"])
def test_a_mover_whose_move_somebody_else_has_ended_moves_nothing(
    two: Cluster, end: str
) -> None:
    own = people(two)
    before = two.everywhere("select contact_id from pgdrip.contacts order by 1")
    with stopped_at(two, "source", "is_still_here") as db, mover(two, 0) as process:
        awaits_lock(db, process)
        [row] = every(two.router, "select move_id, bucket from pgdrip.moves")
        every(two.router, f"select pgdrip.{end}", [row["move_id"]])
        owner = every(two.router, "select * from pgdrip.buckets where bucket = 0")
        db.execute("select pg_advisory_unlock_all()")
        _, errors = process.communicate(timeout=30)
    assert errors.startswith(
        "pgdrip: somebody else has ended the move of bucket 0"
        " (pgdrip shard status says where it is)"
    )
    assert two.everywhere("select contact_id from pgdrip.contacts order by 1") == before
    assert every(two.router, "select * from pgdrip.buckets where bucket = 0") == owner
    again = "select pgdrip.end_move(%s, %s::bigint[], '{}')"
    every(two.router, again, [row["move_id"], own])
    assert every(two.router, "select from pgdrip.moved_ids") == []


def test_an_older_snapshot_does_not_see_that_a_bucket_has_moved(two: Cluster) -> None:
    people(two)
    with psycopg.connect(two.dsn) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        db.execute("select from pgdrip.buckets")
        move(two, 0, 2)
        with pytest.raises(psycopg.Error, match="must be read committed") as raised:
            db.execute("select pgdrip.upsert_contact(%s)", [phones_in(0, 9)[8]])
    assert raised.value.sqlstate == "MD003"
    assert two.sums("select count(*) from pgdrip.contacts where bucket = 0") == 8


def test_the_commits_of_a_move_are_durable_whatever_the_databases_say(
    two: Cluster,
) -> None:
    """A shard that forgot that a bucket has left would send all of it again."""
    for db, call in (
        (two.shards[1], "stage_bucket(0)"),
        (two.shards[2], "land_bucket(0)"),
        (two.router, "begin_move(0, 2)"),
        (two.router, "end_move(0, '{}', '{}')"),
    ):
        with db.transaction(force_rollback=True):
            db.execute("set local synchronous_commit = off")
            db.execute(f"select pgdrip.{call}".encode())
            assert one(db, "show synchronous_commit")["synchronous_commit"] == "on"


AT_COMMIT = f"""
create function public.stop() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared({LOCK});
  return null;
end
$$;
create constraint trigger stop after insert on pgdrip.contacts initially deferred
  for each row execute function public.stop()
"""
FUNCTION = """
select oid::regprocedure::text as signature, pg_get_function_result(oid) as result,
       pg_get_function_arguments(oid) as arguments,
       array_to_string(proargnames, ', ') as names
  from pg_catalog.pg_proc
 where proname = %s and pronamespace = 'pgdrip'::regnamespace
"""


@contextmanager
def stopped_at(two: Cluster, database: str, function: str) -> Iterator[Db]:
    """A mover stops there until the lock is given back; who holds the lock."""
    dsn = {"source": two.dsns[1], "target": two.dsns[2], "router": two.dsn}[database]
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db:
        db.execute("select pg_advisory_lock(%s)", [LOCK])
        if function == "commit":
            db.execute(AT_COMMIT.encode())
            undo = "drop function public.stop cascade"
        else:
            undo = replace(db, function)
        try:
            yield db
        finally:
            db.execute("select pg_advisory_unlock_all()")
            db.execute(undo.encode())


def replace(db: Db, function: str) -> str:
    """Put a function that waits for the lock before another; what takes it away."""
    found = one(db, FUNCTION, [function])
    signature, result = found["signature"], found["result"]
    hidden = signature.replace(f".{function}(", ".really(")
    call = f"pgdrip.really({found['names'] or ''})"
    done = {"void": f"perform {call};"}.get(result, f"return {call};")
    if result.startswith("SETOF"):
        done = f"return query select * from {call};"
    db.execute(
        f"alter function {signature} rename to really;"
        f"create function pgdrip.{function}({found['arguments']}) returns {result}"
        f" language plpgsql as $$ begin perform pg_advisory_xact_lock_shared({LOCK});"
        f" {done} end $$".encode()
    )
    return f"drop function {signature}; alter function {hidden} rename to {function}"


@contextmanager
def mover(two: Cluster, bucket: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that moves a bucket to shard 2; killed at the end."""
    command = [sys.executable, "-m", "pgdrip", "--dsn", two.dsn, "shard", "move"]
    process = subprocess.Popen(
        [*command, str(bucket), "--to", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def awaits_lock(db: Db, process: "subprocess.Popen[str]") -> None:
    """Return once somebody in this database waits for the lock."""
    waiting = (
        "select from pg_locks where locktype = 'advisory' and not granted and database"
        " = (select oid from pg_database where datname = current_database())"
    )
    deadline = time.monotonic() + 20
    while not db.execute(waiting.encode()).rowcount:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def killed_there(two: Cluster, bucket: int, db: Db) -> None:
    """Kill a mover with its sessions as soon as it waits for the lock."""
    with mover(two, bucket) as process:
        awaits_lock(db, process)
    db.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name in ('pgdrip-shard', 'pgdrip')"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_mover_killed_anywhere_loses_nothing_and_doubles_nothing(
    two: Cluster, stage: str
) -> None:
    database, function, place = STAGES[stage]
    people(two)
    before = history(two)
    with stopped_at(two, database, function) as db:
        killed_there(two, 0, db)
    # Whoever runs meanwhile: each step goes out once.
    keys = [key for db in two.shards.values() for key in deliver(db)]
    assert len(keys) == (24 if place == "arrivals" else 32)
    done = two.pgdrip("shard", "move", "--resume")
    assert done.exit_code == 0, done.output
    keys += [key for db in two.shards.values() for key in deliver(db)]
    assert sorted(keys) == sorted(f"{row['enrollment_id']}:1" for row in before)
    rest = "select count(*) as n from pgdrip.contacts where bucket = 0"
    assert two.everywhere(rest) == {1: [{"n": 0}], 2: [{"n": 8}]}
    assert every(two.router, "select from pgdrip.moves") == []
    assert two.sums("select count(*) from pgdrip.arrivals") == 0
    assert two.violations() == []
