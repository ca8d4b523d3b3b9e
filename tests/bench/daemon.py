"""The real `pgdrip run`, in a process of its own, over a database of the run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

Db = psycopg.Connection[tuple[object, ...]]

BACKENDS = "select pid from pg_stat_activity where application_name = 'pgdrip-runner'"


@contextmanager
def runner(db: Db, dsn: str, *options: str) -> Iterator[int]:
    """A runner that is connected, with its default settings or these; its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgdrip", "run", *options],
        env=os.environ | {"PGDRIP_DSN": dsn},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: bool(db.execute(BACKENDS).fetchall()), "the runner connects")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def until(fact: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
    """Return once it is so."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise SystemExit(f"{seconds:.0f} s went by before {what}")
        time.sleep(0.05)


def backends_cpu(db: Db) -> float:
    """Seconds of the processor that the runner's sessions used so far; Linux."""
    return sum(
        int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        for (pid,) in db.execute(BACKENDS).fetchall()
    )


def cores(db: Db, seconds: float) -> float:
    """What of a core the runner's sessions use, looked at for so long."""
    cpu, began_at = backends_cpu(db), time.monotonic()
    time.sleep(seconds)
    return (backends_cpu(db) - cpu) / (time.monotonic() - began_at)
