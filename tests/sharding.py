"""Several shards behind a router, for the tests: databases of one server, or of two."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from commands import Run, on
from databases import Databases
from pgdrip.migrate import SQL_ROOT
from stage import Db, Row, every, one

REMEDY = "no plproxy on the server: apt-get install postgresql-<major>-plproxy"
UNREACHABLE = "the router would need a password to reach the shards of this server"
REAL_CLOCK = SQL_ROOT / "functions" / "00_clock.sql"


@dataclass(slots=True)
class Cluster:
    """A router, shards by number, and a connection to each."""

    dsn: str
    router: Db
    dsns: Mapping[int, str]
    shards: Mapping[int, Db]
    pgdrip: Run = field(init=False)

    def __post_init__(self) -> None:
        self.pgdrip = on(self.dsn)

    def ask(self, query: str, parameters: Any = None) -> Any:
        """The one value of a query of the router."""
        [value] = one(self.router, query, parameters).values()
        return value

    def everywhere(self, query: str, parameters: Any = None) -> dict[int, list[Row]]:
        """The rows of a query of each shard."""
        return {n: every(db, query, parameters) for n, db in self.shards.items()}

    def sums(self, query: str) -> int:
        """The sum over the shards of the one number that a query gives."""
        return sum(
            int(value)
            for rows in self.everywhere(query).values()
            for value in rows[0].values()
        )

    def violations(self) -> list[Row]:
        return [
            row
            for rows in self.everywhere("select * from pgdrip.check()").values()
            for row in rows
        ]

    def lead(self, number: int, **fields: Any) -> int:
        """One contact, stored through the router; its id."""
        columns = {"p_phone": phone(number)} | fields
        named = ", ".join(f"{key} => %({key})s" for key in columns)
        return int(self.ask(f"select pgdrip.upsert_contact({named})", columns))

    def enroll(self, phones: Sequence[str], trigger: str = "WARM") -> list[int]:
        """Contacts with these phones, imported through the router; their ids."""
        people = [{"phone": one, "triggers": [trigger]} for one in phones]
        rows = every(
            self.router,
            "select contact_id from pgdrip.import_contacts(%s) order by line",
            [Jsonb(people)],
        )
        self.ask("select pgdrip.enroll_waiting(10000)")
        return [row["contact_id"] for row in rows]

    def where(self, contact: int) -> int:
        """The shard that holds a contact."""
        query = "select from pgdrip.contacts where contact_id = %s"
        [shard] = [n for n, rows in self.everywhere(query, [contact]).items() if rows]
        return shard

    def empty(self) -> None:
        """Forget every person, and where buckets have moved."""
        self.router.execute(EMPTY_ROUTER)
        for db in self.shards.values():
            db.execute(EMPTY_SHARD)

    @contextmanager
    def down(self, number: int) -> Iterator[None]:
        """Nobody gets into a shard meanwhile, and who was in it is thrown out."""
        name = self.shards[number].info.dbname
        with psycopg.connect(self.dsn, autocommit=True) as db:
            db.execute(f'alter database "{name}" allow_connections false'.encode())
            try:
                db.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                    " where datname = %s and pid <> %s",
                    [name, self.shards[number].info.backend_pid],
                )
                yield
            finally:
                db.execute(f'alter database "{name}" allow_connections true'.encode())


# What tests leave behind; definitions stay.
EMPTY_SHARD = """
truncate pgdrip.contacts, pgdrip.suppressions, pgdrip.erased_suppressions, pgdrip.wakes,
  pgdrip.deliveries, pgdrip.provider_refs, pgdrip.receipts, pgdrip.arrivals,
  pgdrip.departures, pgdrip.audit, pgdrip.history_sums cascade;
update pgdrip.control set paused_at = null, paused_reason = null, pruned_until = null,
  retention = null
"""
EMPTY_ROUTER = """
truncate pgdrip.second_addresses, pgdrip.moved_ids, pgdrip.moves;
update pgdrip.buckets set is_moving = false;
select pgdrip.spread_buckets()
"""


def phone(number: int) -> str:
    return f"+6011{number:07}"


def phones_in(bucket: int, count: int) -> list[str]:
    """Phones of contacts that live in a bucket."""
    found = (phone(n) for n in range(10**6) if bucket_of(phone(n)) == bucket)
    return list(islice(found, count))


def bucket_of(address: str) -> int:
    digest = sha256(address.lower().encode()).digest()
    return digest[0] * 4 + digest[1] // 64


def has_plproxy(dsn: str) -> bool:
    with psycopg.connect(dsn) as db:
        return (
            db.execute(
                "select from pg_available_extensions where name = 'plproxy'"
            ).fetchone()
            is not None
        )


def require_plproxy(dsn: str) -> None:
    """Skip a test, or fail it with PGDRIP_ALL_EXTENSIONS, where it cannot run."""
    reason = None
    if not has_plproxy(dsn):
        reason = REMEDY
    elif "password" in conninfo_to_dict(dsn):
        reason = UNREACHABLE
    if reason and os.environ.get("PGDRIP_ALL_EXTENSIONS"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


def use_real_clock(dsn: str) -> None:
    """What a runner that goes on and on needs."""
    with psycopg.connect(dsn) as db:
        db.execute("drop table pgdrip.test_clock")
        db.execute("drop function pgdrip.set_clock")
        db.execute(Path(REAL_CLOCK).read_bytes())


@contextmanager
def cluster(
    server: Databases, *, shards: int = 3, real: bool = False
) -> Iterator[Cluster]:
    """A router with so many shards, numbered from 1."""
    require_plproxy(server.dsn)
    with ExitStack() as stack:
        router = stack.enter_context(server.empty())
        numbers = range(1, shards + 1)
        dsns = {number: stack.enter_context(server.clone()) for number in numbers}
        done = on(router)("shard", "init")
        assert done.exit_code == 0, done.output
        for number, dsn in dsns.items():
            if real:
                use_real_clock(dsn)
            done = on(router)("shard", "add", str(number), dsn)
            assert done.exit_code == 0, done.output

        def connect(dsn: str) -> Db:
            return stack.enter_context(
                psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
            )

        yield Cluster(
            router,
            connect(router),
            dsns,
            {number: connect(dsn) for number, dsn in dsns.items()},
        )
