"""The database every command shares: which one it is, and one engine on it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgdrip.engine import Engine, parsed
from pgdrip.errors import ConfigurationError

LIBPQ = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")

T = TypeVar("T")


def database(dsn: str | None) -> str:
    """Return the connection string to use; an empty one leaves all to libpq."""
    if dsn is None and not any(name in os.environ for name in LIBPQ):
        raise ConfigurationError(
            "no database given", hint="--dsn, PGDRIP_DSN, or PGHOST, PGDATABASE, …"
        )
    parsed(dsn or "")
    return dsn or ""


def with_engine(dsn: str | None, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Do some work on a connection of its own."""

    async def connected() -> T:
        async with await Engine.connect(database(dsn)) as engine:
            return await work(engine)

    return asyncio.run(connected())
