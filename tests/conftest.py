"""Fixtures: a database for every test, its clock, and connections to it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from databases import Databases, NoDatabase, Source, choose
from pgtap import CLONE, TapFile

Connect = Callable[[], psycopg.Connection[DictRow]]
Extension = Callable[[psycopg.Connection[Any], str], None]

_KEPT = {"PGTZ", "PGDRIP_PG", "PGDRIP_TEST_DATABASE_URL", "PGDRIP_ALL_EXTENSIONS"}
_SOURCE = pytest.StashKey[Source]()
_DATABASES = pytest.StashKey[Databases]()


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist ignores it in its workers, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in set(os.environ) - _KEPT:
        if name == "DATABASE_URL" or name.startswith("PG"):
            del os.environ[name]  # whatever database it names, no test shall find it
    try:
        config.stash[_SOURCE] = choose(os.environ)
    except NoDatabase as reason:
        raise pytest.UsageError(f"no database for the tests: {reason}") from None
    config.stash[CLONE] = lambda: _databases(config).clone()


def pytest_report_header(config: pytest.Config) -> str:
    return f"database: {config.stash[_SOURCE].description}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> TapFile | None:
    if file_path.suffix == ".sql" and file_path.parent.name == "sql":
        return TapFile.from_parent(parent, path=file_path)
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])
    ]
    counts = [dict(r.user_properties).get("assertions") for r in reports]
    files = [count for count in counts if count is not None]
    if files:
        terminalreporter.write_line(
            f"pgTAP: {sum(files)} assertions in {len(files)} files"
        )


def _databases(config: pytest.Config) -> Databases:
    """The server of this run, started when first asked for."""
    if _DATABASES not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        dsn = stack.enter_context(config.stash[_SOURCE].start())
        config.stash[_DATABASES] = Databases(dsn)
        stack.callback(config.stash[_DATABASES].close)
    return config.stash[_DATABASES]


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Databases:
    """The server; `.dsn` of its maintenance database, `.empty()` and `.clone()`."""
    return _databases(request.config)


@pytest.fixture
def empty(server: Databases) -> Iterator[str]:
    """The DSN of a new, empty database."""
    with server.empty() as dsn:
        yield dsn


@pytest.fixture
def dsn(server: Databases) -> Iterator[str]:
    """The DSN of a new, migrated database with a test clock and pgTAP."""
    with server.clone() as dsn:
        yield dsn


@pytest.fixture
def connect(dsn: str) -> Iterator[Connect]:
    """Open as many connections (autocommit, rows as dicts) to `dsn` as a test needs."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(
            psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        )


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection[DictRow]:
    """A connection to `dsn`."""
    return connect()


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of one test database; it stands still until it is set again."""

    connection: psycopg.Connection[DictRow]

    def now(self) -> datetime:
        row = self.connection.execute("select pgdrip.clock() as now").fetchone()
        assert row is not None
        now: datetime = row["now"]
        return now

    def set(self, instant: datetime) -> datetime:
        self.connection.execute("select pgdrip.set_clock(%s)", [instant])
        return instant

    def advance(self, span: timedelta) -> datetime:
        return self.set(self.now() + span)


@pytest.fixture
def clock(connect: Connect) -> Clock:
    """Starts at 2026-01-05 09:00 UTC, on a connection of its own."""
    return Clock(connect())


@pytest.fixture(scope="session")
def extension() -> Extension:
    """Create an extension, or skip the test where the server has no such extension.

    With PGDRIP_ALL_EXTENSIONS set its absence is a failure.
    """

    def create(connection: psycopg.Connection[Any], name: str) -> None:
        with suppress(
            psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedObject
        ):  # not installed; installed, but not preloaded
            connection.execute(f'create extension "{name}"'.encode())
            return
        package = name.removeprefix("pg_").replace("_", "-")
        remedy = (
            f"no {name} on the server: apt-get install postgresql-<major>-{package}"
        )
        if os.environ.get("PGDRIP_ALL_EXTENSIONS"):
            pytest.fail(remedy, pytrace=False)
        pytest.skip(remedy)

    return create
