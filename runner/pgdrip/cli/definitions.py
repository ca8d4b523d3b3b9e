"""Sequences, senders and groups as code."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from psycopg.types.json import Jsonb

from pgdrip import definitions
from pgdrip import plan as planning
from pgdrip.cli.ask import json_option, sql_option, to_json
from pgdrip.cli.database import with_engine
from pgdrip.console import count, echo, table
from pgdrip.query import Query, rows_of, value_of

DIFFERENT = 10

F = TypeVar("F", bound=Callable[..., Any])


def files_argument(command: F) -> F:
    return click.argument(
        "files",
        nargs=-1,
        required=True,
        metavar="FILE…",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
    )(command)


@click.command()
@files_argument
def validate(files: Sequence[Path]) -> None:
    """Find every mistake of YAML files, with line and column; needs no database."""
    found = definitions.load(files)
    click.echo(f"{count(len(found), 'definition')}, no mistake")


@click.command()
@files_argument
@json_option
@sql_option
@click.pass_context
def plan(
    context: click.Context, files: Sequence[Path], as_json: bool, show_sql: bool
) -> None:
    """Say what applying YAML files would change; exit 10 if anything.

    For a sequence with people in it, how many each choice of in_flight leaves where
    they are, moves, and meets on a step that the new version lacks.
    """
    found = definitions.load(files)
    if show_sql:
        for statement in _planning(found):
            echo(statement)
        return
    changes = with_engine(context.obj, lambda engine: planning.plan(engine, found))
    if as_json:
        click.echo(to_json([_plain(one) for one in changes]))
    else:
        for change in changes:
            _show(change)
    if any(change.outcome != "unchanged" for change in changes):
        context.exit(DIFFERENT)


def _show(change: planning.Change) -> None:
    one = change.definition
    echo(f"{one.kind} {one.name}: {change.outcome}")
    for line in change.differences:
        echo(f"    {line}")
    for choice, counts in change.in_flight.items():
        click.echo(
            f"    {count(counts.in_flight, 'enrollment')} in flight under {choice}:"
            f" {counts.stays:,} stay, {counts.moves:,} move,"
            f" {counts.stranded:,} on a step that is gone"
        )


def _plain(change: planning.Change) -> dict[str, Any]:
    return {
        "kind": change.definition.kind,
        "name": change.definition.name,
        "outcome": change.outcome,
        "differences": change.differences,
        "in_flight": {
            choice: {
                "in_flight": counts.in_flight,
                "stays": counts.stays,
                "moves": counts.moves,
                "stranded": counts.stranded,
            }
            for choice, counts in change.in_flight.items()
        },
    }


@click.command()
@files_argument
@json_option
@sql_option
@click.pass_obj
def apply(
    dsn: str | None, files: Sequence[Path], as_json: bool, show_sql: bool
) -> None:
    """Publish the sequences, senders and groups of YAML files, all or none."""
    found = definitions.load(files)
    if show_sql:
        for one in definitions.in_order(found):
            echo(_statement(one.kind, one.content))
        return
    applied = with_engine(dsn, lambda engine: definitions.apply(engine, found))
    columns = ["kind", "name", "outcome", "note"]
    rows = [
        (one.definition.kind, one.definition.name, one.outcome, one.note)
        for one in applied
    ]
    if as_json:
        click.echo(to_json([dict(zip(columns, row, strict=True)) for row in rows]))
    else:
        table(columns, rows)


def _planning(found: Sequence[definitions.Definition]) -> Iterator[object]:
    """What plan() asks, but for what the other choices of in_flight would mean."""
    yield "begin;"
    for one in definitions.in_order(found):
        dry = {"dry_run": True} if one.kind == "sequence" else {}
        yield _statement(one.kind, one.content | dry)
    yield rows_of("export_definitions")
    yield "rollback;"


def _statement(kind: str, content: dict[str, Any]) -> Query:
    if kind == "sequence":
        return rows_of("apply_sequence", definition=Jsonb(content))
    name = "apply_group" if kind == "group" else "apply_sender"
    return value_of(name, definition=Jsonb(content))
