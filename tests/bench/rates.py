"""Steps a second, as a share of the limit: the same clients, batch, rows and minute."""

from collections.abc import Iterator

from bench import fleet, limit
from bench.figure import Figure, Found, experiment, rates, ratios
from bench.meter import Spent, metered
from bench.plan import Bench
from bench.workers import Done, Turn, Workers

CLIENTS = 4
HEADROOM = 40_000
"""Steps a second that no turn is expected to exceed."""
ASKED = {500: (0.35, 0.28), 50: (0.15, 0.15), 1: (0.02, 0.02)}
ENGINE = ("due", "enrollments", "deliveries", "paces", "wakes")


@experiment("batch 500")
def batch_500(bench: Bench) -> Iterator[Found]:
    yield from against_limit(bench, 500)


@experiment("batch 50")
def batch_50(bench: Bench) -> Iterator[Found]:
    yield from against_limit(bench, 50)


@experiment("batch 1")
def batch_1(bench: Bench) -> Iterator[Found]:
    yield from against_limit(bench, 1)


def against_limit(bench: Bench, batch: int) -> Iterator[Found]:
    """Claim and report, with and without begin_send between them."""
    turns = {
        "claim + report": Turn(batch, seconds=bench.scale.seconds),
        "claim + begin_send + report": Turn(
            batch, begins=True, seconds=bench.scale.seconds
        ),
    }
    limits: list[float] = []
    done: dict[str, list[tuple[Done, Spent]]] = {name: [] for name in turns}
    with bench.copy() as dsn, Workers(dsn, CLIENTS) as workers:
        workers.turn(Turn(batch, begins=True, seconds=0.5))
        for _ in range(bench.scale.rounds):
            fleet.make_due(dsn, due_for(bench, len(turns)))
            limits.append(limit_rate(bench, dsn, clients=CLIENTS, batch=batch))
            for name, turn in turns.items():
                with metered(dsn, *ENGINE) as spent:
                    one = workers.turn(turn)
                done[name].append((one, spent))
    for (name, found), asked in zip(done.items(), ASKED[batch], strict=True):
        ours = [one.rate for one, _ in found]
        notes = [rates(ours, "ours"), rates(limits, "limit"), *costs(found)]
        yield Figure(
            f"{name}, batch {batch}, {CLIENTS} workers",
            ratios(ours, limits),
            "x limit",
            at_least=asked,
            notes=notes,
        )


def due_for(bench: Bench, turns: int) -> int:
    """Enough for so many turns, but never more than half of the fleet."""
    needed = HEADROOM * bench.scale.seconds * turns
    return int(min(needed, bench.scale.enrollments / 2))


def limit_rate(bench: Bench, dsn: str, *, clients: int, batch: int) -> float:
    seconds = max(1, round(bench.scale.seconds))  # pgbench counts in whole ones
    rows = fleet.limit_rows(bench.usual)
    found, _ = limit.rate(
        bench.cluster, dsn, clients=clients, batch=batch, seconds=seconds, rows=rows
    )
    return found


def costs(found: list[tuple[Done, Spent]]) -> list[str]:
    """Notes: what a step cost the database and the clients."""
    steps = sum(done.steps for done, _ in found)
    seconds = sum(done.seconds for done, _ in found)

    def each(total: float) -> float:
        return total / max(1, steps)

    return [
        f"WAL {each(sum(s.wal for _, s in found)):,.0f} B/step",
        f"{each(sum(s.dead for _, s in found)):.2f} dead,"
        f" {each(sum(s.hot for _, s in found)):.2f} HOT tuples/step",
        f"database CPU {1e6 * each(sum(s.cpu for _, s in found)):,.0f} µs/step",
        f"clients' CPU {sum(d.cpu for d, _ in found) / seconds:.2f} cores",
    ]
