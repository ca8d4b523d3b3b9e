"""YAML files become definitions; what YAML gets wrong is told with its place."""

import asyncio
from collections.abc import Callable
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


SENDER = """\
kind: sender
name: a
channel: log
"""
NO_SPAN = "is not a wait with its unit, such as 12 hours"


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
burst: 2
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
    two.write_text(SENDER + "rate_per_hour: 1.5\nburst: many\n")
    with pytest.raises(BadDefinitions) as caught:
        load([one, two])
    assert str(caught.value).splitlines() == [
        f"{one}:6:10: steps[1].day: 'one' is not a whole number",
        f"{two}:4:16: rate_per_hour: '1.5' is not a whole number",
        f"{two}:5:8: burst: 'many' is not a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1:1: the file holds no document"),
        ("# only words\n---\n", "1:1: the file holds no document"),
        ("- a\n", "1:1: a document is a mapping that begins with its kind"),
        ("name: x\n", "1:1: the document has no kind (one of group, sender, sequence)"),
        ("kind: sequnce\n", "1:7: unknown kind 'sequnce' (did you mean sequence?)"),
        ("kind: [sender]\n", "1:7: unknown kind '…' (one of group, sender, sequence)"),
        ("kind: sender\nchannel: log\n", "1:1: the sender has no name"),
        (SENDER + "name: b\n", "4:1: name is written twice"),
        (
            SENDER + "secret:\n",
            "4:8: secret has no value (write '' for an empty text)",
        ),
        (
            SEQUENCE + "stop_on_reply: no\n",
            "8:16: stop_on_reply: 'no' is not true or false",
        ),
        (
            SENDER + "? [b]\n: c\n",
            "4:3: a key is a word, not a list or mapping",
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
    shared = SENDER + "ramp: &r {1: 20}\nconfig: {own: *r}\n"
    assert content(file, shared)["config"] == {"own": {"1": "20"}}
    endless = SENDER + "config: &c {again: *c}\n"
    assert mistakes(file, endless) == [
        "1:1: the sender is nested too deeply or too large"
    ]
    lists = ["config:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lists += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    laughs = SENDER + "\n".join(lists)
    assert mistakes(file, laughs) == [
        "1:1: the sender is nested too deeply or too large"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            SENDER + "rate_per_huor: 80\n",
            "4:1: unknown key rate_per_huor (did you mean rate_per_hour?)",
        ),
        (
            SEQUENCE + "    bdy: Hi\n",
            "8:5: unknown key steps[1].bdy (did you mean body?)",
        ),
        (SEQUENCE + "  - body: Hi\n", "8:5: steps[2] has no day"),
        (
            SEQUENCE + "  - day: 3\n",
            "8:5: steps[2] has no body or template or media or variants",
        ),
        (SEQUENCE.replace("WARM\n", "[x]\n"), "2:7: name must be text, not a list"),
        (
            SEQUENCE.replace("Hi", "{a: b}"),
            "7:11: steps[1].body must be text, not a mapping",
        ),
        (SEQUENCE.replace("Hi", "!!int 5"), "7:11: steps[1].body must be text"),
        (SEQUENCE.replace("Hi", "' '"), "7:11: steps[1].body: is blank"),
        (
            SEQUENCE.replace("WARMEXAMA", "a,b"),
            "3:10: trigger: 'a,b' is not one visible, trimmed word without commas",
        ),
        (SEQUENCE + "pool: ''\n", "8:7: pool: is blank"),
        (SEQUENCE + "goal: {}\n", "8:7: goal must be text, not a mapping"),
        (
            SEQUENCE + "status: actve\n",
            "8:9: status: 'actve' is not known (did you mean active?)",
        ),
        (SEQUENCE + "priority: 1000\n", "8:11: priority: 1000 is not from -999 to 999"),
        (
            SEQUENCE + "reentry: always\n",
            "8:10: reentry: 'always' is not known (one of never)",
        ),
        (
            SEQUENCE + "reentry: {after: 1 month}\n",
            f"8:18: reentry.after: '1 month' {NO_SPAN}",
        ),
        (
            SEQUENCE + "cap: {max: 1, per: -1 day}\n",
            f"8:20: cap.per: '-1 day' {NO_SPAN}",
        ),
        (
            SEQUENCE + "window: {from: 9, to: '21:00'}\n",
            "8:16: window.from: '9' is not a time of day such as 09:00",
        ),
        (
            SEQUENCE + "window: {from: 09:00, to: '21:00', days: []}\n",
            "8:42: window.days needs at least 1",
        ),
        (
            SEQUENCE.replace("steps:\n  - day: 1\n    body: Hi\n", "steps: Hi\n"),
            "5:8: steps: must be a list, not 'Hi'",
        ),
        (
            SEQUENCE + "  - {day: 1, body: Hi}\n",
            "8:11: day 1 follows day 1 (they must grow)",
        ),
        (
            SEQUENCE + "    wait_for: {event: x, timeout: 1 day, then: 6}\n",
            "8:48: then goes to day 6, which is no later step",
        ),
        (
            SEQUENCE.replace("Hi", "Hi {{name"),
            "7:11: steps[1].body: {{ without }} or }} without {{"
            " (write {{name}} or {{name|there}})",
        ),
        (
            SEQUENCE.replace("Hi", "Hi {{first name}}"),
            "7:11: steps[1].body: {{first name}} has no plain name"
            " (letters, digits and underscores)",
        ),
        (
            SEQUENCE.replace("Hi", "Hi {{nmae}}"),
            "7:11: steps[1].body: {{nmae}} is misspelt (did you mean {{name}}?)",
        ),
        (
            SEQUENCE + "    variants: [{weight: 1, body: a}, {weight: 1, body: b}]\n",
            "7:11: steps[1] has variants, so no body of its own",
        ),
        (
            SEQUENCE.replace("Hi", '"a\\0b"'),
            "7:11: steps[1].body: holds a character that no database can store",
        ),
        (
            SENDER + 'config: {a: "\\ud800"}\n',
            "4:13: config.a: holds a character that no database can store",
        ),
        (SENDER + "burst: 5\n", "4:8: burst is larger than rate_per_hour"),
        (
            SENDER + "ramp: {7: 50}\n",
            "4:7: ramp maps days of age to hourly rates, from day 1",
        ),
        (
            SENDER + "ramp: {1: 50, 7: 20}\n",
            "4:7: the rates of ramp must grow with the days",
        ),
        (
            SENDER + "hours: {from: 09:00, to: '17:00'}\n",
            "4:8: hours need a zone of their own, as Asia/Kuala_Lumpur",
        ),
        (
            SENDER + "secret: hunter 2\n",
            "4:9: secret: 'hunter 2' is not the name of a variable or file,"
            " never the secret itself",
        ),
        (
            SENDER + "config: {api_key: x}\n",
            "4:19: config.api_key looks like a credential"
            " (put it into the environment or a file, its name under secret)",
        ),
        ("kind: group\nname: a\nrate: 80\n", "3:7: rate and per belong together"),
        (
            "kind: group\nname: a\n",
            "1:1: the group has no rate or distinct_contacts_per_day",
        ),
    ],
)
def test_validation_names_the_place_of_what_no_definition_may_say(
    file: Path, text: str, told: str
) -> None:
    assert mistakes(file, text) == [told]


@pytest.mark.parametrize(
    "span",
    ["12 hours", "1 day 2 hours", "90s", "1.5 h", "00:05", "1 day 02:03:04", "P1DT2H"],
)
def test_a_span_that_passes_is_one_for_the_database_too(
    file: Path, db: Database, span: str
) -> None:
    read(file, SEQUENCE + f"    delay: {span!r}\n")
    row = db.execute("select pgdrip.is_span(%s::interval) as good", [span]).fetchone()
    assert row == {"good": True}


@pytest.mark.parametrize(
    "variable",
    "name nmae nam namee Name game phone phon emial e_mail first_name".split(),
)
def test_a_misspelt_variable_is_the_same_to_file_and_database(
    file: Path, db: Database, variable: str
) -> None:
    def accepts(check: Callable[[], object], error: type[Exception]) -> bool:
        try:
            check()
        except error:
            return False
        return True

    text = SEQUENCE.replace("Hi", f"Hi {{{{{variable}}}}}")
    spell = "select pgdrip.assert_spelling(array[%s], 'here')"
    assert accepts(lambda: read(file, text), BadDefinitions) == accepts(
        lambda: db.execute(spell, [variable]), psycopg.errors.Error
    )


def test_what_is_quoted_stays_text_and_a_tag_says_what_it_is(file: Path) -> None:
    sender = (
        SENDER + "burst: '2'\nrate_per_hour: 5\nconfig: {a: !!int 7, b: !!bool true}\n"
    )
    found = content(file, sender)
    assert (found["burst"], found["config"]) == ("2", {"a": 7, "b": True})


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
