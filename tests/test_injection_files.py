"""No text of a definition in YAML or of a CSV file is taken for anything else."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import hostile
import stage
from commands import invoke
from databases import Databases
from pgdrip.contacts import FIELDS
from pgdrip.definitions import BadDefinitions, load
from pgdrip.shape import SCHEMA
from stage import Db

STEP = {
    "day": 1,
    "delay": "1 hour",
    "at": "09:00",
    "subject": "Hello",
    "body": "Hi {{name|there}}",
    "html": "<p>Hi {{name|there}}</p>",
    "media": {"type": "image", "url": "https://example.com/a.png", "filename": "a.png"},
    "template": {"name": "hello", "language": "en"},
    "only_if": {"city": "Ipoh"},
    "skip_if": {"city": "KL"},
    "wait_for": {"event": "clicked", "timeout": "1 day"},
    "max_attempts": 5,
    "backoff": "1 minute",
    "on_failure": "stop",
    "on_uncertain": "park",
    "on_missing": "fail",
    "expire_after": "2 days",
    "on_expire": "skip",
}
WINDOW = {
    "days": ["mon"],
    "from": "09:00",
    "to": "21:00",
    "zone": "UTC",
    "holidays": ["2026-12-25"],
}
BODY = {"body": "Hi"}
VARIANT = {key: STEP[key] for key in ("subject", "body", "html", "media", "template")}
DEFINITIONS: dict[str, dict[str, Any]] = {
    "sequence": {
        "name": "NEW",
        "trigger": "NEW",
        "channel": "log",
        "pool": "default",
        "status": "active",
        "in_flight": "pin",
        "reentry": {"after": "30 days"},
        "goal": "bought",
        "exit_when": {"status": "customer"},
        "cap": {"max": 1, "per": "1 day", "on_cap": "defer"},
        "on_complete": {"add_trigger": "HOT"},
        "window": WINDOW,
        "steps": [
            {key: value for key, value in STEP.items() if key != "template"},
            {
                "day": 3,
                "variants": [{"weight": 1} | VARIANT, {"weight": 1, "body": "b"}],
            },
        ],
    },
    "sender": {
        "name": "device-9",
        "channel": "log",
        "pool": "default",
        "gap_min": "5 seconds",
        "gap_max": "15 seconds",
        "rate_per_hour": 80,
        "ramp": {"1": 20},
        "hours": WINDOW,
        "group": "account-1",
        "failover_after": "1 hour",
        "advance_on": "delivered",
        "confirm_within": "1 day",
        "on_unconfirmed": "stop",
        "secret": "SOME_SECRET",
        "config": {"file": "sent.log"},
    },
    "group": {"name": "account-9", "rate": 80, "per": "1 second"},
    "sequence once": {
        "name": "ONCE",
        "trigger": "ONCE",
        "channel": "log",
        "reentry": "never",
        "steps": [{"day": 1} | BODY],
    },
}
Place = tuple[str | int, ...]


def texts(schema: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    """Every key of the schema whose value is a text, without the places in lists."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    for key, inner in schema.get("properties", {}).items():
        yield from texts(inner, *path, key)
    for inner in schema.get("anyOf", []) + schema.get("oneOf", []):
        yield from texts(inner, *path)
    if "items" in schema:
        yield from texts(schema["items"], *path)
    if schema.get("type") == "string" or "enum" in schema:
        yield path


def places(value: Any, *path: str | int) -> Iterator[Place]:
    """The path of every text of a definition."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, *path, key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from places(inner, *path, place)
    elif isinstance(value, str):
        yield path


def at(value: Any, path: Place) -> Any:
    for one in path:
        value = value[one]
    return value


@pytest.fixture(scope="module")
def world(server: Databases) -> Iterator[tuple[str, Db]]:
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        hostile.canary(db)
        stage.sender(db)
        yield dsn, db


def test_every_text_of_the_schema_is_tried() -> None:
    for kind in ("sequence", "sender", "group"):
        tried = {
            tuple(one for one in path if isinstance(one, str))
            for name, definition in DEFINITIONS.items()
            for path in places({"kind": kind} | definition)
            if name.startswith(kind)
        }
        assert set(texts(SCHEMA["definitions"][kind])) - tried == set()


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, one in DEFINITIONS.items() for path in places(one)],
    ids=str,
)
def test_no_text_of_a_definition_is_taken_for_anything_else(
    world: tuple[str, Db], tmp_path: Path, name: str, path: Place
) -> None:
    _, db = world
    before = hostile.schema(db)
    kind = name.split()[0]
    file = tmp_path / "new.yaml"
    for what, text in hostile.TEXTS.items():
        definition = json.loads(json.dumps({"kind": kind} | DEFINITIONS[name]))
        at(definition, path[:-1])[path[-1]] = text
        file.write_text(json.dumps(definition))  # which is YAML, too
        try:
            [found] = load([file])
        except BadDefinitions:
            continue
        assert at(found.content, path) == text
        with db.transaction(force_rollback=True):
            refused = refusal(db, kind, found.content)
            assert refused in {None, "MD001", "MD003", "MD008", "22P05"}, what
            told = stage.every(db, "select pgdrip.export_definitions() as it")
            assert refused or any(holds(one["it"], path, text) for one in told), what
            assert stage.violations(db) == []
            assert hostile.schema(db) == before
    assert not list(tmp_path.rglob("canary"))


def refusal(db: Db, kind: str, content: dict[str, Any]) -> str | None:
    """The SQLSTATE with which the database refuses to apply this; None: it did."""
    try:
        with db.transaction():
            apply = f"select pgdrip.apply_{kind}(%s)"
            db.execute(apply.encode(), [Jsonb(content)])
    except psycopg.Error as error:
        return error.sqlstate
    return None


def holds(exported: Any, path: Place, text: str) -> bool:
    """Whether a definition came back with this text in this place."""
    try:
        found: bool = at(exported, path) == text
    except (KeyError, IndexError, TypeError):
        return False
    return found


@pytest.mark.parametrize("column", [*FIELDS, "city", "the header itself"])
def test_no_cell_of_a_file_is_taken_for_anything_else(
    dsn: str, db: Db, tmp_path: Path, column: str
) -> None:
    hostile.canary(db)
    before = hostile.schema(db)
    file = tmp_path / "people.csv"
    for number, (what, text) in enumerate(hostile.STORABLE.items()):
        row = {"phone": f"+60190000{number:03}", "name": "New", "city": "Ipoh"}
        row |= {text if column == "the header itself" else column: text}
        with file.open("w", newline="", encoding="utf-8") as out:
            table = csv.DictWriter(out, row)
            table.writeheader()
            table.writerow(row)
        done = invoke("import", file, "--json", PGDRIP_DSN=dsn)
        case = (what, done.output[-300:])
        assert done.exit_code in {0, 6}, case
        assert "unexpected" not in done.output, case
        found = stage.every(
            db, "select * from pgdrip.contact_details order by contact_id desc limit 1"
        )
        if done.exit_code == 0:
            assert shown(found[0], column) == stored(text, column), case
    assert hostile.schema(db) == before


def shown(row: dict[str, Any], column: str) -> object:
    """What a contact has of a column of the file."""
    if column in {"city", "the header itself"}:
        return [one for one in row["attributes"].values() if one != "Ipoh"]
    return sorted(row["triggers"]) if column == "trigger" else row[column]


def stored(text: str, column: str) -> object:
    """What it shall have: a name on one line, words one by one, all else verbatim."""
    if column == "name":
        return re.sub("[\x01-\x1f]+", " ", text).strip()
    if column == "trigger":
        words = {one.strip(" \t") for one in text.split(";")}
        return sorted(words - {""})
    return [text] if column in {"city", "the header itself"} else text
