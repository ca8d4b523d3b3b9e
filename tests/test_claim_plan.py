"""What a claim costs beside a large backlog of senders that may not send."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

import fleet
import stage
from databases import Databases
from stage import Db

PAUSED, ROWS = 1000, 300
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
READ = """
select relname, seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) as rows
  from pg_stat_xact_user_tables
 where schemaname = 'pgdrip'
   and relname in ('senders', 'due', 'enrollments', 'contacts')
"""


def backlog(db: Db) -> None:
    """Due rows of senders that are paused."""
    with db.transaction():
        # Without looking up the parents of 900,000 rows.
        db.execute("set local session_replication_role = replica")
        db.execute(BACKLOG, {"senders": PAUSED, "rows": ROWS})


@pytest.fixture(scope="module")
def built(server: Databases) -> Iterator[Db]:
    """One active sender with work behind a thousand paused ones."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        db.execute("alter table pgdrip.due set (autovacuum_enabled = off)")
        stage.sequence(db)
        backlog(db)
        stage.sender(db, "active", rate_per_hour=100_000, burst=1000)
        fleet.work(db, {"active": TAKEN * CLAIMS}, ["WARM"])
        claim(db)  # drains the wakes
        yield db


@pytest.fixture(scope="module", params=[False, True], ids=["unanalyzed", "analyzed"])
def crowded(built: Db, request: pytest.FixtureRequest) -> Db:
    """Without and with statistics."""
    if request.param:
        built.execute("analyze")
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
