"""`pgdrip verify` and `pgdrip doctor`: the catalog against the SQL that ships with this
package, and the state of the server.

The house style makes the files readable for this: every function is written whole with
its body between $$, every constraint and index has a name.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pgdrip import SCHEMA_VERSIONS, __version__
from pgdrip.errors import from_database
from pgdrip.migrate import SQL_ROOT

Database = psycopg.Connection[dict[str, Any]]

_FUNCTION = re.compile(r"^create or replace (?:function|procedure) pgdrip\.", re.M)
_BODY = re.compile(r"\bas \$\$(.*?)\$\$;", re.DOTALL)
# What migrations say, in their order; each makes or takes away names.
_STATEMENTS = {
    "index": re.compile(
        r"create (?:unique )?index (?:concurrently )?(\w+)"
        r"|drop index ((?:pgdrip\.\w+,?\s*)+)"
        r"|alter index pgdrip\.(\w+) rename to (\w+)"
    ),
    "constraint": re.compile(r"drop constraint (\w+)|\bconstraint (\w+)"),
}
# Ten minutes, or a few seconds where dead rows in the way of claims pile up meanwhile.
_TRANSACTIONS = """
select a.pid, a.usename, nullif(a.application_name, '') as application, a.state,
       extract(epoch from now() - a.xact_start)::bigint as age
  from pg_catalog.pg_stat_activity as a
  join pg_catalog.pg_stat_user_tables as t on t.relid = 'pgdrip.due'::regclass
 where a.datname = current_database()
   and a.pid not in (select v.pid from pg_catalog.pg_stat_progress_vacuum as v)
   and a.xact_start < now() - case
         when coalesce(a.backend_xmin, a.backend_xid) is not null
          and t.n_dead_tup > 10000 and t.n_dead_tup > 2 * t.n_live_tup
           then interval '2 s' else interval '10 min' end
 order by a.xact_start
"""
_REMEDY = "run `pgdrip migrate`; if it stays, somebody changed the database by hand"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `is_wrong`: more than advice."""

    what: str
    remedy: str
    is_wrong: bool = True


def verify(dsn: str, *, root: Path = SQL_ROOT) -> list[Finding]:
    """Compare the catalog with the shipped schema."""
    with _connection(dsn) as db:
        return list(_catalog(db, root))


def doctor(dsn: str, *, root: Path = SQL_ROOT) -> list[Finding]:
    """verify(), and whatever else would slow the engine down or stop it."""
    with _connection(dsn) as db:
        found = list(_catalog(db, root))
        for look in (_transactions, _bloat, _partitions, _versions, _ticks):
            found += look(db)
    return found


@contextmanager
def _connection(dsn: str) -> Iterator[Database]:
    try:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db:
            yield db
    except psycopg.Error as error:
        raise from_database(error) from error


def _catalog(db: Database, root: Path) -> Iterator[Finding]:
    yield from _functions(db, root)
    for kind, query in (
        (
            "index",
            "select relname as name from pg_catalog.pg_class as c"
            " join pg_catalog.pg_index as i on i.indexrelid = c.oid and i.indisvalid"
            " where relnamespace = 'pgdrip'::regnamespace",
        ),
        (
            "constraint",
            "select conname as name from pg_catalog.pg_constraint"
            " where connamespace = 'pgdrip'::regnamespace and convalidated",
        ),
    ):
        there = {row["name"] for row in db.execute(query.encode())}
        for name in sorted(shipped(kind, root) - there):
            yield Finding(f"{kind} {name} is missing or not valid", _REMEDY)


def shipped(kind: str, root: Path) -> set[str]:
    """Names of the indexes or constraints that the migrations leave behind."""
    names: set[str] = set()
    for file in sorted((root / "migrations").glob("*.sql")):
        if file.name.endswith(".rollback.sql"):
            continue
        text = re.sub(r"--.*", "", file.read_text())
        for found in _STATEMENTS[kind].finditer(text):
            if kind == "constraint":
                dropped, made = found.groups()
            else:
                made, dropped, renamed, new = found.groups()
                dropped, made = dropped or renamed, made or new
            names -= set(re.findall(r"(?:pgdrip\.)?(\w+)", dropped or ""))
            names |= {made} if made else set()
    return names


def _functions(db: Database, root: Path) -> Iterator[Finding]:
    rows = db.execute(
        "select proname as name, prosrc as body, proconfig as settings,"
        "       prokind = 'p' or prosqlbody is not null as needs_no_path,"
        "       prosecdef as is_definer,"
        "       has_function_privilege('public', oid, 'execute') as is_open"
        "  from pg_catalog.pg_proc where pronamespace = 'pgdrip'::regnamespace"
    ).fetchall()
    there = {row["name"]: row for row in rows}
    bodies, definers = _shipped_functions(root)
    for name, body in bodies.items():
        if name not in there:
            yield Finding(f"function {name}() is missing", _REMEDY)
        elif body is None:
            continue  # bound when created: the catalog keeps no text of it
        elif name == "clock" and body != there[name]["body"]:
            yield Finding(
                "clock() is not the server's time: this is a test database",
                "never send real messages from it",
            )
        elif body != there[name]["body"]:
            yield Finding(f"function {name}() is not the one that was shipped", _REMEDY)
    for name, row in there.items():
        pinned = any(one.startswith("search_path=") for one in row["settings"] or ())
        if name in bodies and not pinned and not row["needs_no_path"]:
            yield Finding(f"function {name}() has no search_path of its own", _REMEDY)
        if row["is_definer"] and name not in definers | {"clock"}:
            yield Finding(f"function {name}() lends its owner's rights", _REMEDY)
        if name in definers and not row["is_definer"]:
            yield Finding(f"function {name}() lacks its owner's rights", _REMEDY)
        if row["is_open"]:
            yield Finding(f"anybody may call function {name}()", _REMEDY)


def _shipped_functions(root: Path) -> tuple[dict[str, str | None], set[str]]:
    """The functions by name, each with what stands between its $$; and which of them
    act with their owner's rights."""
    bodies, definers = {}, set()
    for file in sorted((root / "functions").glob("*.sql")):
        _, *functions = _FUNCTION.split(file.read_text())
        for text in functions:
            name = text.partition("(")[0]
            body = _BODY.search(text)
            bodies[name] = body[1] if body else None
            if re.search(r"^  security definer$", text, re.MULTILINE):
                definers.add(name)
    return bodies, definers


def _transactions(db: Database) -> Iterator[Finding]:
    for row in db.execute(_TRANSACTIONS.encode()):
        who = row["application"] or row["usename"]
        age = row["age"]
        yield Finding(
            f"process {row['pid']} of {who} ({row['state']}) has a transaction that is"
            f" {f'{age // 60} minutes' if age >= 120 else f'{age} s'} old",
            "it keeps vacuum from cleaning up, and claims read ever more: end it by"
            f" select pg_terminate_backend({row['pid']})",
            is_wrong=False,
        )


def _bloat(db: Database) -> Iterator[Finding]:
    for row in db.execute(
        "select relname, n_dead_tup, n_live_tup from pg_catalog.pg_stat_user_tables"
        " where schemaname = 'pgdrip' and n_dead_tup > 100000"
        "   and n_dead_tup > 2 * n_live_tup"
    ):
        yield Finding(
            f"table {row['relname']} has {row['n_dead_tup']:,} dead rows and"
            f" {row['n_live_tup']:,} live ones",
            f"vacuum pgdrip.{row['relname']}; does autovacuum run?",
            is_wrong=False,
        )


def _partitions(db: Database) -> Iterator[Finding]:
    row = db.execute(
        "select exists (select from pgdrip.deliveries_default) as is_used,"
        " to_regclass('pgdrip.deliveries_'"
        "   || to_char(pgdrip.clock() at time zone 'UTC', 'YYYY_MM')) is null"
        "   as is_missing"
    ).fetchone()
    assert row is not None
    if row["is_used"] or row["is_missing"]:
        yield Finding(
            "history has no partition for this month, or rows that missed theirs",
            "select pgdrip.maintain(); a runner or pg_cron does so hourly",
            is_wrong=False,
        )


def _versions(db: Database) -> Iterator[Finding]:
    row = db.execute("select pgdrip.schema_version() as version").fetchone()
    assert row is not None
    if row["version"] not in SCHEMA_VERSIONS:
        yield Finding(f"the schema version is {row['version']}", _REMEDY)
    for one in db.execute(
        "select runner, version from pgdrip.runners"
        " where seen_at > pgdrip.clock() - interval '5 minutes' and version <> %s"
        "   and runner <> 'pg_cron'",
        [__version__],
    ):
        yield Finding(
            f"runner {one['runner']} is of version {one['version']},"
            f" this is {__version__}",
            "upgrade the older of the two",
            is_wrong=False,
        )


def who_ticks(dsn: str) -> list[str]:
    """Who ticked in the last two minutes: names of runners, pg_cron."""
    with _connection(dsn) as db:
        return _ticking(db)


def _ticking(db: Database) -> list[str]:
    rows = db.execute(
        "select runner from pgdrip.runners"
        " where seen_at > pgdrip.clock() - interval '2 minutes' order by runner"
    ).fetchall()
    return [row["runner"] for row in rows]


def _ticks(db: Database) -> Iterator[Finding]:
    if not _ticking(db):
        yield Finding(
            "nobody ticks: waiting triggers are not enrolled, nothing is maintained",
            "start `pgdrip run`, or select pgdrip.schedule_jobs() where pg_cron is",
            is_wrong=False,
        )
