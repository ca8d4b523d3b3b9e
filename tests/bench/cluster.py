"""The cluster of a run: its own, durable, gone afterwards."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgdrip.migrate import migrate
from pgdrip.postgres import Server, find_binaries

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "256MB",
    "max_connections": "60",
}
"""No checkpoint while something is measured: what one costs is a matter of its pages,
told by the row of the full-page images."""

COPIES = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server: the DSN of its maintenance database, and its programs."""

    dsn: str
    binaries: Path

    def database(self, name: str) -> str:
        return make_conninfo(self.dsn, dbname=name)

    def create(self, name: str) -> str:
        """A new database with the engine in it; its DSN."""
        self._run("create database {}", name)
        migrate(self.database(name))
        return self.database(name)

    @contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A copy of a database, dropped afterwards; its DSN."""
        name = f"{template}_{next(COPIES)}"
        self._run("create database {} template {} strategy file_copy", name, template)
        try:
            with psycopg.connect(self.database(name)) as db:
                # A copied database would take itself for a restored one.
                db.execute(
                    "update pgdrip.control set database_oid = (select oid"
                    "  from pg_database where datname = current_database())"
                )
            yield self.database(name)
        finally:
            self._run("drop database {} with (force)", name)

    def drop(self, name: str) -> None:
        self._run("drop database {} with (force)", name)

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as db:
            db.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def started() -> Iterator[Cluster]:
    """A cluster of the machine's PostgreSQL, else of the embedded one; PGDRIP_PG=local
    or embedded forces one."""
    kinds = [os.environ["PGDRIP_PG"]] if "PGDRIP_PG" in os.environ else []
    for kind in kinds or ["local", "embedded"]:
        binaries = find_binaries("local" if kind == "local" else "embedded")
        if binaries and (binaries / "pgbench").exists():
            break
    else:
        raise SystemExit("no PostgreSQL with pgbench: apt-get install postgresql")
    with Server(binaries, settings=DURABLE) as server:
        yield Cluster(server.dsn, binaries)
