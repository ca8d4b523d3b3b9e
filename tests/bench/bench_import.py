"""How fast `pgdrip import` is, held against a bare COPY of the same file.

Prints a line for each round: rows a second of the real process, of COPY into a table
with the columns of contacts that has neither constraints nor indexes plus the build of
those indexes, and of COPY into the file's own two columns plus an index on one of them.
Whatever else the machine does shows in the numbers: compare the ratios.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from rich.console import Console
from rich.table import Table

from databases import Databases, choose
from pgdrip.contacts import CHUNK
from pgdrip.migrate import migrate

# Without the constraints, and with defaults that cost nothing.
LIKE_CONTACTS = """
create table bare (like pgdrip.contacts including identity);
alter table bare alter pool set default 'default', alter attributes set default '{}',
  alter bucket set default 0, alter created_at set default now()
"""
CONTACTS_INDEXES = """
create unique index on bare (contact_id);
create unique index on bare (phone, pool) where phone is not null;
create unique index on bare (lower(email), pool) where email is not null;
create index on bare (sender_id) where sender_id is not null
"""
BARE = {
    "as contacts": (LIKE_CONTACTS, CONTACTS_INDEXES),
    "two columns": (
        "create table bare (phone text, name text)",
        "create unique index on bare (phone)",
    ),
}


def write_file(path: Path, rows: int) -> None:
    """Contacts in no order, as a file has them that nobody sorted."""
    numbers = random.Random(1).sample(range(10_000_000, 100_000_000), rows)
    with path.open("w") as file:
        file.write("phone,name\n")
        file.writelines(f"+601{n},Ann {n % 100_000}\n" for n in numbers)


def bare(db: psycopg.Connection, path: Path, indexes: str) -> None:
    with path.open("rb") as file:
        into = "copy bare (phone, name) from stdin (format csv, header)"
        with db.cursor().copy(into) as copy:
            while data := file.read(CHUNK):
                copy.write(data)
    db.execute(indexes.encode())


def imported(dsn: str, path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pgdrip", "import", str(path)],
        env=os.environ | {"PGDRIP_DSN": dsn},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(dsn: str, path: Path) -> Sequence[float]:
    """The seconds of one import, then of each way of BARE."""
    found = []
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("truncate pgdrip.contacts cascade")
        db.execute("checkpoint")
        found.append(seconds(partial(imported, dsn, path)))
        for table, indexes in BARE.values():
            db.execute(f"drop table if exists bare; {table}".encode())
            db.execute("checkpoint")
            found.append(seconds(partial(bare, db, path, indexes)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    shown = Table("round", "import rows/s")
    for name in BARE:
        shown.add_column(f"bare, {name} rows/s")
        shown.add_column("ratio")
    ratios: list[list[float]] = [[] for _ in BARE]
    with (
        TemporaryDirectory() as folder,
        choose(os.environ).start() as server,
        Databases(server).empty() as dsn,
    ):
        migrate(dsn)
        path = Path(folder) / "contacts.csv"
        write_file(path, asked.rows)
        for number in range(1, asked.rounds + 1):
            ours, *others = measure(dsn, path)
            cells = [str(number), f"{asked.rows / ours:,.0f}"]
            for other, known in zip(others, ratios, strict=True):
                known.append(other / ours)
                cells += [f"{asked.rows / other:,.0f}", f"{other / ours:.2f}"]
            shown.add_row(*cells)
    median = ["median", ""]
    for known in ratios:
        median += ["", f"{statistics.median(known):.2f}"]
    shown.add_row(*median)
    Console().print(shown)


if __name__ == "__main__":
    main()
