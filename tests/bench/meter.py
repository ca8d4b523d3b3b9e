"""What a piece of work cost the database: WAL, tuples, processor."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")
TUPLES = """
select coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_hot_upd), 0),
       coalesce(sum(n_tup_upd + n_tup_del), 0)
  from pg_stat_user_tables where relname = any (%s)
"""


@dataclass(slots=True)
class Spent:
    """Sums over the work; nothing yet while it goes on."""

    wal: int = 0
    """Bytes of the log, full-page images included."""
    images: int = 0
    """How many full-page images are among them."""
    updates: int = 0
    hot: int = 0
    dead: int = 0
    """Versions of rows that an update or a delete left behind."""
    cpu: float = 0.0
    """Seconds of the processor that all processes of the server used."""
    of: list[str] = field(default_factory=list)


@contextmanager
def metered(dsn: str, *tables: str) -> Iterator[Spent]:
    """What happens inside, told of these tables; of the server the whole."""
    spent = Spent(of=list(tables))
    with psycopg.connect(dsn, autocommit=True) as db:
        before = _look(db, spent.of)
        yield spent
        after = _look(db, spent.of)
    wal, images, updates, hot, dead, cpu = (
        b - a for a, b in zip(before, after, strict=True)
    )
    spent.wal, spent.images = int(wal), int(images)
    spent.updates, spent.hot, spent.dead = int(updates), int(hot), int(dead)
    spent.cpu = cpu


def _look(
    db: psycopg.Connection[tuple[object, ...]], tables: list[str]
) -> tuple[float, ...]:
    # What an idle session counted last is told at once.
    db.execute("select pg_stat_clear_snapshot()")
    wal = db.execute(
        "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,"
        "       wal_fpi::float8 from pg_stat_wal"
    ).fetchone()
    tuples = db.execute(TUPLES, [tables]).fetchone()
    assert wal
    assert tuples
    return (*map(_number, wal), *map(_number, tuples), server_cpu(db))


def _number(value: object) -> float:
    return float(str(value))


def server_cpu(db: psycopg.Connection[tuple[object, ...]]) -> float:
    """Seconds of the processor, of the server and all its processes, gone ones too."""
    row = db.execute("show data_directory").fetchone()
    assert row
    pid = int((Path(str(row[0])) / "postmaster.pid").read_text().split()[0])
    total = _times(pid, with_gone=True)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(_times(int(child)) for child in children)


def process_cpu(pid: int) -> float:
    """Seconds of the processor of one process; Linux counts hundredths."""
    return _times(pid)


def _times(pid: int, *, with_gone: bool = False) -> float:
    try:
        found = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0.0  # ended since it was listed; its parent tells of it the next time
    user, system, gone_user, gone_system = map(
        int, found.rpartition(")")[2].split()[11:15]
    )
    return (user + system + (gone_user + gone_system) * with_gone) / TICKS
