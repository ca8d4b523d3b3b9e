"""Where the tests' database comes from: `PGDRIP_TEST_DATABASE_URL`, Docker, PostgreSQL
binaries of the machine, or those of the embedded wheel, in this order.

`PGDRIP_PG=docker|local|embedded` forces one. Whatever PG* and DATABASE_URL name is
never touched.
"""

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgdrip.migrate import apply_test_clock, migrate
from pgdrip.postgres import Server, find_binaries, version
from pgtap import install_pgtap

CHECKOUT = Path(__file__).parents[1]
RECIPE = CHECKOUT / "db" / "Dockerfile"
STAGE = CHECKOUT / "tests" / "stage.sql"
CLOCK_START = "2026-01-05 09:00:00+00"
SEARCH_PATH = '"$user", public, tap'


class NoDatabase(Exception):
    """This source cannot give a database; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Source:
    """A server that can be started; `start` gives the DSN of a role that may create
    databases there."""

    description: str
    start: Callable[[], AbstractContextManager[str]]


def choose(environment: Mapping[str, str]) -> Source:
    """Return the first source that works; its description says why no other did."""
    sources: dict[str, Callable[[], Source]] = {
        "docker": _docker,
        "local": partial(_binaries, "local"),
        "embedded": partial(_binaries, "embedded"),
    }
    why = []
    if forced := environment.get("PGDRIP_PG"):
        if forced not in sources:
            raise NoDatabase(f"PGDRIP_PG={forced}: say {', '.join(sources)}")
        sources = {forced: sources[forced]}
        why = ["as PGDRIP_PG says"]
    elif url := environment.get("PGDRIP_TEST_DATABASE_URL"):
        sources = {"PGDRIP_TEST_DATABASE_URL": partial(_url, url)}
    for name, source in sources.items():
        try:
            found = source()
        except NoDatabase as reason:
            why.append(f"{name}: {reason}")
        else:
            note = f" ({'; '.join(why)})" if why else ""
            return Source(f"{name}: {found.description}{note}", found.start)
    raise NoDatabase("; ".join(why))


def _url(url: str) -> Source:
    @contextmanager
    def start() -> Iterator[str]:
        yield url

    try:
        with psycopg.connect(url) as connection:
            info = connection.info
            server = info.parameter_status("server_version")
            return Source(f"PostgreSQL {server} at {info.host}:{info.port}", start)
    except psycopg.Error as error:
        raise NoDatabase(f"{error}") from None


def _binaries(kind: str) -> Source:
    binaries = find_binaries("local" if kind == "local" else "embedded")
    if binaries is None:
        remedy = {
            "local": "apt-get install postgresql",
            "embedded": "pip install 'pgdrip[embedded]'",
        }
        raise NoDatabase(f"no binaries, {remedy[kind]}")
    settings = {}
    if (binaries.parent / "lib" / "pg_cron.so").exists():
        settings = {
            "shared_preload_libraries": "pg_cron",
            "cron.use_background_workers": "on",
            "max_worker_processes": "20",
        }

    @contextmanager
    def start() -> Iterator[str]:
        with Server(binaries, settings=settings) as server:
            yield server.dsn

    return Source(f"PostgreSQL {version(binaries)} in {binaries}", start)


def _docker() -> Source:
    """A container of db/Dockerfile's image, which is built when it is missing."""
    import docker  # type: ignore[import-untyped]

    image = image_name()
    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except (docker.errors.DockerException, OSError):
        raise NoDatabase("no engine answers") from None
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            client.api.timeout = 600
            client.images.build(path=str(RECIPE.parent), tag=image, rm=True)
        except (docker.errors.BuildError, docker.errors.APIError) as error:
            raise NoDatabase(f"the image cannot be built: {error}") from None
    return Source(f"image {image}", partial(_container, image))


def image_name() -> str:
    """Under which the image of db/Dockerfile, as it is now, is kept."""
    return f"pgdrip-db:{hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:12]}"


@contextmanager
def _container(image: str) -> Iterator[str]:
    # The reaper is one more image to pull; the container removes itself instead.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer

    container = (
        DockerContainer(image)
        .with_env("POSTGRES_PASSWORD", "postgres")
        .with_exposed_ports(5432)
        .with_kwargs(auto_remove=True)
        .with_command("postgres -c fsync=off -c shared_preload_libraries=pg_cron")
    )
    with container:
        dsn = make_conninfo(
            host=container.get_container_host_ip(),
            port=container.get_exposed_port(5432),
            user="postgres",
            password="postgres",
            dbname="postgres",
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(dsn).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield dsn


class Databases:
    """Databases on one server: a migrated template, and its clones for single tests."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._prefix = f"pgdrip_test_{os.getpid()}_{os.urandom(3).hex()}"
        self._numbers = itertools.count(1)
        self._template: str | None = None

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A new database with nothing in it, dropped afterwards; its DSN."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._run("create database {}", name)
        try:
            yield make_conninfo(self.dsn, dbname=name)
        finally:
            self._run("drop database {} with (force)", name)

    @contextmanager
    def clone(self) -> Iterator[str]:
        """A migrated database with a test clock and pgTAP, dropped afterwards."""
        template = self._template or self._make_template()
        name = f"{self._prefix}_{next(self._numbers)}"
        self._run("create database {} template {}", name, template)
        try:
            # Settings of a database are no part of it, and a copied database would
            # take itself for a restored one.
            self._run(f"alter database {{}} set search_path = {SEARCH_PATH}", name)
            dsn = make_conninfo(self.dsn, dbname=name)
            with psycopg.connect(dsn) as connection:
                connection.execute(
                    "update pgdrip.control set database_oid = (select oid from"
                    " pg_catalog.pg_database where datname = current_database())"
                )
            yield dsn
        finally:
            self._run("drop database {} with (force)", name)

    def close(self) -> None:
        """Drop the template."""
        if self._template:
            self._run("drop database {} with (force)", self._template)
            self._template = None

    def _make_template(self) -> str:
        name = f"{self._prefix}_template"
        self._run("create database {}", name)
        self._template = name
        dsn = make_conninfo(self.dsn, dbname=name)
        migrate(dsn)
        apply_test_clock(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("select pgdrip.set_clock(%s)", [CLOCK_START])
            install_pgtap(connection)
            connection.execute("reset search_path")
            connection.execute(STAGE.read_bytes())
        return name

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
