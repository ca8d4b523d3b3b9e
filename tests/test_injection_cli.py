"""No text given to the command line, or shown by it, is taken for anything else."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import psycopg
import pytest
import yaml
from click.testing import CliRunner, Result
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import hostile
import stage
from databases import Databases
from pgdrip import cli
from stage import Db

DOCUMENTED = {0, 1, 2, 3, 4, 6, 7, 8, 10}
LEFT_OUT = {"demo"}  # it brings a server of its own
# What a command takes where it is not the argument that is tried. A secret that is not
# set keeps `serve` from starting, whatever else it is given.
GIVEN = {
    "address": "+60110000002",
    "contact": "2",
    "contacts": "5",
    "enrollment": "2",
    "from_schema": "legacy",
    "gowa_secrets": "NOT_SET",
    "keep": "400d",
    "looks": "1",
    "number": "1",
    "outcome": "sent",
    "pool": "default",
    "reason": "asked to",
    "sequence": "WARM Sequence",
    "sender": "device-0001",
    "shard_dsn": "host=127.0.0.1 port=1 dbname=nothing",
    "shell": "bash",
    "token": "1",
}
ALWAYS = {"gowa_secrets", "looks"}
FLAGS = {"yes", "once", "strict"}
ANSWERS = ("--json", "--show-sql")
LOUD = {"SQL", "terminal", "direction", "log line"}  # what an answer must not repeat
# What shows texts of contacts and operators, of each contact in the world.
SHOWN = (
    "export definitions|export contacts|export contacts --format jsonl"
    "|export deliveries|export progress|export progress --format jsonl|status|senders"
    "|failures|uncertain|funnel|check|doctor|top --count 1"
    "|person show ID|explain contact ID|explain enrollment ID|explain enroll NAME ID"
    "|simulate NAME --contact ID|pause sequence NAME --reason TEXT"
    "|pause sender NAME --reason TEXT|plan new.yaml|suppress TEXT --reason x --yes"
)


def leaves(
    command: click.Command, *path: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found
            yield from leaves(found, *path, name)
    else:
        yield path, command


COMMANDS = {
    " ".join(path): command
    for path, command in leaves(cli.main)
    if path[0] not in LEFT_OUT
}


@pytest.fixture(scope="module")
def world(server: Databases) -> Iterator[tuple[str, Db]]:
    """A database whose names, words and reasons are the texts, and its DSN."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        hostile.canary(db)
        stage.sender(db)
        stage.sequence(db)
        stage.leads(db, 4)
        yield dsn, db


def odd_person(db: Db, number: int, text: str) -> str:
    """Somebody whose every word is the text, in a sequence that has it, too, where one
    may be named so; what the sequence is called."""
    stage.lead(
        db, number, f"W{number}", p_name=text[:300], p_attributes=Jsonb({text: text})
    )
    name = f"S{number} {text}"
    steps = [{"day": 1, "body": f"{text} {{{{name|{number}}}}}"}]
    try:
        stage.sender(db, name, pool=f"P{number}", config={"url": text})
        stage.sequence(db, name, trigger=f"W{number}", steps=steps)
    except psycopg.errors.Error:
        name = f"S{number}"
        stage.sequence(db, name, trigger=f"W{number}", steps=stage.TWO_STEPS)
    db.execute("select pgdrip.add_trigger(%s, %s)", [number, f"W{number}"])
    return name


@pytest.fixture(scope="module")
def odd(server: Databases) -> Iterator[tuple[str, dict[int, str]]]:
    """A database where every send to odd people failed or is uncertain: its DSN, and
    the sequence of each of them."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        stage.sender(db)
        names = {}
        for number, text in enumerate(hostile.SHORT.values(), start=1):
            names[number] = odd_person(db, number, text)
            [message] = stage.claim(db)
            stage.begin(db, [message])
            outcome, code = ("failed", "content") if number % 2 else ("uncertain", None)
            db.execute(
                "select pgdrip.report(%s, %s, %s, null, %s, %s)",
                [*stage._ids([message]), [outcome], [code], [text]],
            )
        yield dsn, names


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands take what they write to for a terminal that draws nothing."""
    monkeypatch.setattr(
        "click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False
    )
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def arguments(command: click.Command, tried: str, text: str) -> list[str]:
    """The least a command needs, with the text for one of its parameters."""
    options: list[str] = []
    rest: list[str] = []
    for one in command.params:
        assert one.name
        value = text if one.name == tried else GIVEN.get(one.name, "people.csv")
        if isinstance(one, click.Argument):
            if one.required or one.name == tried:
                rest.append(value)
        elif isinstance(one, click.Option) and one.is_flag:
            options += [one.opts[-1]] if one.name in FLAGS else []
        elif one.required or one.name == tried or one.name in ALWAYS:
            options.append(f"{one.opts[-1]}={value}")
    return [*options, "--", *rest]


def run(dsn: str, *words: str) -> Result:
    return CliRunner().invoke(cli.main, words, env={"PGDRIP_DSN": dsn})


@pytest.mark.parametrize("name", COMMANDS)
def test_no_text_given_to_a_command_is_taken_for_anything_else(
    world: tuple[str, Db], tmp_path: Path, name: str
) -> None:
    dsn, db = world
    (tmp_path / "people.csv").write_text("phone\n+60123456789\n")
    plain = run(dsn, *name.split(), *arguments(COMMANDS[name], "", ""))
    assert "--help)" not in plain.output  # it is called as it wants to be
    before = hostile.schema(db)
    tried = [
        one.name
        for one in COMMANDS[name].params
        if one.name and not (isinstance(one, click.Option) and one.is_flag)
    ]
    has = [
        one for one in ANSWERS if any(one in of.opts for of in COMMANDS[name].params)
    ]
    for parameter, (what, text) in product(tried, hostile.TEXTS.items()):
        if what == "NUL":
            continue  # which ends an argument
        words = arguments(COMMANDS[name], parameter, text)
        for answer in ([], *([one] for one in has if what in LOUD)):
            done = run(dsn, *name.split(), *answer, *words)
            case = (parameter, what, *answer, done.exit_code, done.output[-300:])
            assert done.exit_code in DOCUMENTED, case
            assert "Traceback" not in done.output, case
            assert "unexpected" not in done.output, case
            assert hostile.is_quiet(done.output), case
    assert hostile.schema(db) == before
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("command", SHOWN.split("|"))
def test_what_a_command_shows_moves_no_cursor_and_hides_no_text(
    odd: tuple[str, dict[int, str]], tmp_path: Path, command: str
) -> None:
    dsn, names = odd
    new = {"kind": "sender", "name": hostile.TEXTS["direction"], "channel": "log"}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(new))
    for (what, text), (number, name) in zip(
        hostile.SHORT.items(), names.items(), strict=True
    ):
        given = {"ID": str(number), "NAME": name, "TEXT": text}
        words = [given.get(word, word) for word in command.split()]
        done = run(dsn, *words)
        assert done.exit_code in DOCUMENTED - {2, 4, 8}, (what, done.output)
        assert done.exit_code != 1 or "TEXT" in command, (what, done.output)
        assert "Traceback" not in done.output
        assert hostile.is_quiet(done.output), (what, done.output)


def test_json_on_a_terminal_says_the_same(odd: tuple[str, dict[int, str]]) -> None:
    dsn, _ = odd
    for number, text in enumerate(hostile.SHORT.values(), start=1):
        found = json.loads(run(dsn, "person", "show", str(number)).stdout)
        assert found["contact"]["attributes"] == {text: text}
