"""What a runner knows and could not report survives it."""

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Connect
from pgdrip import spool as module
from pgdrip.errors import ConfigurationError
from pgdrip.results import Result
from pgdrip.spool import Spool
from running import (
    REPORT,
    Db,
    enroll,
    eventually,
    last_events,
    live,
    pgdrip_run,
    receiving,
    violations,
    wrap,
)

RESULT = Result(
    enrollment_id=7,
    token=1099511627777,
    channel="log",
    sender="device-0001",
    step=1,
    outcome="sent",
    provider_id="wamid.é\n",
)
OTHER = replace(RESULT, token=1099511627778, outcome="failed", code="transient")


def opened(directory: Path, name: str = "r1", database: str = "1-2") -> Spool:
    return Spool(directory, name=name, database=database)


def test_what_was_added_and_not_removed_is_found_again(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    third = replace(RESULT, token=3)
    for result in (RESULT, OTHER, third):
        spool.add(result)
    asyncio.run(spool.sync())
    spool.remove([OTHER])
    spool.close()
    # A report may be repeated: what is in the file still does no harm.
    assert [result for result in opened(tmp_path).found if result != OTHER] == [
        RESULT,
        third,
    ]


def test_when_all_is_reported_nothing_is_left(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.add(RESULT)
    assert json.loads(spool.path.read_bytes())["provider_id"] == "wamid.é\n"
    spool.remove([RESULT])
    assert spool.path.read_bytes() == b""
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    spool = opened(tmp_path / "new" / "one")
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.path.parent.stat().st_mode & 0o777 == 0o700


def test_each_runner_and_each_database_has_its_own(tmp_path: Path) -> None:
    spools = [
        opened(tmp_path, name, database)
        for name in ("r1", "r2", "../r1", "r1/x", "ü %.")
        for database in ("1-2", "1-3")
    ]
    assert len({spool.path for spool in spools}) == len(spools)
    assert {spool.path.parent for spool in spools} == {tmp_path}


@pytest.mark.parametrize(
    "end",
    [
        b'{"enrollment_id": 9, "tok',
        b"\0\0\0\0\0",
        b"[1]\n",
        b'{"no": "result"}\n',
        b"\xff\xfe\n",
    ],
)
def test_an_end_that_cannot_be_read_costs_nothing_else(
    tmp_path: Path, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path)
    spool.add(RESULT)
    path = spool.path
    spool.close()
    with path.open("ab") as file:
        file.write(end)
    spool = opened(tmp_path)
    assert spool.found == [RESULT]
    assert "cannot be read" in caplog.text
    spool.add(OTHER)
    spool.close()
    assert opened(tmp_path).found == [RESULT, OTHER]


def test_two_processes_cannot_share_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(ConfigurationError, match="another runner named r1"):
        opened(tmp_path)
    first.add(RESULT)
    first.remove([])  # even though it may have been written anew
    with pytest.raises(ConfigurationError, match="another runner named r1"):
        opened(tmp_path)
    first.close()
    assert opened(tmp_path).found == [RESULT]


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--spool"):
        opened(tmp_path / "file")


def test_what_is_reported_goes_from_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REWRITE_AT", 2000)
    spool = opened(tmp_path)
    spool.add(OTHER)
    for token in range(100):
        result = replace(RESULT, token=token)
        spool.add(result)
        spool.remove([result])
        assert spool.path.stat().st_size < 2600
    spool.close()
    assert OTHER in opened(tmp_path).found


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_in_the_log_and_spoils_one_line_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path)
    spool.add(RESULT)
    size = spool.path.stat().st_size
    with no_file_longer_than(size + 10):
        spool.add(OTHER)  # the half of it
        spool.add(OTHER)  # nothing
    assert "the spool cannot be written" in caplog.text
    last = replace(RESULT, token=5)
    spool.add(last)
    spool.close()
    assert opened(tmp_path).found == [RESULT, last]


def test_kill_9_between_send_and_report_loses_nothing(
    dsn: str, db: Db, connect: Connect, tmp_path: Path
) -> None:
    options = ["--name", "r1", "--spool", str(tmp_path), "--per-sender", "5"]
    wrap(db, REPORT, before="perform pg_advisory_xact_lock(1);")
    gate = connect()
    gate.execute("select pg_advisory_lock(1)")
    waiting = (
        "select pid from pg_locks where locktype = 'advisory' and not granted"
        " and database = (select oid from pg_database"
        "                  where datname = current_database())"
    )
    with receiving() as receiver:
        receiver.release.set()
        enrollments = enroll(db, 5, url=receiver.url)
        with pgdrip_run(dsn, *options) as process:
            asyncio.run(
                eventually(
                    lambda: (
                        len(receiver.keys) == 5 and db.execute(waiting).rowcount == 1
                    ),
                    seconds=20,
                )
            )
            process.kill()
            process.wait()
        # Its report waits in the database; it must not come true after all.
        for row in db.execute(waiting).fetchall():
            db.execute("select pg_terminate_backend(%s, 5000)", [row["pid"]])
        gate.execute("select pg_advisory_unlock(1)")
        assert [due["begun_at"] is not None for due in live(db)] == [True] * 5

        with pgdrip_run(dsn, *options, "--once") as process:
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert sorted(receiver.keys) == sorted(f"{id}:1" for id in enrollments)
    assert last_events(db) == [("sent", None, None)] * 5
    assert live(db) == []
    assert violations(db) == []
    assert list(tmp_path.iterdir()) == []
