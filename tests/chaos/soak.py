"""python -m chaos.soak [--minutes N] [--seed N]: hours of work in steady flow, a fault
every 30 s, and a look each minute at what must not grow.

Somebody enrolls all the time, so that as many steps wait as come to an end. Half-way
through a run of half an hour or more, a month of history is retired. Two of the four
runners are spared what kills, so that their memory can be judged; everything else
happens to them, too. Exits 1 when something was lost, sent twice or has grown.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Self

import psycopg

from chaos.gateway import Entry
from chaos.judge import EVENTS, Events, held_against, judge
from chaos.process import connections, files, memory
from chaos.verdict import SHOWN, Verdict
from chaos.world import ROOMY, TIGHT, Plan, World

WARM_UP = 300.0  # seconds, of a run that is long enough
MORE = 10  # files or connections, within which they go up and down
FACTOR = 150
MONTH_ENDS = datetime(2026, 2, 1, tzinfo=UTC)
KEPT = timedelta(days=1)  # of history
MARGIN = 3600  # clock seconds a report may take until it is seen
TABLE = """
select pg_total_relation_size('pgdrip.due') as size, n_dead_tup as dead,
       (select count(*) from pgdrip.due) as rows,
       (select count(distinct month_at) from pgdrip.history_sums) as retired
  from pg_stat_user_tables where relid = 'pgdrip.due'::regclass
"""
HEAD = (
    "minute faults accepted  live rows  dead rows  table MB  retired"
    "  memory MB     connections  files    broken"
)


def plan(minutes: float, seed: int) -> Plan:
    seconds = minutes * 60
    delay = min(96.0, seconds / 10)  # real
    return Plan(
        name="soak",
        seed=seed,
        on_uncertain="retry",
        keeps_keys=True,
        pause=30,
        seconds=seconds,
        drain=2 * delay + 120,
        people=12,
        spread=1,
        checked_every=60,
        spared=2,
        start=MONTH_ENDS + KEPT - timedelta(seconds=FACTOR * seconds / 2),
        factor=FACTOR,
        delay=round(delay * FACTOR),
        per_tight=0,
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """What is seen at a time. Of each spared runner: `memory` in kB that is resident,
    `connections` to the database, open `files`. Of the table of due steps: `size` in
    bytes with its indexes, `dead` and live `rows`. `retired` months of history.
    `broken`: what no rule allows."""

    seconds: float
    faults: int
    accepted: int
    rows: int
    dead: int
    size: int
    retired: int
    memory: tuple[int, ...]
    connections: tuple[int, ...]
    files: tuple[int, ...]
    broken: tuple[str, ...]

    def __str__(self) -> str:
        of_each = (
            "/".join(f"{kb / 1024:.1f}" for kb in self.memory),
            "/".join(map(str, self.connections)),
            "/".join(map(str, self.files)),
        )
        return (
            f"{self.seconds / 60:6.1f}{self.faults:7}{self.accepted:9}{self.rows:11}"
            f"{self.dead:11}{self.size / 1e6:10.2f}{self.retired:9}"
            "  {:<14}{:<13}{:<9}".format(*of_each)
            + str(len(self.broken))
        )


class Soak(World):
    """A world in which people come evenly, one of twelve over a tight sender."""

    def sender(self, number: int) -> str:
        turn, place = divmod(number, ROOMY)
        return f"roomy-{place}" if place else f"tight-{turn % TIGHT}"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.query("select pgdrip.set_retention(%s)", KEPT)
        self.samples: list[Sample] = []
        self._entries: list[Entry] = []
        self._past: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._read_until = 0.0
        return self

    @property
    def past(self) -> Events:
        """Every event of the journal so far, retired or not."""
        return [*self._past.values()]

    async def watch(self, every: float, shown: float) -> None:
        """Take a sample each so many seconds and print one for each `shown`."""
        print(HEAD, flush=True)
        began = time.monotonic()
        while True:
            taken = time.monotonic() - began
            try:
                sample = await self._sample(taken)
            except (psycopg.OperationalError, FileNotFoundError, ProcessLookupError):
                # No server at the moment, or a runner that has just ended.
                await asyncio.sleep(1)
                continue
            self.samples.append(sample)
            if round(taken / every) % round(shown / every) == 0 or sample.broken:
                print(sample, flush=True)
            await asyncio.sleep(every - (time.monotonic() - began) % every)

    async def _sample(self, taken: float) -> Sample:
        broken = await self.check() + await self._audit()
        [table] = await self.query(TABLE)
        spared = self.runners.all[: self.plan.spared]
        pids = [one.process.pid for one in spared if one.process and one.is_up]
        return Sample(
            seconds=taken,
            faults=self.injector.done.total(),
            accepted=sum(one.accepted for one in self._entries),
            **table,
            memory=tuple(map(memory, pids)),
            connections=tuple(connections(pid, self.proxy.port) for pid in pids),
            files=tuple(map(files, pids)),
            broken=tuple(broken),
        )

    def _ledger(self) -> list[Entry]:
        """So far; only what is new is read."""
        self._entries += self.gateway.ledger(len(self._entries))
        return self._entries.copy()

    async def _audit(self) -> list[str]:
        """Hold the ledger against the tables while messages are on their way: what is
        sent was accepted before, what is accepted had begun before."""
        now = self.clock.now()
        before = self._ledger()
        events = await self.query(EVENTS, self._read_until - MARGIN)
        after = self._ledger()
        self._past |= {tuple(e.values()): e for e in events if e["event"] != "live"}
        self._read_until = now
        told = [*self._past.values(), *(e for e in events if e["event"] == "live")]
        early = await asyncio.to_thread(held_against, self, before, told)
        late = await asyncio.to_thread(held_against, self, after, told)
        return [
            *(f"L1 {key}" for key in late.lost),
            *(f"L2 {key}" for key in early.unexpected),
            *(f"L3 {key}" for key in early.duplicated),
            *(f"L5 {key}" for key in early.disordered),
            *(f"L6 {key}" for key in early.too_many),
        ]


def grown(samples: Sequence[Sample], warm_up: float) -> tuple[list[str], list[str]]:
    """What became of each measure once everything was warm; and complaints.

    Memory and table: the highest against the first. Connections and files go up and
    down with what is under way: the middle of the last third against that of the first.
    """
    warm = [one for one in samples if one.seconds >= warm_up]
    third = max(1, len(warm) // 3)
    told, complaints = [], []

    def highest(name: str, values: list[int], limit: float) -> None:
        growth = max(values) / values[0]
        told.append(f"{name}: {growth:.3f} times its size at most")
        if growth >= limit:
            complaints.append(f"{name} has grown to {growth:.3f} times its size")

    def middle(name: str, values: list[int]) -> None:
        first, last = median(values[:third]), median(values[-third:])
        told.append(f"{name}: {first:g} at first, {last:g} at last")
        if last > first + MORE:
            complaints.append(f"{name} went from {first:g} to {last:g}")

    for place in range(len(warm[0].memory)):
        one = f"runner {place + 1}"
        highest(f"memory of {one}", [s.memory[place] for s in warm], 1.05)
        middle(f"connections of {one}", [s.connections[place] for s in warm])
        middle(f"files of {one}", [s.files[place] for s in warm])
    highest("table of due steps", [s.size for s in warm], 2)
    return told, complaints


async def play(plan: Plan, home: Path) -> tuple[Soak, Verdict]:
    """Play it in an empty directory and print a dozen samples; the world afterwards."""
    every = min(60, plan.seconds / 24)
    async with Soak(plan, home) as soak, asyncio.TaskGroup() as group:
        watch = group.create_task(soak.watch(every, plan.seconds / 12))
        await soak.play()
        watch.cancel()
        return soak, Verdict.of(soak, await judge(soak, soak.past))


def found(soak: Soak) -> tuple[list[str], list[str]]:
    """What became of each measure; and complaints."""
    plan, samples = soak.plan, soak.samples
    flowing = [one for one in samples if one.seconds <= plan.seconds]
    told, complaints = grown(flowing, min(WARM_UP, plan.seconds / 2))
    for one in soak.runners.all[: plan.spared]:
        if len(one.exits) > 1:
            complaints.append(f"{one.name} was not spared")
    if plan.start < MONTH_ENDS and not samples[-1].retired:
        complaints.append("no month of history was retired")
    broken = [rule for one in samples for rule in one.broken]
    return told, complaints + broken[:SHOWN]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    soak, verdict = asyncio.run(play(plan(told.minutes, told.seed), home))
    measures, complaints = found(soak)
    print(*measures, verdict, *(f"  ✗ {one}" for one in complaints), sep="\n")
    if is_bad := bool(complaints or verdict.complaints):
        print(f"ledger and logs are in {home}", file=sys.stderr)
    else:
        shutil.rmtree(home)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
