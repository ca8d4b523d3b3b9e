"""The command line, run in this process on a test's database."""

from collections.abc import Callable
from pathlib import Path

import psycopg
from click.testing import CliRunner, Result
from psycopg.rows import DictRow

from pgdrip import cli

SEQUENCE = """\
kind: sequence
name: WARM
trigger: WARMEXAMA
channel: log
status: active
steps:
  - {day: 1, body: "Hi {{name|there}}"}
  - {day: 3, delay: 12 hours, body: Again}
"""
SENDER = """\
---
kind: sender
name: device-1
channel: log
config: {file: FILE}
"""
CONTACT = "phone,name,trigger\n+60123456789,Alice,WARMEXAMA\n"

Run = Callable[..., Result]
Database = psycopg.Connection[DictRow]


def invoke(*arguments: str | Path, stdin: str | bytes = "", **env: str) -> Result:
    """Run a command; no output may hold a traceback."""
    result = CliRunner().invoke(
        cli.main, [str(one) for one in arguments], input=stdin, env=env
    )
    assert "Traceback" not in result.output
    return result


def on(dsn: str) -> Run:
    """What runs commands on this database."""

    def call(*arguments: str | Path, stdin: str | bytes = "") -> Result:
        return invoke(*arguments, stdin=stdin, PGDRIP_DSN=dsn)

    return call


def told(result: Result, code: int) -> str:
    """Return the one line of a failure with this exit code."""
    assert result.exit_code == code, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("pgdrip: ")
    return line.removeprefix("pgdrip: ")
