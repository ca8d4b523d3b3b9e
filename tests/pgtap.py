"""pgTAP under pytest: each tests/sql/*.sql in four zones, and where pgTAP is from."""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import ExecStatus, TransactionStatus

CLONE = pytest.StashKey[Callable[[], AbstractContextManager[str]]]()
"""In the stash of pytest's config: makes a database for one file."""

ZONES = ("UTC", "Asia/Kuala_Lumpur", "America/New_York", "Pacific/Apia")
"""What the engine does must not depend on the time zone of a session."""

SYSTEM = Path("/usr/share/postgresql")
NPM_PACKAGE = "@electric-sql/pglite-pgtap@0.0.15"
REMEDY = "no pgTAP: apt-get install postgresql-15-pgtap (or apt-get update, or npm)"


def install_pgtap(connection: psycopg.Connection[Any]) -> None:
    """Put pgTAP into schema `tap`, as an extension where the server has it."""
    connection.execute("create schema tap")
    if connection.execute(
        "select 1 from pg_catalog.pg_available_extensions where name = 'pgtap'"
    ).fetchone():
        connection.execute("create extension pgtap schema tap")
    else:
        connection.execute("set local search_path = tap")
        connection.execute(pgtap_source())


def pgtap_source() -> bytes:
    """Return pgTAP as SQL text, from the machine, our cache, Debian or npm."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "pgdrip" / "pgtap.sql"
    for found in (_newest(SYSTEM), kept):
        if found and found.exists():
            return found.read_bytes()
    for fetch in (_from_debian, _from_npm):
        text = _fetched(fetch)
        if text:
            with suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(text)
            return text
    pytest.fail(REMEDY, pytrace=False)


def _newest(folder: Path) -> Path | None:
    """The SQL of the newest whole pgTAP below a folder, not of an upgrade step."""
    whole = re.compile(r"pgtap--([0-9]+)\.([0-9]+)\.([0-9]+)\.sql")
    versions = {
        tuple(map(int, match.groups())): path
        for path in folder.rglob("pgtap--*.sql")
        if (match := whole.fullmatch(path.name))
    }
    return versions[max(versions)] if versions else None


def _fetched(fetch: Callable[[str], None]) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(folder)
        except (OSError, subprocess.SubprocessError, StopIteration):
            return None
        found = _newest(Path(folder))
        return found.read_bytes() if found else None


def _from_debian(folder: str) -> None:
    """Unpack Debian's package; needs package lists, but neither root nor a server."""
    names = _run("apt-cache", "pkgnames", "postgresql-", cwd=folder).split()
    name = next(n for n in names if re.fullmatch(r"postgresql-\d+-pgtap", n))
    _run("apt-get", "download", name, cwd=folder)
    package = next(Path(folder).glob("*.deb"))
    _run("dpkg-deb", "--extract", package.name, ".", cwd=folder)


def _from_npm(folder: str) -> None:
    _run("npm", "pack", "--silent", NPM_PACKAGE, cwd=folder)
    for pattern in ("*.tgz", "package/**/*.tar.gz"):  # an archive in an archive
        with tarfile.open(next(Path(folder).glob(pattern))) as content:
            content.extractall(folder, filter="data")


def _run(program: str, *arguments: str, cwd: str) -> str:
    executable = shutil.which(program)
    if executable is None:
        raise FileNotFoundError(program)
    return subprocess.run(
        [executable, *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    ).stdout


class TapFile(pytest.File):
    """A file of assertions; it holds `begin`, a plan, `finish()` and `rollback`."""

    def collect(self) -> Iterator[pytest.Item]:
        for zone in ZONES:
            yield TapItem.from_parent(self, name=zone)


class TapFailure(Exception):
    """What failed in one file."""


class TapItem(pytest.Item):
    """A whole file in one time zone, sent in one go to a database of its own."""

    def runtest(self) -> None:
        with (
            self.config.stash[CLONE]() as dsn,
            psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection,
        ):
            connection.execute("select set_config('timezone', %s, false)", [self.name])
            assertions, complaints = run_tap(connection, self.path.read_bytes())
        self.user_properties.append(("assertions", assertions))
        if complaints:
            raise TapFailure("\n".join(complaints))

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:
        if isinstance(excinfo.value, TapFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"pgTAP: {self.path.name} in {self.name}"


def run_tap(
    connection: psycopg.Connection[Any], script: bytes
) -> tuple[int, list[str]]:
    """Run a file; return how many assertions it made and what is wrong, if anything.

    Below psycopg's cursors, which give nothing back once a statement fails: the last
    assertion before it tells where in the file that was.
    """
    lines: list[str] = []
    complaints: list[str] = []
    connection.pgconn.send_query(script)
    while result := connection.pgconn.get_result():
        if result.status == ExecStatus.FATAL_ERROR:
            error = result.error_message.decode().strip()
            complaints.append(
                f"{error}\n  after: {lines[-1] if lines else 'the start'}"
            )
        elif result.status == ExecStatus.TUPLES_OK:
            values = (result.get_value(row, 0) for row in range(result.ntuples))
            lines += [value.decode() for value in values if value is not None]
    verdicts = [line for line in lines if re.match(r"(not )?ok [0-9]+", line)]
    complaints += [
        line
        for line in verdicts
        if line.startswith("not ok") and "# TODO" not in line.partition("\n")[0]
    ]
    plans = [line for line in lines if re.fullmatch(r"1\.\.[0-9]+", line)]
    if plans != [f"1..{len(verdicts)}"] or not verdicts:
        complaints.append(f"made {len(verdicts)} assertions, planned {plans}")
    if connection.info.transaction_status != TransactionStatus.IDLE:
        complaints.append("the file leaves its transaction open")
    return len(verdicts), complaints
