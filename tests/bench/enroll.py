"""Enrolling by triggers, beside the two bare rows that an enrollment at least is."""

import time
from collections.abc import Callable, Iterator

import psycopg

from bench import fleet
from bench.daemon import Db
from bench.figure import Figure, Found, experiment, rates, ratios
from bench.plan import Bench

BATCH = 1000
CALLS = 10
"""Sweeps of a round."""
SINGLE = 500
"""Single calls of a round."""

BARE = b"""
create schema bench_bare;
create table bench_bare.enrollment (
  enrollment_id bigint generated always as identity primary key,
  contact_id bigint not null, sequence_id bigint not null,
  enrolled_at timestamptz not null default now());
create table bench_bare.step (
  enrollment_id bigint primary key, sender_id bigint not null, number integer not null,
  due_at timestamptz not null);
"""
INSERT = """
with e as (
  insert into bench_bare.enrollment (contact_id, sequence_id)
  select n, 1 from generate_series(1, %s) as n returning enrollment_id
)
insert into bench_bare.step (enrollment_id, sender_id, number, due_at)
select enrollment_id, 7, 1, now() from e
"""
NEWCOMERS = """
insert into pgdrip.contacts (phone, name, bucket)
select '+6013' || lpad(n::text, 8, '0'), 'Newcomer ' || n, n %% 1024
  from generate_series(1, %s) as n
returning contact_id
"""


@experiment("enroll")
def enroll(bench: Bench) -> Iterator[Found]:
    """Newcomers, who have no sender yet, enter a sequence beside the fleet's."""
    swept, added = CALLS * BATCH, SINGLE
    with bench.copy() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        db.execute(BARE)
        fleet.sequence(db, name="NEW", trigger="NEW")
        ids = [
            row[0]
            for row in db.execute(
                NEWCOMERS, [(swept + added) * (bench.scale.rounds + 1)]
            ).fetchall()
        ]
        db.execute("analyze pgdrip.contacts")
        people = iter(ids)
        found: list[tuple[float, float, float, float]] = []
        for number in range(bench.scale.rounds + 1):
            one = (
                rate(lambda: bare(db, BATCH, CALLS), swept),
                sweep(db, [next(people) for _ in range(swept)]),
                rate(lambda: bare(db, 1, added), added),
                single(db, [next(people) for _ in range(added)]),
            )
            if number:  # the first has no plans yet
                found.append(one)
    bare_sets, sweeps, bare_rows, singles = zip(*found, strict=True)
    yield Figure(
        f"enroll_waiting({BATCH}), against two bare rows each, {BATCH} at once",
        ratios(sweeps, bare_sets),
        "x",
        at_least=0.4,
        notes=[rates(sweeps, "enrolled"), rates(bare_sets, "bare")],
    )
    yield Figure(
        "add_trigger of one contact, against two bare rows",
        ratios(singles, bare_rows),
        "x",
        at_least=0.4,
        notes=[rates(singles, "enrolled"), rates(bare_rows, "bare")],
    )


def rate(work: Callable[[], object], count: int) -> float:
    began_at = time.perf_counter()
    work()
    return count / (time.perf_counter() - began_at)


def bare(db: Db, size: int, times: int) -> None:
    for _ in range(times):
        db.execute(INSERT, [size], prepare=True)


def sweep(db: Db, contacts: list[object]) -> float:
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


def single(db: Db, contacts: list[object]) -> float:
    def work() -> None:
        for contact in contacts:
            query = "select pgdrip.add_trigger(%s, 'NEW')"
            assert db.execute(query, [contact], prepare=True).fetchone()

    return rate(work, len(contacts))
