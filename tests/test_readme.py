"""The README is true: its session runs, and its API is the catalog's."""

import re
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgdrip.definitions import load

README = (Path(__file__).parents[1] / "README.md").read_text()
SESSION = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)[0]
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
    engine = (Path(__file__).parents[1] / "runner/pgdrip/engine.py").read_text()
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
