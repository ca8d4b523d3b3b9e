"""The session of examples/psql.sql runs, and ends where it says."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgdrip.postgres import find_binaries

SESSION = Path(__file__).parents[1] / "examples" / "psql.sql"


def psql() -> str | None:
    """A psql of this machine or of the embedded wheel."""
    for binaries in (find_binaries("local"), find_binaries("embedded")):
        if binaries and (binaries / "psql").exists():
            return str(binaries / "psql")
    return shutil.which("psql")


def ends_well(db: psycopg.Connection[Any]) -> None:
    rows = db.execute(
        "select contact_id, step, current_state from pgdrip.sequence_progress"
        " where contact_id <= 3 order by contact_id, step"
    ).fetchall()
    assert [tuple(row.values()) for row in rows] == [
        (1, 1, "Sent"),
        (1, 2, "Scheduled"),
        (2, 1, "Ready to send"),
        (2, 2, "Waiting"),
        (3, 1, "Uncertain"),
        (3, 2, "Skipped"),
    ]
    row = db.execute("select count(*) as live from pgdrip.due").fetchone()
    assert row == {"live": 1002}
    assert db.execute("select * from pgdrip.check()").fetchall() == []


def test_the_session_runs_in_psql(dsn: str, db: psycopg.Connection[Any]) -> None:
    program = psql()
    if program is None:
        pytest.skip("no psql: apt-get install postgresql-client")
    told = subprocess.run(
        [program, "--no-psqlrc", "--dbname", dsn, "--file", str(SESSION)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "Steps that are due and not claimed" in told.stdout  # \d+ explains columns
    ends_well(db)


def test_the_session_runs_without_psql(db: psycopg.Connection[Any]) -> None:
    statements = re.sub(r"(?m)^\\.*$", "", SESSION.read_text())
    assert "\\" not in re.sub(r"(?m)^--.*$", "", statements)
    db.execute(statements.encode())
    ends_well(db)
