"""The database that passes calls on to shards: its SQL, made anew from theirs.

PL/Proxy carries the calls. It is an untrusted language, so that whoever installs the
router is a superuser of its server, once and after each upgrade of the shards.
"""

from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgdrip.errors import ConfigurationError, UsageError
from pgdrip.migrate import MAY_CREATE_ROLES, SQL_ROOT, execute

REMEDY = "apt-get install postgresql-<major>-plproxy on the server of the router"


def install(dsn: str, catalog: dict[str, Any] | None, *, root: Path = SQL_ROOT) -> None:
    """Bring a router to this version, in one transaction.

    `catalog` is api_catalog() of a shard; None before there is one, when there is
    nothing to pass calls on to. Raises UsageError where the database is no router.
    """
    files = sorted((root / "router").glob("*.sql"))
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select to_regclass('pgdrip.contacts')").fetchone()
        if found != (None,):
            raise UsageError(
                "this database holds contacts itself and cannot be the router",
                hint="make an empty one",
            )
        connection.execute("set local search_path = pg_catalog, pg_temp")
        for path in files:
            if path.name.startswith("30_"):
                continue
            try:
                execute(connection, path)
            except (
                psycopg.errors.UndefinedFile,
                psycopg.errors.FeatureNotSupported,
            ) as error:
                raise ConfigurationError("no PL/Proxy", hint=REMEDY) from error
        if catalog is not None:
            connection.execute("select pgdrip.make_routes(%s)", [Jsonb(catalog)])
            execute(connection, root / "router" / "30_calls.sql")
        if connection.execute(MAY_CREATE_ROLES).fetchone() == (True,):
            execute(connection, root / "roles.sql")
        execute(connection, root / "grants.sql")
        execute(connection, root / "router" / "40_grants.sql")
