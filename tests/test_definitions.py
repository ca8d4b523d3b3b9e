"""YAML files become definitions; what YAML gets wrong is told with its place."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow

from pgdrip.definitions import Applied, BadDefinitions, Definition, apply, load
from pgdrip.engine import Engine

Database = psycopg.Connection[DictRow]

SEQUENCE = """\
kind: sequence
name: WARM
trigger: WARMEXAMA
channel: log
steps:
  - day: 1
    body: Hi
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.yaml"


def read(file: Path, text: str | bytes) -> list[Definition]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load([file])


def mistakes(file: Path, text: str | bytes) -> list[str]:
    """Return the mistakes of a file, each as line:column: reason."""
    with pytest.raises(BadDefinitions) as caught:
        read(file, text)
    assert all(one.file == str(file) for one in caught.value.mistakes)
    assert caught.value.exit_code == 3
    return [str(one).removeprefix(f"{file}:") for one in caught.value.mistakes]


def content(file: Path, text: str) -> dict[str, Any]:
    [definition] = read(file, text)
    return definition.content


def test_a_document_becomes_the_jsonb_of_its_kind(file: Path) -> None:
    [definition] = read(file, SEQUENCE)
    assert definition == Definition(
        "sequence",
        "WARM",
        {
            "name": "WARM",
            "trigger": "WARMEXAMA",
            "channel": "log",
            "steps": [{"day": 1, "body": "Hi"}],
        },
        str(file),
        1,
    )


@pytest.mark.parametrize("text", ["21:30", "NO", "+60123456789", "1.10", "null", "~"])
def test_text_stays_text(file: Path, text: str) -> None:
    written = SEQUENCE.replace("body: Hi", f"body: {text}")
    assert content(file, written)["steps"] == [{"day": 1, "body": text}]


def test_numbers_and_booleans_are_those_the_database_wants(file: Path) -> None:
    sender = """\
kind: sender
name: device
channel: log
rate_per_hour: 80
burst: "2"
ramp: {1: 20, 7: 50}
config: {device: 007, verbose: true}
"""
    assert content(file, sender) == {
        "name": "device",
        "channel": "log",
        "rate_per_hour": 80,
        "burst": 2,
        "ramp": {"1": 20, "7": 50},
        "config": {"device": "007", "verbose": "true"},
    }
    asked = SEQUENCE + "stop_on_reply: false\non_complete: {remove_trigger: true}\n"
    assert content(file, asked)["stop_on_reply"] is False
    assert content(file, asked)["on_complete"] == {"remove_trigger": True}


def test_several_documents_and_files_keep_their_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"---\n{SEQUENCE}---\nkind: sender\nname: a\nchannel: log\n---\n")
    two.write_text("\ufeffkind: sender\nname: b\nchannel: log\n", encoding="utf-8")
    assert [(d.kind, d.name, d.line) for d in load([one, two])] == [
        ("sequence", "WARM", 2),
        ("sender", "a", 10),
        ("sender", "b", 1),
    ]


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SEQUENCE.replace("day: 1", "day: one"))
    two.write_text("kind: sender\nname: a\nrate_per_hour: 1.5\nburst: many\n")
    with pytest.raises(BadDefinitions) as caught:
        load([one, two])
    assert str(caught.value).splitlines() == [
        f"{one}:6:10: steps[1].day: 'one' is not a whole number",
        f"{two}:3:16: rate_per_hour: '1.5' is not a whole number",
        f"{two}:4:8: burst: 'many' is not a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1:1: the file holds no document"),
        ("# only words\n---\n", "1:1: the file holds no document"),
        ("- a\n", "1:1: a document is a mapping that begins with its kind"),
        ("name: x\n", "1:1: the document has no kind (one of sender, sequence)"),
        ("kind: sequnce\n", "1:7: unknown kind 'sequnce' (did you mean sequence?)"),
        ("kind: [sender]\n", "1:7: unknown kind '…' (one of sender, sequence)"),
        ("kind: sender\nchannel: log\n", "1:1: the sender has no name"),
        ("kind: sender\nname: a\nname: b\n", "3:1: name is written twice"),
        (
            "kind: sender\nname: a\nsecret:\n",
            "3:8: secret has no value (write '' for an empty text)",
        ),
        (
            SEQUENCE + "stop_on_reply: no\n",
            "8:16: stop_on_reply: 'no' is not true or false",
        ),
        (
            "kind: sender\nname: a\n? [b]\n: c\n",
            "3:3: a key is a word, not a list or mapping",
        ),
        ("kind: sender\n  name: a\n", "2:7: mapping values are not allowed here"),
        ("kind: sender\nname: 'a\n", "3:1: found unexpected end of stream"),
        ("kind: sender\nname: *a\n", "2:7: found undefined alias 'a'"),
        ("kind: sender\nname: a\x00b\n", "2:1: character 0x0000 is not allowed"),
        (b"kind: sender\nname: \xff\n", "2:1: not UTF-8 (save the file as UTF-8)"),
        ("[" * 5000, "1:1: nested too deeply"),
    ],
)
def test_a_mistake_has_its_place_and_a_reason(
    file: Path, text: str | bytes, told: str
) -> None:
    assert mistakes(file, text) == [told]


def test_an_alias_may_be_used_twice_but_not_endlessly(file: Path) -> None:
    shared = "kind: sender\nname: a\nhours: &h {from: '09:00'}\nconfig: {own: *h}\n"
    assert content(file, shared)["config"] == {"own": {"from": "09:00"}}
    endless = "kind: sender\nname: a\nconfig: &c {again: *c}\n"
    assert mistakes(file, endless) == [
        "1:1: the sender is nested too deeply or too large"
    ]
    lists = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lists += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    laughs = "kind: sender\nname: a\n" + "\n".join(lists)
    assert mistakes(file, laughs) == [
        "1:1: the sender is nested too deeply or too large"
    ]


def test_one_name_is_defined_once_over_all_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SEQUENCE)
    two.write_text(f"# again\n{SEQUENCE}")
    with pytest.raises(BadDefinitions, match=f"{two}:2:1: sequence 'WARM' is already"):
        load([one, two])


def test_every_example_is_accepted_and_simulated(dsn: str, db: Database) -> None:
    examples = load(sorted((Path(__file__).parents[1] / "examples").rglob("*.yaml")))

    async def apply_all() -> list[Applied]:
        async with await Engine.connect(dsn) as engine:
            return await apply(engine, examples)

    applied = asyncio.run(apply_all())
    assert {each.outcome for each in applied} == {"created"}
    chain = [e.name for e in examples if e.name.startswith("Chain")]
    assert chain == ["Chain COLD", "Chain WARM", "Chain HOT"]
    # A Friday evening: the window opens on Monday, the second step waits for 10:30.
    steps = db.execute(
        "select step, send_at at time zone 'UTC' as send_at"
        " from pgdrip.simulate('Chain COLD', '2026-01-09 22:00+00')"
    ).fetchall()
    assert [(row["step"], f"{row['send_at']:%a %H:%M}") for row in steps] == [
        (1, "Mon 09:00"),
        (3, "Wed 10:30"),
    ]
