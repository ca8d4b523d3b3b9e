"""Clients of the engine, each a process with one connection: claim, begin, report.

They call the public functions by prepared statements, take every column in binary form
and read the two that they need, so that the database and not Python sets the pace.
"""

import multiprocessing
import resource
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import psycopg

CLAIM = b"select * from pgdrip.claim(%s, %s)"
BEGIN = b"select pgdrip.begin_send(%b::bigint[], %b::bigint[])"
REPORT = b"select * from pgdrip.report(%b::bigint[], %b::bigint[], %b::text[])"

PATIENCE = 30
"""Seconds of claims without a message: something is wrong."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the workers do in one turn, for so long or up to so many steps in all."""

    batch: int
    begins: bool = False
    seconds: float = 3600.0
    steps: int = 1 << 62


@dataclass(slots=True)
class Done:
    """What one worker, or several together, did in a turn."""

    steps: int = 0
    rate: float = 0.0
    cpu: float = 0.0
    """Seconds of the clients' processes."""
    seconds: float = 0.0
    claims: list[float] = field(default_factory=list)
    """How long each claim that brought something took, in seconds."""
    claimed: list[int] = field(default_factory=list)
    """How many messages each of them brought."""


class Workers:
    """So many processes, connected all the while; each turn is done by some of them."""

    def __init__(self, dsn: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes = []
        self._pipes: list[Connection] = []
        for number in range(1, count + 1):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(dsn, f"runner-{number}", theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def turn(self, what: Turn, count: int | None = None) -> Done:
        """What `count` of them, or all, did in this turn."""
        pipes = self._pipes[:count]
        start_at = time.monotonic() + 0.02
        share = -(-what.steps // len(pipes))
        for pipe in pipes:
            pipe.send((what, share, start_at))
        return together([pipe.recv() for pipe in pipes])


def together(parts: Sequence[Done]) -> Done:
    whole = Done()
    for part in parts:
        whole.steps += part.steps
        whole.rate += part.rate
        whole.cpu += part.cpu
        whole.seconds = max(whole.seconds, part.seconds)
        whole.claims += part.claims
        whole.claimed += part.claimed
    return whole


def serve(dsn: str, name: str, pipe: Connection) -> None:
    """A worker: turns as they are asked for, until the other end is closed."""
    with (
        psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as db,
        suppress(EOFError),
    ):
        while True:
            what, share, start_at = pipe.recv()
            time.sleep(max(0.0, start_at - time.monotonic()))
            pipe.send(work(db, name, what, share))


def work(
    db: psycopg.Connection[tuple[object, ...]], name: str, what: Turn, share: int
) -> Done:
    done = Done()
    cursor = db.cursor(binary=True)
    cpu, began_at = cpu_seconds(), time.perf_counter()
    got_at = began_at
    while done.seconds < what.seconds and done.steps < share:
        before = time.perf_counter()
        cursor.execute(CLAIM, (name, what.batch))
        took = time.perf_counter() - before
        ids, tokens = columns(cursor, 0), columns(cursor, 1)
        if ids:
            done.claims.append(took)
            done.claimed.append(len(ids))
            if what.begins:
                cursor.execute(BEGIN, (ids, tokens))
            cursor.execute(REPORT, (ids, tokens, ["sent"] * len(ids)))
            done.steps += len(ids)
            got_at = time.perf_counter()
        done.seconds = time.perf_counter() - began_at
        if time.perf_counter() - got_at > PATIENCE:
            raise SystemExit("nothing is due, or whatever is belongs to others")
    done.cpu = cpu_seconds() - cpu
    done.rate = done.steps / done.seconds
    db.execute("select pg_stat_force_next_flush()")
    return done


def columns(cursor: psycopg.Cursor[tuple[object, ...]], column: int) -> list[int]:
    """One column of 8-byte integers, out of the rows as they came."""
    result = cursor.pgresult
    assert result is not None
    return [
        struct.unpack("!q", result.get_value(row, column) or b"")[0]
        for row in range(result.ntuples)
    ]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
