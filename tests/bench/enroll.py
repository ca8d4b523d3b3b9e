"""Enrolling by triggers, beside the two bare rows that an enrollment at least is."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import psycopg
from psycopg import sql

from bench import fleet
from bench.daemon import Db
from bench.figure import Figure, Found, experiment, rates, ratios
from bench.plan import Bench

BATCH = 1000
CALLS = 10
"""Sweeps of a round."""
SINGLE = 500
"""Single calls of a round."""
WAYS = 3
"""Newcomers enter by a call, as rows of bare tables, as rows of the engine's own."""

BARE = b"""
create schema bench_bare;
create table bench_bare.enrollments
  (like pgdrip.enrollments including all excluding constraints) with (fillfactor = 50);
create table bench_bare.due
  (like pgdrip.due including all excluding constraints) with (fillfactor = 50);
"""
INSERT = """
with e as (
  insert into {schema}.enrollments
    (contact_id, sequence_id, version_id, sender_id, trigger_id, enrolled_at)
  select n, q.sequence_id, q.version_id, 1 + n * 7919 %% 3000, n, now()
    from unnest(%s::bigint[]) as n, pgdrip.sequences as q where q.name = 'NEW'
  returning enrollment_id, sender_id
)
insert into {schema}.due (enrollment_id, sender_id, step, due_at)
select enrollment_id, sender_id, 1, now() from e
"""
NEWCOMERS = """
insert into pgdrip.contacts (phone, name, bucket)
select '+6013' || lpad(n::text, 8, '0'), 'Newcomer ' || n, n %% 1024
  from generate_series(1, %s) as n
returning contact_id
"""

People = list[object]


@experiment("enroll")
def enroll(bench: Bench) -> Iterator[Found]:
    """Newcomers, who have no sender yet, enter a sequence beside the fleet's."""
    swept, added = CALLS * BATCH, SINGLE
    with bench.copy() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        db.execute(BARE)
        fleet.sequence(db, name="NEW", trigger="NEW")
        wanted = WAYS * (swept + added) * (bench.scale.rounds + 1)
        newcomers = (row[0] for row in db.execute(NEWCOMERS, [wanted]).fetchall())
        db.execute("analyze pgdrip.contacts")

        def people(count: int) -> People:
            return list(islice(newcomers, count))

        found: list[tuple[float, ...]] = []
        for number in range(bench.scale.rounds + 1):
            one = (
                sweep(db, people(swept)),
                bare(db, "bench_bare", people(swept), BATCH),
                bare(db, "pgdrip", people(swept), BATCH),
                single(db, people(added)),
                bare(db, "bench_bare", people(added), 1),
                bare(db, "pgdrip", people(added), 1),
            )
            if number:  # the first has no plans yet
                found.append(one)
    sweeps, bare_sets, own_sets, singles, bare_rows, own_rows = zip(*found, strict=True)
    yield Figure(
        f"enroll_waiting({BATCH}), against two bare rows each, {BATCH} at once",
        ratios(sweeps, bare_sets),
        "x",
        at_least=0.4,
        notes=[
            rates(sweeps, "enrolled"),
            rates(bare_sets, "bare"),
            rates(own_sets, "bare, with the checks and foreign keys"),
        ],
    )
    yield Figure(
        "add_trigger of one contact, against two bare rows",
        ratios(singles, bare_rows),
        "x",
        at_least=0.4,
        notes=[
            rates(singles, "enrolled"),
            rates(bare_rows, "bare"),
            rates(own_rows, "bare, with the checks and foreign keys"),
        ],
    )


def rate(work: Callable[[], object], count: int) -> float:
    began_at = time.perf_counter()
    work()
    return count / (time.perf_counter() - began_at)


def bare(db: Db, schema: str, contacts: People, size: int) -> float:
    """The rows of enrollments, so many at once, into tables of the same columns and
    indexes: bare ones, or those of the engine with their checks and foreign keys."""
    query = sql.SQL(INSERT).format(schema=sql.Identifier(schema))

    def work() -> None:
        for at in range(0, len(contacts), size):
            db.execute(query, [contacts[at : at + size]], prepare=True)

    return rate(work, len(contacts))


def sweep(db: Db, contacts: People) -> float:
    """Their words are there, as COPY brings them; enrolled a second."""
    with db.cursor().copy(
        "copy pgdrip.contact_triggers (contact_id, trigger) from stdin"
    ) as copy:
        for contact in contacts:
            copy.write_row((contact, "NEW"))

    def work() -> None:
        for _ in range(CALLS):
            found = db.execute("select pgdrip.enroll_waiting(%s)", [BATCH]).fetchone()
            assert found == (BATCH,), found

    return rate(work, len(contacts))


def single(db: Db, contacts: People) -> float:
    def work() -> None:
        for contact in contacts:
            query = "select pgdrip.add_trigger(%s, 'NEW')"
            assert db.execute(query, [contact], prepare=True).fetchone()

    return rate(work, len(contacts))
