"""Definitions and rows out of the database."""

from pathlib import Path
from typing import IO

import click

from pgdrip.cli.ask import sql_option
from pgdrip.cli.database import with_engine
from pgdrip.console import Screen, echo
from pgdrip.engine import Engine
from pgdrip.errors import UsageError
from pgdrip.export import to_yaml, writer
from pgdrip.query import CONTACTS, Query, rows_of, view

QUERIES = {
    "definitions": rows_of("export_definitions"),
    "contacts": CONTACTS,
    "deliveries": view("delivery_events", order="at, enrollment_id"),
    "progress": view("sequence_progress", order="enrollment_id, step"),
}


@click.command()
@click.argument("what", type=click.Choice(list(QUERIES)), default="definitions")
@click.option(
    "--format", "form", type=click.Choice(["csv", "jsonl"]), help="[default: csv]"
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write to this file.  [default: standard output]",
)
@sql_option
@click.pass_obj
def export(
    dsn: str | None, what: str, form: str | None, output: Path | None, show_sql: bool
) -> None:
    """Write definitions (as YAML), contacts, deliveries or progress.

    Applying exported definitions changes nothing. In CSV a ' is put before what a
    spreadsheet would run as a formula.
    """
    query = QUERIES[what]
    if show_sql:
        echo(query)
    elif what != "definitions":
        with_engine(dsn, lambda engine: _rows(engine, query, form or "csv", output))
    elif form:
        raise UsageError("definitions are written as YAML", hint="leave out --format")
    else:
        found = with_engine(dsn, lambda engine: engine.export_definitions())
        with click.open_file(str(output or "-"), "w", encoding="utf-8") as file:
            _seen(file).write(to_yaml(found))


async def _rows(engine: Engine, query: Query, form: str, output: Path | None) -> None:
    write = None
    with click.open_file(str(output or "-"), "w", encoding="utf-8") as file:
        async for answer in engine.stream(query):
            write = write or writer(form, answer.columns, _seen(file))
            for row in answer.rows:
                write(row)


def _seen(file: IO[str]) -> IO[str] | Screen:
    return Screen(file) if file.isatty() else file
