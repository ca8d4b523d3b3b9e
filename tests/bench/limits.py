"""What limits cost: of those that may not send, of those that may, of waiting."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg

from bench.daemon import cores, runner
from bench.figure import Figure, Found, experiment
from bench.fleet import Fleet
from bench.plan import Bench
from bench.workers import Done, Turn, Workers

SENDERS = 1000
TAKEN = 2
CLAIMS = 500
"""Of one turn; two messages each: a sender's burst."""
OWN = 10_000
"""What the free sender has to send where it is alone."""
SEEDS = 80
"""Messages an hour of a sender, in the fleet this began with."""

# The first sender is free and has work of its own; the others may not send.
ONE_FREE = """
update pgdrip.due set sender_id = 1 where enrollment_id <= 20000;
update pgdrip.paces set next_at = pgdrip.clock() - interval '3 hours',
       floor_at = 'epoch' where sender_id = 1;
vacuum analyze;
"""
STATES = {
    "over their limit": """
select pgdrip.resume_sender(name) from pgdrip.senders where status = 'paused';
update pgdrip.senders set rate_per_hour = 80, burst = 1 where sender_id > 1;
update pgdrip.paces set tat = pgdrip.clock() + interval '1 hour',
       ready_at = pgdrip.clock() + interval '1 hour' where sender_id > 1;
vacuum pgdrip.senders, pgdrip.paces;
""",
    "paused": """
select pgdrip.pause_sender(name, 'repair') from pgdrip.senders where sender_id > 1;
vacuum pgdrip.senders, pgdrip.paces;
""",
}
# A turn is a burst: else it would wait for the free sender's own limit.
FREE = "update pgdrip.paces set tat = 'epoch', ready_at = 'epoch' where sender_id = 1;"
RESTED = """
update pgdrip.paces set tat = 'epoch', ready_at = 'epoch', floor_at = 'epoch',
       next_at = pgdrip.clock() - interval '3 hours';
vacuum pgdrip.paces;
"""
SPREAD = """
update pgdrip.paces as p set tat = n.at, ready_at = n.at
  from (select sender_id, pgdrip.clock() + random() * interval '45 s' as at
          from pgdrip.paces) as n
 where n.sender_id = p.sender_id;
"""


@experiment("blocked senders")
def blocked_senders(bench: Bench) -> Iterator[Found]:
    """One free sender behind a thousand that may not send."""
    rows = bench.scale.enrollments
    crowd = Fleet(rows, due=rows, senders=SENDERS + 1)
    few = Fleet(OWN, due=OWN, senders=1)
    turn = Turn(TAKEN, steps=TAKEN * CLAIMS)
    done: dict[str, list[Done]] = {state: [] for state in ("alone", *STATES)}
    with ExitStack() as stack:
        quiet, crowded = (stack.enter_context(bench.copy(one)) for one in (few, crowd))
        statements(crowded, ONE_FREE)
        alone, behind = (stack.enter_context(Workers(d, 1)) for d in (quiet, crowded))
        for team in (alone, behind):
            team.turn(Turn(TAKEN, steps=TAKEN))
        for _ in range(bench.scale.rounds):
            statements(quiet, FREE)
            done["alone"].append(alone.turn(turn))
            for state, change in STATES.items():
                statements(crowded, change + FREE)
                done[state].append(behind.turn(turn))
    for state in STATES:
        yield Figure(
            f"p99 of claim behind {SENDERS:,} senders {state}, {rows:,} due rows",
            [p99(a) / p99(b) for a, b in zip(done[state], done["alone"], strict=True)],
            "x alone",
            at_most=2,
            notes=[claim_times(name, done[name]) for name in ("alone", state)],
        )


def p99(done: Done) -> float:
    return statistics.quantiles(done.claims, n=100)[98]


def claim_times(name: str, done: list[Done]) -> str:
    """A note: median and 99th percentile over all rounds."""
    times = [1000 * took for one in done for took in one.claims]
    last = statistics.quantiles(times, n=100)[98]
    return (
        f"claim of {TAKEN} {name} {statistics.median(times):.2f} ms, p99 {last:.2f} ms"
    )


@experiment("limits on")
def limits_on(bench: Bench) -> Iterator[Found]:
    """As many as the limit lets out, one of each sender; without limits as many."""
    rows = bench.scale.enrollments
    cost: dict[int | None, list[float]] = {SEEDS: [], None: []}
    with ExitStack() as stack:
        dsns = {rate: stack.enter_context(bench.copy()) for rate in cost}
        for rate, dsn in dsns.items():
            set_rate(dsn, rate)
        teams = {rate: stack.enter_context(Workers(dsns[rate], 1)) for rate in cost}
        for number in range(1 + bench.scale.rounds):
            for rate, team in teams.items():
                statements(dsns[rate], RESTED)
                done = team.turn(Turn(500, steps=3000))
                assert done.steps == 3000, done.steps
                if number:
                    cost[rate].append(1e6 * sum(done.claims) / done.steps)
    with_limits, without = cost[SEEDS], cost[None]
    yield Figure(
        f"claim for each step handed out, {SEEDS}/h on 3,000 senders, {rows:,} due",
        [a / b for a, b in zip(with_limits, without, strict=True)],
        "x limits off",
        at_most=1.5,
        notes=[
            f"with limits {statistics.median(with_limits):.0f} µs,"
            f" without {statistics.median(without):.0f} µs"
        ],
    )


@experiment("blocked queue")
def blocked_queue(bench: Bench) -> Iterator[Found]:
    """A waiting runner lets out what limits allow, 67 a second, of a long queue."""
    rows = bench.scale.enrollments
    with (
        bench.copy() as dsn,
        psycopg.connect(dsn, autocommit=True) as db,
    ):
        set_rate(dsn, SEEDS)
        statements(dsn, SPREAD)
        with runner(db, dsn):
            cores(db, 3)  # it has begun
            sent = reported(db)
            used = [
                100 * cores(db, 2 * bench.scale.seconds)
                for _ in range(bench.scale.rounds)
            ]
            sent = reported(db) - sent
    seconds = 2 * bench.scale.seconds * bench.scale.rounds
    yield Figure(
        f"database CPU of a runner before {rows:,} rows blocked by {SEEDS}/h",
        used,
        "% of a core",
        at_most=10,
        notes=[f"{sent / seconds:.0f} steps/s went out meanwhile"],
    )


def set_rate(dsn: str, rate: int | None) -> None:
    with psycopg.connect(dsn) as db:
        db.execute("update pgdrip.senders set rate_per_hour = %s, burst = 1", [rate])


def reported(db: psycopg.Connection[tuple[object, ...]]) -> int:
    row = db.execute(
        "select count(*) from pgdrip.deliveries where event = 'sent'"
    ).fetchone()
    assert row
    return int(str(row[0]))


def statements(dsn: str, text: str) -> None:
    """Each of them in a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("set session_replication_role = replica")
        for statement in text.split(";"):
            if statement.strip():
                db.execute(statement.encode())
