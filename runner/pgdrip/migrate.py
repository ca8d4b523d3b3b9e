"""Bring a database to the schema of this package: migrations once, functions always.

yoyo keeps the list of applied migrations in its own schema `pgdrip_yoyo`. One session
does all the work and holds the advisory lock, so whatever kills that session frees the
lock too. A migration and its mark are one transaction, and all function files another.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.migrations import default_migration_table

from pgdrip.errors import PgdripError, SchemaMismatch, from_database

_PACKAGE = Path(__file__).parent
_SHIPPED = _PACKAGE / "db"
SQL_ROOT = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "db"
"""Holds migrations/, functions/ and the other SQL: in the wheel, else the checkout."""

_LOCK_KEY = int.from_bytes(b"pgdrip", "big")

# What function files made. Tables need some of the functions; those go with the tables.
_DROP_VIEWS = """
select format('drop view %s cascade', string_agg(oid::regclass::text, ', '))
  from pg_catalog.pg_class
 where relnamespace = to_regnamespace('pgdrip') and relkind = 'v'
having count(*) > 0
"""
_DROP_ROUTINES = """
select format('drop routine %s', string_agg(p.oid::regprocedure::text, ', '))
  from pg_catalog.pg_proc p
 where p.pronamespace = to_regnamespace('pgdrip')
   and not exists (select from pg_catalog.pg_depend d
                    where d.refclassid = 'pg_catalog.pg_proc'::regclass
                      and d.refobjid = p.oid
                      and d.classid <> 'pg_catalog.pg_proc'::regclass)
having count(*) > 0
"""

_MEMBERS = """
select i.role, case when r.oid is not null then array(
         select m.member::regrole::text from pg_catalog.pg_auth_members as m
          where m.roleid = r.oid order by 1) end
  from unnest('{owner,reader,runner,app,operator}'::text[])
         with ordinality as i(role, ord)
  left join pg_catalog.pg_roles as r on r.rolname = 'pgdrip_' || i.role
 order by i.ord
"""
MAY_CREATE_ROLES = """
select r.rolsuper or r.rolcreaterole from pg_catalog.pg_roles as r
 where r.rolname = current_user
"""
_OPEN_AGAIN = """
do $$
begin
  if to_regrole('pgdrip_owner') is not null
     and pg_has_role(current_user, 'pgdrip_owner', 'member') then
    alter default privileges for role pgdrip_owner grant execute on functions to public;
  end if;
end $$
"""


@dataclass(frozen=True, slots=True)
class Migrated:
    """The migrations applied by one call, and the schema version reached."""

    applied: list[str]
    version: str


def migrate(dsn: str = "", *, root: Path = SQL_ROOT) -> Migrated:
    """Apply what is missing; wait for whoever else is migrating this database.

    Raises SchemaMismatch where a newer package has migrated already, psycopg.Error
    with a note naming the file where a file fails.
    """
    with _migrator(dsn) as backend:
        migrations = read_migrations(escape(str(root / "migrations")))
        unknown = set(backend.get_applied_migration_hashes())
        unknown -= {migration.hash for migration in migrations}
        if unknown:
            raise SchemaMismatch(
                f"the database has {len(unknown)} migration(s) this package does not"
                " know: install the newer pgdrip"
            )
        applied = list(backend.to_apply(migrations))
        for migration in applied:
            _step(backend, migration, "apply")
        version = _apply_functions(backend.connection, root)
    return Migrated([migration.id for migration in applied], version)


def rollback(dsn: str = "", *, root: Path = SQL_ROOT) -> list[str]:
    """Undo every migration and drop all data, for tests and development; and with the
    views whatever anybody has built on them. The roles of the server stay.

    Refuses before it starts where a migration has no rollback file: yoyo would call
    that a success. Returns the migrations undone.
    """
    with _migrator(dsn) as backend:
        migrations = read_migrations(escape(str(root / "migrations")))
        undone = list(backend.to_rollback(migrations))
        for migration in undone:
            if not Path(migration.path).with_suffix(".rollback.sql").exists():
                raise PgdripError(f"migration {migration.id} has no rollback file")
        connection = backend.connection
        with connection.transaction():
            for query in (_DROP_VIEWS, _DROP_ROUTINES):
                for (statement,) in connection.execute(query).fetchall():
                    connection.execute(statement)
            connection.execute("drop table if exists pgdrip.test_clock")
        for migration in undone:
            _step(backend, migration, "rollback")
        connection.execute(_OPEN_AGAIN)
        connection.execute("drop schema pgdrip_yoyo cascade")
    return [migration.id for migration in undone]


def apply_test_clock(dsn: str = "", *, root: Path = SQL_ROOT) -> None:
    """Mark a database as a test database, whose clock can be set."""
    with psycopg.connect(dsn) as connection:
        execute(connection, root / "test_clock.sql")
        execute(connection, root / "grants.sql")


def roles_sql(migrator: str | None = None, *, root: Path = SQL_ROOT) -> str:
    """What makes the roles, for somebody who may; `migrator` gets that of the owner."""
    text = (root / "roles.sql").read_text()
    if migrator is None:
        return text
    quoted = migrator.replace('"', '""')
    return f'{text}\ngrant pgdrip_owner to "{quoted}";\n'


def roles(dsn: str = "") -> dict[str, list[str] | None]:
    """The roles and, by name, who was granted each; None for one that is missing."""
    try:
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(_MEMBERS).fetchall()
    except psycopg.Error as error:
        raise from_database(error) from error
    return {f"pgdrip_{role}": members for role, members in rows}


@contextmanager
def _migrator(dsn: str) -> Iterator[Any]:
    """The yoyo backend of the one session that may migrate this database now."""
    parameters = conninfo_to_dict(dsn) | {
        "schema": "pgdrip_yoyo",
        "client_encoding": "UTF8",
    }
    # No path in the URL: an empty database name would hide the PGDATABASE of libpq.
    uri = parse_uri(f"postgresql+psycopg://?{urlencode(parameters)}")
    backend = PostgresqlPsycopgBackend(uri, default_migration_table)
    connection: psycopg.Connection[Any] = backend.connection
    with connection:
        # A server notices between statements only that a client was killed.
        connection.execute("set client_connection_check_interval = '1s'")
        # Polled, never waited for: a waiting statement holds a snapshot, which CREATE
        # INDEX CONCURRENTLY in the session that has the lock would wait for.
        while not _try_lock(connection):
            time.sleep(0.2)
        connection.execute("create schema if not exists pgdrip_yoyo")
        backend.init_database()
        backend.break_lock()  # a row, which a killed migrator leaves behind
        yield backend


def _try_lock(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("select pg_try_advisory_lock(%s)", [_LOCK_KEY]).fetchone()
    return row is not None and row[0] is True


def _step(
    backend: Any, migration: Any, direction: Literal["apply", "rollback"]
) -> None:
    """Run one migration and mark it, in one transaction unless its file forbids it.

    yoyo's own loop marks in a second transaction: killed between the two, it would run
    the migration again. Its log is not written, as that asks for the user's and the
    host's name, which a container may not have.
    """
    mark = backend.mark_one if direction == "apply" else backend.unmark_one
    migration.load()
    try:
        with backend.transaction() if migration.use_transactions else nullcontext():
            migration.process_steps(backend, direction)
            mark(migration, log=False)
    except psycopg.Error as error:
        error.add_note(f"{direction} of migration {migration.id}")
        raise


def _apply_functions(connection: psycopg.Connection[Any], root: Path) -> str:
    """Run every function file by name, but leave the clock of a test database alone.

    Returns the schema version. A newer package may have brought functions only, so
    that no migration gives it away.
    """
    before = _version(connection)
    row = connection.execute("select to_regclass('pgdrip.test_clock')").fetchone()
    has_test_clock = row is not None and row[0] is not None
    with connection.transaction():
        # Bodies that are bound when created find nothing but built-in functions.
        connection.execute("set local search_path = pg_catalog, pg_temp")
        for path in sorted((root / "functions").glob("*.sql")):
            if not (has_test_clock and path.name == "00_clock.sql"):
                execute(connection, path)
        if connection.execute(MAY_CREATE_ROLES).fetchone() == (True,):
            execute(connection, root / "roles.sql")
        execute(connection, root / "grants.sql")
        after = _version(connection)
        if int(before) > int(after):
            raise SchemaMismatch(
                f"the schema version of the database is {before}, of this package"
                f" {after}: install the newer pgdrip"
            )
    return after


def _version(connection: psycopg.Connection[Any]) -> str:
    found = "select to_regprocedure('pgdrip.schema_version()') is not null"
    if connection.execute(found).fetchone() != (True,):
        return "0"
    row = connection.execute("select pgdrip.schema_version()").fetchone()
    return str(row and row[0])


def execute(connection: psycopg.Connection[Any], path: Path) -> None:
    try:
        connection.execute(path.read_bytes())
    except psycopg.Error as error:
        error.add_note(f"in {path.name}")
        raise
