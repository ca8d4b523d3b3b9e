"""What goes out comes back the same; a spreadsheet runs none of it."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from pgdrip.definitions import load
from pgdrip.export import cell, to_yaml

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").rglob("*.yaml"))
Database = psycopg.Connection[DictRow]

EVERY_KEY = """
kind: group
name: account-9
rate: 80
per: 1 minute
distinct_contacts_per_day: 1000
---
kind: sender
name: device-1
channel: log
pool: sales
rate_per_hour: 80
rate_per_day: 800
burst: 2
gap_min: 5 seconds
gap_max: 1 minute 30 seconds
ramp: {1: 20, 7: 50}
hours:
  {days: [mon, sun], from: 09:00, to: 24:00, zone: Asia/Tokyo, holidays: [2026-12-25]}
group: account-9
advance_on: delivered
confirm_within: 36 hours
on_unconfirmed: stop
fault_threshold: 3
failover_after: 2 hours
secret: GOWA_AUTH
config: {url: https://example.com, retries: !!int 3, tls: !!bool true, none: !!null ''}
---
kind: sender
name: device-2
channel: log
gap_min: 5 seconds
---
kind: sequence
name: "odd: \\u00e9 # 'x'"
trigger: "NO"
channel: log
pool: sales
status: paused
exit_when: {age: !!int 5, rate: !!float 1.5, vip: 'true', code: '007', on: off}
steps:
  - day: 1
    delay: '21:30'
    body: |-
      Hi {{name|there}},
        yours
  - day: '3'
    body: " spaces \\t and \\x85 more "
    template: {name: x, components: [{type: body, parameters: [a, !!int 1]}]}
"""


def apply(db: Database, files: list[Path]) -> list[str]:
    """Return what became of each definition."""
    outcomes = []
    for one in load(files):
        row = db.execute(
            f"select (pgdrip.apply_{one.kind}(%s)).*"
            if one.kind == "sequence"
            else f"select pgdrip.apply_{one.kind}(%s) as outcome",
            [Jsonb(one.content)],
        ).fetchone()
        assert row is not None
        outcomes.append(row["outcome"])
    return outcomes


def exported(db: Database) -> list[dict[str, Any]]:
    rows = db.execute("select pgdrip.export_definitions() as one").fetchall()
    return [row["one"] for row in rows]


def test_applying_what_was_exported_changes_nothing(
    db: Database, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text(EVERY_KEY, encoding="utf-8")
    assert set(apply(db, [odd, *EXAMPLES])) == {"created"}
    out = tmp_path / "out.yaml"
    out.write_text(to_yaml(exported(db)), encoding="utf-8")
    assert set(apply(db, [out])) == {"unchanged"}


def test_an_export_makes_the_same_database_elsewhere(
    db: Database, server: Any, tmp_path: Path
) -> None:
    odd, out = tmp_path / "odd.yaml", tmp_path / "out.yaml"
    odd.write_text(EVERY_KEY, encoding="utf-8")
    apply(db, [odd])
    first = exported(db)
    out.write_text(to_yaml(first), encoding="utf-8")
    with server.clone() as dsn, psycopg.connect(dsn, autocommit=True) as other:
        other.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        apply(other, [out])  # type: ignore[arg-type]
        assert exported(other) == first  # type: ignore[arg-type]


def test_the_exported_sender_has_every_key_that_can_be_applied(db: Database) -> None:
    accepted = db.execute(
        "select regexp_matches(prosrc, '''([a-z_]+)''', 'g') as key from pg_proc"
        " where proname = 'sender_definition'"
    ).fetchall()
    known = json.loads(
        (Path(__file__).parents[1] / "runner/pgdrip/schema.json").read_text()
    )["definitions"]["sender"]["properties"]
    assert set(known) <= {row["key"][0] for row in accepted}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_any_config_comes_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    sequence = {
        "kind": "sequence",
        "name": "a",
        "trigger": "A",
        "channel": "log",
        "exit_when": config,
        "steps": [{"day": 1, "body": "Hi"}],
    }
    file.write_text(to_yaml([sequence]), encoding="utf-8", newline="")
    [back] = load([file])
    assert back.content == {k: v for k, v in sequence.items() if k != "kind"}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1+1|cmd", "'-1+1|cmd"),
        ("+1+1", "'+1+1"),
        ("\tx", "'\tx"),
        ("+60123456789", "+60123456789"),
        ("-5", "-5"),
        (-5, "-5"),
        (None, ""),
        ({"a": "é"}, '{"a": "é"}'),
        ("plain", "plain"),
    ],
)
def test_a_cell_is_nothing_a_spreadsheet_would_run(value: Any, written: str) -> None:
    assert cell(value) == written
