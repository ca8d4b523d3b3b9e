"""Whether the rate keeps up: with workers, with the size of tables, without ANALYZE."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench import fleet
from bench.figure import Figure, Found, Points, experiment, rates, ratios
from bench.fleet import Fleet
from bench.plan import Bench
from bench.rates import due_for
from bench.workers import Turn, Workers

BATCH = 500
CLIENTS = 4
WORKERS = (1, 2, 4, 8)


@experiment("workers")
def workers(bench: Bench) -> Iterator[Found]:
    found: dict[int, list[float]] = {count: [] for count in WORKERS}
    turn = Turn(BATCH, seconds=bench.scale.seconds)
    with bench.copy() as dsn, Workers(dsn, max(WORKERS)) as all_of_them:
        all_of_them.turn(Turn(BATCH, seconds=0.5))
        for _ in range(bench.scale.rounds):
            fleet.make_due(dsn, due_for(bench, len(WORKERS)))
            for count in WORKERS:
                found[count].append(all_of_them.turn(turn, count).rate)
    yield Figure(
        f"claim + report, batch {BATCH}, 8 workers against 4",
        ratios(found[8], found[4]),
        "x",
        at_least=0.9,
        notes=[rates(found[count], f"{count} workers") for count in WORKERS],
    )
    yield Points("claim + report", "workers", medians(found))


@experiment("sizes")
def sizes(bench: Bench) -> Iterator[Found]:
    """Scaled down to a minute; `large` does the whole."""
    due = bench.scale.enrollments // 10
    fleets = [
        Fleet(due, due=due),
        Fleet(3 * due, due=due),
        Fleet(9 * due, due=due, history=1),
    ]
    yield from beside(bench, fleets)


@experiment("large", is_large=True)
def large(bench: Bench) -> Iterator[Found]:
    fleets = [
        Fleet(500_000, due=500_000),
        Fleet(2_000_000, due=500_000),
        Fleet(10_500_000, due=500_000, history=5),
    ]
    yield from beside(bench, fleets)


def beside(bench: Bench, fleets: Sequence[Fleet]) -> Iterator[Found]:
    """The rate on each, in turns; the last is held against the first."""
    found = in_turns(bench, fleets)
    largest = fleets[-1]
    future = largest.enrollments - largest.due
    yield Figure(
        f"the same with {future:,} future rows and"
        f" {largest.enrollments * largest.history:,} of history",
        ratios(found[-1], found[0]),
        "x the small table",
        at_least=0.9,
        notes=[
            rates(values, f"{one.enrollments:,} enrollments")
            for one, values in zip(fleets, found, strict=True)
        ],
    )
    measured = {
        one.enrollments: values for one, values in zip(fleets, found, strict=True)
    }
    yield Points("claim + report", "enrollments", medians(measured))


@experiment("analyze")
def analyze(bench: Bench) -> Iterator[Found]:
    """The planner knows nothing, as after a restore."""
    rows = bench.scale.enrollments // 10
    told, untold = in_turns(
        bench, [Fleet(rows, due=rows), Fleet(rows, due=rows, is_analyzed=False)]
    )
    yield Figure(
        f"claim + report without ANALYZE against with, {rows:,} enrollments",
        ratios(untold, told),
        "x",
        at_least=0.8,
        notes=[rates(told, "with"), rates(untold, "without")],
    )


def in_turns(bench: Bench, fleets: Sequence[Fleet]) -> list[list[float]]:
    """Rates on each of the fleets, round by round."""
    turn = Turn(BATCH, seconds=bench.scale.seconds)
    found: list[list[float]] = [[] for _ in fleets]
    with ExitStack() as stack:
        dsns = [stack.enter_context(bench.copy(one)) for one in fleets]
        teams = [stack.enter_context(Workers(dsn, CLIENTS)) for dsn in dsns]
        for team in teams:
            team.turn(Turn(BATCH, seconds=0.5))
        for _ in range(bench.scale.rounds):
            for one, dsn, team, values in zip(fleets, dsns, teams, found, strict=True):
                fleet.make_due(dsn, min(due_for(bench, 1), one.due * 9 // 10))
                values.append(team.turn(turn).rate)
    return found


def medians(found: dict[int, list[float]]) -> list[tuple[float, float]]:
    return [(x, sorted(values)[len(values) // 2]) for x, values in found.items()]
