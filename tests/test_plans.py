"""What the hot functions read beside 50,000 due rows of senders that may not send,
100,000 lines of history and 50,000 words that wait: no more than their batch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import fleet
import stage
from bench.fleet import Fleet, load
from databases import Databases
from stage import Db

PAUSED, ROWS = 1000, 50
CLAIMS, TAKEN = 5, 10

BACKLOG = b"""
with senders as (
  insert into pgdrip.senders (name, channel, rate_per_hour, status, status_reason)
  select 'paused-' || n, 'webhook', 80, 'paused', 'repair'
    from generate_series(1, %(senders)s) as n
  returning sender_id
), paces as (
  insert into pgdrip.paces (sender_id, channel, next_at)
  select sender_id, 'webhook', pgdrip.clock() - interval '10 days' from senders
), contacts as (
  insert into pgdrip.contacts (phone, bucket, sender_id)
  select '+61' || (100000000 + sender_id * 1000 + n), 0, sender_id
    from senders, generate_series(1, %(rows)s) as n
  returning contact_id, sender_id
), enrollments as (
  insert into pgdrip.enrollments
    (contact_id, sequence_id, version_id, sender_id, enrolled_at)
  select contact_id, 1, 1, sender_id, pgdrip.clock() from contacts
  returning enrollment_id, sender_id
)
insert into pgdrip.due (enrollment_id, sender_id, step, due_at)
select enrollment_id, sender_id, 1,
       pgdrip.clock() - enrollment_id %% 997 * interval '1 minute'
  from enrollments
"""
HISTORY = b"""
insert into pgdrip.deliveries
  (at, enrollment_id, token, event, step, attempt, sender_id, due_at, begun_at, verdict)
select pgdrip.clock() - n * interval '1 second', e.enrollment_id, n, 'sent', 1, 1,
       e.sender_id, pgdrip.clock(), pgdrip.clock(), 'advanced'
  from (select row_number() over () as n, *
          from pgdrip.enrollments, generate_series(1, 2)) as e
"""
WORDS = b"""
insert into pgdrip.contact_triggers (contact_id, trigger)
select contact_id, 'LATER' from pgdrip.contacts order by contact_id limit 50000
"""
READ = """
select relname, seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) as rows
  from pg_stat_xact_user_tables
 where schemaname = 'pgdrip'
   and relname in ('senders', 'due', 'enrollments', 'contacts')
"""


def backlog(db: Db) -> None:
    """Due rows of senders that are paused."""
    with db.transaction():
        # Without looking up the parents of so many rows.
        db.execute("set local session_replication_role = replica")
        db.execute(BACKLOG, {"senders": PAUSED, "rows": ROWS})
        db.execute(HISTORY)
        db.execute(WORDS)


@pytest.fixture(scope="module")
def built(server: Databases) -> Iterator[Db]:
    """One active sender with work behind a thousand paused ones."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        for table in ("due", "enrollments", "contacts", "contact_triggers"):
            db.execute(
                f"alter table pgdrip.{table} set (autovacuum_enabled = off)".encode()
            )
        stage.sequence(db)
        stage.sequence(db, "LATER Sequence", trigger="LATER")
        backlog(db)
        stage.sender(db, "active", rate_per_hour=100_000, burst=1000)
        fleet.work(db, {"active": TAKEN * CLAIMS}, ["WARM"])
        claim(db)  # drains the wakes
        yield db


@pytest.fixture(scope="module", params=["", "vacuum", "analyze"])
def crowded(built: Db, request: pytest.FixtureRequest) -> Db:
    """The planner knows nothing, or how many rows there are, or what is in them."""
    if request.param:
        built.execute(request.param)
    return built


def claim(db: Db) -> list[stage.Row]:
    """What a claim read; its messages are sent."""
    with db.transaction():
        messages = stage.claim(db, TAKEN)
        read = stage.every(db, READ)
    assert [message["sender"] for message in messages] == ["active"] * TAKEN
    stage.begin(db, messages)
    assert stage.report(db, messages) == ["advanced"] * TAKEN
    return read


def test_a_claim_reads_every_sender_but_no_due_row_of_paused_ones(
    crowded: Db,
) -> None:
    claim(crowded)  # a session's counts reach back a second over its transactions
    crowded.execute("select pg_stat_force_next_flush()")
    read = claim(crowded)
    rows = {row["relname"]: row["rows"] for row in read}
    assert {row["relname"] for row in read if row["seq_scan"]} <= {"senders"}
    assert rows["senders"] <= 6 * (PAUSED + 1)
    assert max(rows["due"], rows["enrollments"], rows["contacts"]) <= 30 * TAKEN, rows


LARGE = ("due", "enrollments", "contacts", "contact_triggers", "deliveries")
"""Tables that grow, each with its indexes and partitions."""
MOST = 2 * PAUSED
"""Rows that one node of a plan may handle: every sender, or many batches."""
WATCH = b"""
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_analyze = on;
set auto_explain.log_timing = off;
set auto_explain.log_format = json;
set auto_explain.log_level = notice;
"""
BATCH = "%(ids)s::bigint[], %(tokens)s::bigint[]"
CALLS = {
    "begin_send": f"select pgdrip.begin_send({BATCH})",
    "report": f"select * from pgdrip.report({BATCH}, %(outcomes)s)",
    "next_wake": "select pgdrip.next_wake()",
    "enroll_waiting": "select pgdrip.enroll_waiting(10)",
}

Node = dict[str, Any]


@pytest.fixture
def watched(crowded: Db) -> Iterator[list[Node]]:
    with watching(crowded) as nodes:
        yield nodes


@contextmanager
def watching(db: Db) -> Iterator[list[Node]]:
    """Every node of every plan that is executed in a transaction, which is undone."""
    nodes: list[Node] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        _, _, plan = (diagnostic.message_primary or "").partition("plan:\n")
        if plan:
            nodes.extend(below(json.loads(plan)["Plan"]))

    try:
        db.execute(WATCH)
    except psycopg.errors.UndefinedFile:
        remedy = "no auto_explain on the server: apt-get install postgresql"
        if os.environ.get("PGDRIP_ALL_EXTENSIONS"):
            pytest.fail(remedy, pytrace=False)
        pytest.skip(remedy)
    db.add_notice_handler(notice)
    with db.transaction(force_rollback=True):
        yield nodes
    db.remove_notice_handler(notice)
    db.execute("set auto_explain.log_min_duration = -1")


def below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", []):
        yield from below(child)


def grows(node: Node) -> bool:
    """Whether it reads a table that grows."""
    return str(node.get("Relation Name", "")).startswith(LARGE)


def handled(node: Node) -> float:
    """Rows that a node returned or threw away, all its loops together."""
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return float(rows * node["Actual Loops"])


def plainly(node: Node) -> str:
    where = node.get("Index Name", node.get("Relation Name", ""))
    return f"{node['Node Type']} {where} {node.get('Filter', '')}: {handled(node):.0f}"


def assert_by_index(nodes: list[Node], most: int = MOST) -> None:
    """No sequential scan, and no node, a sort least of all, of more than batches."""
    assert [node for node in nodes if grows(node)], "nothing was seen"
    assert not [plainly(n) for n in nodes if n["Node Type"] == "Seq Scan" and grows(n)]
    sorts = [n for n in nodes if n["Node Type"] in ("Sort", "Incremental Sort")]
    handle = [n for n in nodes if grows(n)] + sorts
    assert not [plainly(n) for n in handle if handled(n) > most]


def unlimited(db: Db) -> None:
    db.execute(
        "update pgdrip.senders set rate_per_hour = null, burst = 1"
        " where name = 'active'"
    )


@pytest.mark.parametrize("is_limited", [True, False], ids=["limited", "unlimited"])
def test_a_claim_goes_by_the_index(
    crowded: Db, watched: list[Node], is_limited: bool
) -> None:
    if not is_limited:
        unlimited(crowded)
    watched.clear()
    assert len(stage.claim(crowded, TAKEN)) == TAKEN
    assert_by_index(watched)


@pytest.mark.parametrize("is_limited", [True, False], ids=["limited", "unlimited"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_goes_by_an_index(
    crowded: Db, watched: list[Node], call: str, is_limited: bool
) -> None:
    if not is_limited:
        unlimited(crowded)
    messages = stage.claim(crowded, TAKEN)
    values = {
        "ids": [message["enrollment_id"] for message in messages],
        "tokens": [message["token"] for message in messages],
        "outcomes": ["sent"] * TAKEN,
    }
    if call == "report":
        stage.begin(crowded, messages)
    watched.clear()
    assert stage.every(crowded, CALLS[call], values)
    assert_by_index(watched)


def test_a_contact_is_found_by_its_address_however_often_one_was_stored(
    server: Databases,
) -> None:
    """From the sixth call of a session on the plan knows no longer what is NULL."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        db.execute(
            "insert into pgdrip.contacts (phone, bucket)"
            " select '+601' || (10000000 + n), 0 from generate_series(1, 60000) as n"
        )
        db.execute("vacuum analyze pgdrip.contacts")
        with watching(db) as nodes:
            for number in range(10):
                stage.one(db, f"select pgdrip.upsert_contact('+6011999990{number}')")
        assert_by_index(nodes)


def test_where_nothing_was_ever_analyzed_a_step_reads_its_batch(
    server: Databases,
) -> None:
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        load(dsn, Fleet(50_000, due=50_000, is_analyzed=False))
        with watching(db) as nodes:
            assert len(stage.deliver(db, 500)) == 500
        assert_by_index(nodes, most=20_000)
