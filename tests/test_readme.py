"""The README is true: its session runs, and its API is the catalog's."""

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from databases import CHECKOUT
from pgdrip.definitions import load

README = (CHECKOUT / "README.md").read_text()
SESSION = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)[0]
WALK = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[0]
MARK = "-- and then --"
SOURCE = "CHANGELOG.md LICENSE README.md pyproject.toml db examples runner".split()
TABLE = README.split("## API")[1].split("\nViews: ")[0]
FUNCTIONS = re.findall(r"`(\w+)\(([\w, ]*)\)`", TABLE)


def test_the_session_enrolls_sends_and_ends_with_nothing_to_complain_of(
    db: psycopg.Connection[Any],
) -> None:
    db.execute(SESSION)
    rows = db.execute(
        "select step, current_state from pgdrip.sequence_progress order by step"
    ).fetchall()
    assert [tuple(row.values()) for row in rows] == [(1, "Sent"), (3, "Scheduled")]
    why = db.execute("select why from pgdrip.explain_contact(1)").fetchone()
    assert why == {"why": "due in 12 h"}
    assert db.execute("select * from pgdrip.check()").fetchall() == []


def test_a_newcomer_gets_from_nothing_to_sending(empty: str, tmp_path: Path) -> None:
    """The shell's lines in order; comments on lines of their own are what it showed."""
    for name in SOURCE:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, tmp_path / name)
    chunks = re.split(r"(?m)^((?:# .*\n)+)", WALK.replace("8025", str(free_port())))
    commands, shown = chunks[::2], chunks[1::2]
    script = f"echo {MARK!r}\n".join(["set -e\n", *commands])
    done = in_a_shell(script, tmp_path, pg_variables(empty))
    assert done.returncode == 0, done.stderr
    told = done.stdout.split(f"{MARK}\n")[1:]
    assert len(told) == len(commands) > 5
    for output, comments in zip(told, shown, strict=False):
        expected = [line.removeprefix("# ") for line in comments.splitlines()]
        last = output.splitlines()[-len(expected) :]
        assert [line.rpartition("\t")[2] for line in last] == expected


def in_a_shell(
    script: str, folder: Path, variables: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """All that it leaves running ends with it."""
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(script, process.returncode, output, errors)


def pg_variables(dsn: str) -> dict[str, str]:
    """What libpq reads instead of a DSN."""
    names = {"dbname": "PGDATABASE"}
    return {
        names.get(key, f"PG{key.upper()}"): str(value)
        for key, value in conninfo_to_dict(dsn).items()
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_api_table_names_functions_with_their_arguments(
    db: psycopg.Connection[Any],
) -> None:
    catalog = {
        row["proname"]: ", ".join(row["names"] or [])
        for row in db.execute(
            "select proname, proargnames[1:pronargs] as names from pg_catalog.pg_proc"
            " where pronamespace = 'pgdrip'::regnamespace"
        )
    }
    assert len(FUNCTIONS) > 30
    assert {name: arguments for name, arguments in FUNCTIONS} == {
        name: catalog.get(name) for name, _ in FUNCTIONS
    }


def test_the_engine_client_calls_only_what_the_readme_names(
    db: psycopg.Connection[Any],
) -> None:
    engine = (CHECKOUT / "runner/pgdrip/engine.py").read_text()
    called = set(re.findall(r"pgdrip\.(\w+)\(", engine))
    assert called <= {name for name, _ in FUNCTIONS}


def test_the_views_of_the_readme_exist(db: psycopg.Connection[Any]) -> None:
    line = README.split("\nViews: ")[1].split("\n\n")[0]
    views = {
        row["relname"]
        for row in db.execute(
            "select relname from pg_catalog.pg_class"
            " where relnamespace = 'pgdrip'::regnamespace and relkind = 'v'"
        )
    }
    assert set(re.findall(r"`(\w+)`", line)) == views


def test_the_sequence_in_yaml_is_accepted(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    (sequence,) = load([file])
    row = db.execute(
        "select outcome from pgdrip.apply_sequence(%s)", [Jsonb(sequence.content)]
    ).fetchone()
    assert row == {"outcome": "created"}
