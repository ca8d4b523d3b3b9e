"""`pgdrip import`, the real process, held against a bare COPY of the same file.

Once into a table with the columns of contacts that has neither constraints nor indexes,
plus the build of those indexes; once of the file's own two columns plus one index.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from bench.daemon import Db
from bench.figure import Figure, Found, experiment, rates, ratios
from bench.plan import Bench
from pgdrip.contacts import CHUNK

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
    "into a table as contacts": (LIKE_CONTACTS, CONTACTS_INDEXES),
    "of the two columns": (
        "create table bare (phone text, name text)",
        "create unique index on bare (phone)",
    ),
}


@experiment("import")
def imports(bench: Bench) -> Iterator[Found]:
    rows = bench.scale.enrollments // 5
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in BARE}
    dsn = bench.cluster.create("imports")
    with TemporaryDirectory() as folder, psycopg.connect(dsn, autocommit=True) as db:
        path = Path(folder) / "contacts.csv"
        write_file(path, rows)
        for _ in range(bench.scale.rounds):
            db.execute("truncate pgdrip.contacts cascade")
            db.execute("checkpoint")
            ours.append(rows / seconds(partial(imported, dsn, path)))
            for name, (table, indexes) in BARE.items():
                db.execute(f"drop table if exists bare; {table}".encode())
                db.execute("checkpoint")
                theirs[name].append(rows / seconds(partial(bare, db, path, indexes)))
    bench.cluster.drop("imports")
    for name, values in theirs.items():
        yield Figure(
            f"pgdrip import of {rows:,} contacts against COPY {name}",
            ratios(ours, values),
            "x",
            notes=[rates(ours, "import"), rates(values, "COPY")],
        )


def write_file(path: Path, rows: int) -> None:
    """Contacts in no order, as a file has them that nobody sorted."""
    numbers = random.Random(1).sample(range(10_000_000, 100_000_000), rows)
    with path.open("w") as file:
        file.write("phone,name\n")
        file.writelines(f"+601{n},Ann {n % 100_000}\n" for n in numbers)


def bare(db: Db, path: Path, indexes: str) -> None:
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
