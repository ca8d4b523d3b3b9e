"""Behind pgbouncer in transaction mode, where each transaction may have another
session: nothing of one is needed, and none of ours is left to others."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdrip.engine import Engine
from running import Db, Ledger, enroll, eventually, live, run, violations

REMEDY = "no pgbouncer: apt-get install pgbouncer"


@pytest.fixture
def pooled(dsn: str) -> Iterator[str]:
    """The DSN of a pgbouncer with one session for all who come."""
    if not shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"):
        if os.environ.get("PGDRIP_ALL_EXTENSIONS"):
            pytest.fail(REMEDY, pytrace=False)
        pytest.skip(REMEDY)
    with pgbouncer(dsn) as found:
        yield found


@contextmanager
def pgbouncer(dsn: str) -> Iterator[str]:
    """On a socket of its own; root starts it as the user the server belongs to."""
    with TemporaryDirectory(prefix="pgdrip-", dir="/var/tmp") as home:
        directory = Path(home)
        directory.chmod(0o777)
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = {_to_server(dsn)}\n"
            "[pgbouncer]\n"
            f"unix_socket_dir = {home}\nlisten_port = 6432\nlisten_addr =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
        )
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        own = conninfo_to_dict(dsn)
        host = Path(str(own["host"]))
        user = host.owner() if host.is_dir() else "nobody"
        as_other = ["-u", user] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [str(program), "-q", *as_other, str(settings)], stderr=subprocess.DEVNULL
        )
        try:
            found = make_conninfo(host=home, port=6432, user=own["user"], dbname="any")
            asyncio.run(eventually(lambda: _answers(found)))
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _answers(dsn: str) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(dsn).close()
        return True
    return False


def _to_server(dsn: str) -> str:
    kept = {"host", "port", "user", "password", "dbname"}
    return " ".join(f"{k}={v}" for k, v in conninfo_to_dict(dsn).items() if k in kept)


def test_a_pooler_is_told_from_a_server(dsn: str, pooled: str) -> None:
    async def is_pooled(dsn: str) -> bool:
        async with await Engine.connect(dsn, writable=True) as engine:
            return engine.is_pooled

    assert not asyncio.run(is_pooled(dsn))
    assert asyncio.run(is_pooled(pooled))


def test_a_runner_works_though_it_shares_one_session(db: Db, pooled: str) -> None:
    enrollments = enroll(db, 60, senders=3)
    ledger = Ledger()
    run(pooled, ledger, slots=20, per_sender=2)
    assert Counter(ledger.keys) == Counter(f"{id}:1" for id in enrollments)
    assert live(db) == []
    assert violations(db) == []


def test_no_setting_is_left_to_whoever_gets_the_session_next(
    db: Db, pooled: str
) -> None:
    enroll(db, 1)
    run(pooled, Ledger())
    with psycopg.connect(pooled, prepare_threshold=None) as other:
        left = other.execute(
            "select name from pg_settings where source = 'session' and name in"
            " ('default_transaction_isolation', 'IntervalStyle', 'synchronous_commit')"
        ).fetchall()
    assert left == []
