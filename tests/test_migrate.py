"""Migrations under races, kills and mistakes, on tiny SQL roots; then the real one."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from databases import CHECKOUT
from pgdrip import SCHEMA_VERSIONS
from pgdrip.errors import PgdripError, SchemaMismatch, from_database
from pgdrip.migrate import Migrated, apply_test_clock, migrate, rollback

CLOCK = """
create or replace function pgdrip.clock() returns timestamptz
  language plpgsql stable as $$ begin return {}; end $$;
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A SQL root with one migration and the functions every root has."""
    write(
        tmp_path,
        "migrations/0001.things.sql",
        "create schema pgdrip;\ncreate table pgdrip.things (thing_id integer);\n",
    )
    write(
        tmp_path,
        "migrations/0001.things.rollback.sql",
        "drop table pgdrip.things;\ndrop schema pgdrip;\n",
    )
    write(tmp_path, "functions/00_clock.sql", CLOCK.format("clock_timestamp()"))
    write(tmp_path, "functions/01_version.sql", version_function("1"))
    write(tmp_path, "roles.sql", "")
    write(tmp_path, "grants.sql", "")
    write(
        tmp_path,
        "test_clock.sql",
        "create table pgdrip.test_clock ();" + CLOCK.format("'2026-01-05 09:00+00'"),
    )
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def version_function(version: str) -> str:
    return f"""
create or replace function pgdrip.schema_version() returns text
  language sql immutable as $$ select '{version}' $$;
"""


def fetch(dsn: str, query: str) -> list[Any]:
    """The first column of what a query returns."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(query.encode())]


def start_migrator(dsn: str, root: Path) -> "subprocess.Popen[str]":
    program = (
        "import pathlib, sys; from pgdrip.migrate import migrate;"
        " print(*migrate(sys.argv[1], root=pathlib.Path(sys.argv[2])).applied)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, dsn, str(root)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_migrate_tells_what_it_applied(empty: str, root: Path) -> None:
    assert migrate(empty, root=root) == Migrated(["0001.things"], "1")
    assert migrate(empty, root=root) == Migrated([], "1")


def test_six_migrators_at_once_apply_each_migration_once(
    empty: str, root: Path
) -> None:
    write(root, "migrations/0002.row.sql", "insert into pgdrip.things values (1);")
    migrators = [start_migrator(empty, root) for _ in range(6)]
    said = sorted(migrator.communicate(timeout=60)[0] for migrator in migrators)
    assert said == ["\n"] * 5 + ["0001.things 0002.row\n"]
    assert [migrator.returncode for migrator in migrators] == [0] * 6
    assert fetch(empty, "select thing_id from pgdrip.things") == [1]


def test_a_migrator_killed_in_the_middle_leaves_nothing_behind(
    empty: str, root: Path
) -> None:
    migrate(empty, root=root)
    write(
        root,
        "migrations/0002.row.sql",
        "insert into pgdrip.things values (1);\nlock table pgdrip.gate;\n",
    )
    with psycopg.connect(empty) as gatekeeper:
        gatekeeper.execute("create table pgdrip.gate ()")
        gatekeeper.commit()
        gatekeeper.execute("lock table pgdrip.gate")
        migrator = start_migrator(empty, root)
        with until_blocked(empty, "lock table pgdrip.gate"):
            migrator.kill()
            migrator.communicate()
    assert migrate(empty, root=root).applied == ["0002.row"]
    assert fetch(empty, "select thing_id from pgdrip.things") == [1]


def test_the_lock_of_a_killed_migrator_is_free_while_its_statement_still_waits(
    empty: str, root: Path
) -> None:
    migrate(empty, root=root)
    write(root, "migrations/0002.gate.sql", "lock table pgdrip.things;")
    with psycopg.connect(empty) as gatekeeper:
        gatekeeper.execute("lock table pgdrip.things")
        migrator = start_migrator(empty, root)
        with until_blocked(empty, "lock table pgdrip.things"):
            migrator.kill()
            migrator.communicate()
        (root / "migrations/0002.gate.sql").unlink()
        assert migrate(empty, root=root).applied == []


@contextmanager
def until_blocked(dsn: str, statement: str) -> Iterator[None]:
    """Enter once some session waits for a lock in this statement."""
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        f" and wait_event_type = 'Lock' and query like '{statement}%'"
    )
    deadline = time.monotonic() + 30
    while fetch(dsn, waiting) != [1]:
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.02)
    yield


def test_a_migration_and_its_mark_are_one_transaction(empty: str, root: Path) -> None:
    migrate(empty, root=root)
    write(root, "migrations/0002.more.sql", "create table pgdrip.more ();")
    with psycopg.connect(empty) as connection:
        connection.execute(
            "alter table pgdrip_yoyo._yoyo_migration"
            " add constraint no_second check (migration_id !~ '^0002')"
        )
    with pytest.raises(psycopg.errors.CheckViolation):
        migrate(empty, root=root)
    assert fetch(empty, "select to_regclass('pgdrip.more')") == [None]


def test_a_migration_may_run_outside_of_a_transaction(empty: str, root: Path) -> None:
    write(
        root,
        "migrations/0002.index.sql",
        "-- transactional: false\n"
        "create index concurrently things_idx on pgdrip.things (thing_id);",
    )
    assert migrate(empty, root=root).applied == ["0001.things", "0002.index"]
    assert migrate(empty, root=root).applied == []


def test_a_changed_function_file_is_applied_without_a_new_migration(
    empty: str, root: Path
) -> None:
    migrate(empty, root=root)
    write(root, "functions/01_version.sql", version_function("2"))
    assert migrate(empty, root=root) == Migrated([], "2")


def test_a_broken_function_file_changes_no_function_and_is_named(
    empty: str, root: Path
) -> None:
    migrate(empty, root=root)
    write(root, "functions/01_version.sql", version_function("2"))
    write(root, "functions/02_broken.sql", "create function")
    with pytest.raises(psycopg.errors.SyntaxError) as raised:
        migrate(empty, root=root)
    assert from_database(raised.value).message.endswith(", in 02_broken.sql")
    assert fetch(empty, "select pgdrip.schema_version()") == ["1"]


def test_migrate_keeps_the_clock_of_a_test_database(empty: str, root: Path) -> None:
    migrate(empty, root=root)
    apply_test_clock(empty, root=root)
    migrate(empty, root=root)
    frozen = "select (pgdrip.clock() at time zone 'UTC')::text"
    assert fetch(empty, frozen) == ["2026-01-05 09:00:00"]


def test_a_database_of_a_newer_package_is_refused(empty: str, root: Path) -> None:
    write(root, "migrations/0002.future.sql", "create table pgdrip.future ();")
    migrate(empty, root=root)
    (root / "migrations/0002.future.sql").unlink()
    write(root, "functions/01_version.sql", version_function("0"))
    with pytest.raises(SchemaMismatch, match="install the newer pgdrip"):
        migrate(empty, root=root)
    assert fetch(empty, "select pgdrip.schema_version()") == ["1"]


def test_newer_functions_are_not_replaced_by_older_ones(empty: str, root: Path) -> None:
    write(root, "functions/01_version.sql", version_function("10"))
    migrate(empty, root=root)
    write(root, "functions/01_version.sql", version_function("9"))
    with pytest.raises(SchemaMismatch, match="install the newer pgdrip"):
        migrate(empty, root=root)
    assert fetch(empty, "select pgdrip.schema_version()") == ["10"]


def test_rollback_undoes_everything_and_migrate_builds_it_again(
    empty: str, root: Path
) -> None:
    write(
        root,
        "functions/02_rest.sql",
        """
create or replace view pgdrip.all_things as select * from pgdrip.things;
create or replace function pgdrip.all_of_them() returns setof pgdrip.all_things
  language sql stable as $$ select * from pgdrip.all_things $$;
create or replace view pgdrip.twice as select * from pgdrip.all_of_them();
""",
    )
    migrate(empty, root=root)
    apply_test_clock(empty, root=root)
    assert rollback(empty, root=root) == ["0001.things"]
    schemas = "select nspname from pg_namespace where nspname like 'pgdrip%'"
    assert fetch(empty, schemas) == []
    assert migrate(empty, root=root).applied == ["0001.things"]


def test_rollback_refuses_before_it_starts_where_a_file_is_missing(
    empty: str, root: Path
) -> None:
    write(root, "migrations/0002.more.sql", "create table pgdrip.more ();")
    write(root, "migrations/0002.more.rollback.sql", "drop table pgdrip.more;")
    migrate(empty, root=root)
    (root / "migrations/0001.things.rollback.sql").unlink()
    with pytest.raises(PgdripError, match=r"0001\.things has no rollback file"):
        rollback(empty, root=root)
    assert fetch(empty, "select to_regclass('pgdrip.more') is not null") == [True]


def test_without_a_dsn_libpq_says_where_the_database_is(
    empty: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER"}
    names |= {"dbname": "PGDATABASE", "password": "PGPASSWORD"}
    for key, value in conninfo_to_dict(empty).items():
        monkeypatch.setenv(names[key], str(value))
    assert migrate(root=root).applied == ["0001.things"]
    assert fetch(empty, "select to_regclass('pgdrip.things') is not null") == [True]


OBJECTS = """
select format('%s %s %s', relkind, oid::regclass, relacl) from pg_class
 where relnamespace = 'pgdrip'::regnamespace
union all
select format('f %s %s %s', oid::regprocedure, md5(prosrc), proacl) from pg_proc
 where pronamespace = 'pgdrip'::regnamespace
order by 1
"""


def test_the_schema_migrates_twice_rolls_back_and_migrates_again(empty: str) -> None:
    files = (CHECKOUT / "db" / "migrations").glob("*.sql")
    names = [path.stem for path in files if ".rollback" not in path.suffixes]
    first = migrate(empty)
    assert first.applied == sorted(names)
    assert first.version in SCHEMA_VERSIONS
    built = fetch(empty, OBJECTS)
    assert migrate(empty).applied == []
    assert fetch(empty, OBJECTS) == built
    assert rollback(empty) == sorted(names, reverse=True)
    assert fetch(empty, "select count(*) from pg_class where relname ~ '^_?yoyo'") == [
        0
    ]
    assert migrate(empty).applied == sorted(names)
    assert fetch(empty, OBJECTS) == built


@pytest.fixture
def owner(empty: str) -> Iterator[str]:
    """The DSN of `empty` for a role that owns it and may do nothing else."""
    role = f"{conninfo_to_dict(empty)['dbname']}_owner"
    with psycopg.connect(empty, autocommit=True) as connection:
        run = in_words_of(connection, role)
        run("create role {} login password 'owner'")
        run("alter database {database} owner to {}")
        yield make_conninfo(empty, user=role, password="owner")
        run("drop owned by {} cascade")
        run("alter database {database} owner to current_user")
        run("drop role {}")


def in_words_of(
    connection: psycopg.Connection[Any], role: str
) -> Callable[[str], object]:
    database = sql.Identifier(connection.info.dbname)
    return lambda statement: connection.execute(
        sql.SQL(statement).format(sql.Identifier(role), database=database)
    )


def test_migrating_needs_no_superuser(owner: str) -> None:
    assert migrate(owner).version in SCHEMA_VERSIONS
    assert fetch(owner, "select rolsuper from pg_roles where rolname = user") == [False]
    rollback(owner)
