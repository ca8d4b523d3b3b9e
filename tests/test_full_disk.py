"""Disks that are full for a while: the one with the data, the one with the WAL.

Each is a small tmpfs, as root may mount one. Where nobody may, the server has no room
in another way: its calls say so, or its files may not grow.
"""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

import running
import stage
from chaos.disk import SmallDisk, small_disk
from chaos.server import CrashingServer, binaries
from pgdrip.channels import Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.migrate import migrate
from pgdrip.runner import Runner

PEOPLE = 1000
WAL_SEGMENT = 16 << 20  # bytes


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner comes back within a second instead of half a minute."""
    monkeypatch.setattr("pgdrip.link.LAST_DELAY", 1.0)


def database_on(disk: SmallDisk, server: CrashingServer) -> str:
    """A database that has everything there."""
    space = disk.path / "space"
    space.mkdir()
    owner = server.home.stat()
    shutil.chown(space, owner.st_uid, owner.st_gid)
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"create tablespace small location '{space}'".encode())
        admin.execute("create database small tablespace small")
    dsn = make_conninfo(server.dsn, dbname="small")
    migrate(dsn)
    return dsn


class NoRoom:
    """In place of a disk, where there is none to fill: the calls that write say what
    the server says when it has no room."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        refuse = (
            "if obj_description('pgdrip.control'::regclass) = 'full' then"
            " raise disk_full; end if;"
        )
        with psycopg.connect(dsn, autocommit=True) as db:
            for function in (running.CLAIM, running.BEGIN, running.REPORT):
                running.wrap(db, function, before=refuse)

    def fill(self) -> None:
        self._say("full")

    def free(self) -> None:
        self._say("not full")

    def _say(self, what: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as db:
            db.execute(f"comment on table pgdrip.control is '{what}'".encode())


@contextmanager
def data_disk() -> Iterator[tuple[str, SmallDisk | NoRoom]]:
    """A database and the disk that holds its data, and nothing else."""
    with (
        CrashingServer(binaries()) as server,
        small_disk(32, server.home.stat()) as disk,
    ):
        if disk:
            yield database_on(disk, server), disk
        else:
            migrate(server.dsn)
            yield server.dsn, NoRoom(server.dsn)


def assert_that_all_went_out_once(dsn: str, keys: list[str], people: int) -> None:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db:
        sent = stage.every(
            db,
            "select enrollment_id || ':' || step as key from pgdrip.deliveries"
            " where event = 'sent'",
        )
        assert stage.live(db) == []
        assert stage.violations(db) == []
    assert len(keys) == people
    assert sorted(keys) == sorted(row["key"] for row in sent)


def test_a_full_data_disk_is_waited_for_and_nothing_is_lost_or_sent_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refusals() -> int:
        told = [getattr(record, "sqlstate", None) for record in caplog.records]
        return told.count("53100")

    with data_disk() as (dsn, disk):
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db:
            running.enroll(db, PEOPLE)

        async def answer(message: ClaimedMessage) -> Outcome:
            if len(ledger.keys) == 50:
                disk.fill()
            return Sent()

        async def meanwhile(runner: Runner) -> None:
            await running.eventually(lambda: refusals() >= 5, seconds=60)
            assert len(ledger.keys) < PEOPLE
            disk.free()
            await running.eventually(lambda: len(ledger.keys) >= PEOPLE, seconds=60)

        ledger = running.Ledger(answer)
        running.running(dsn, ledger, meanwhile, batch=100)
        assert_that_all_went_out_once(dsn, ledger.keys, PEOPLE)


def write_until_it_panics(server: CrashingServer) -> None:
    with (
        suppress(psycopg.Error),
        psycopg.connect(server.dsn, autocommit=True) as admin,
    ):
        while True:
            admin.execute("select pg_logical_emit_message(true, 'test', 'a record')")
            admin.execute("select pg_switch_wal()")
    assert "PANIC:  could not" in (server.home / "log").read_text()


def move_wal(server: CrashingServer, disk: SmallDisk) -> None:
    """The server must not run."""
    wal = server.home / "data" / "pg_wal"
    subprocess.run(["cp", "-a", wal, disk.path / "wal"], check=True)
    shutil.rmtree(wal)
    wal.symlink_to(disk.path / "wal")


def test_a_full_disk_of_the_wal_is_survived_and_nothing_is_lost_or_sent_twice() -> None:
    with (
        CrashingServer(binaries()) as server,
        small_disk(96, server.home.stat()) as disk,
    ):
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True, row_factory=dict_row) as db:
            running.enroll(db, PEOPLE)
        server.crash(signal.SIGINT)
        if disk:
            move_wal(server, disk)
            server.start_again()
        else:
            server.start_again(largest_file=WAL_SEGMENT - 1)
        is_under_way = asyncio.Event()

        async def answer(message: ClaimedMessage) -> Outcome:
            if len(ledger.keys) == 50:
                is_under_way.set()
            await asyncio.sleep(0.01)
            return Sent()

        async def meanwhile(runner: Runner) -> None:
            await is_under_way.wait()
            if disk:
                disk.fill()
            await asyncio.to_thread(write_until_it_panics, server)
            if disk:
                disk.free()
            server.crash(signal.SIGQUIT)
            await asyncio.to_thread(server.start_again)
            await running.eventually(lambda: len(ledger.keys) >= PEOPLE, seconds=60)

        ledger = running.Ledger(answer)
        running.running(server.dsn, ledger, meanwhile, batch=100)
        assert_that_all_went_out_once(server.dsn, ledger.keys, PEOPLE)
