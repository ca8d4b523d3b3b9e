"""Commands that are one question to the database: `--show-sql`, `--json`, `--yes`."""

import functools
import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from pgdrip.cli.database import with_engine
from pgdrip.console import echo, printable_json, record, table
from pgdrip.errors import UsageError
from pgdrip.query import Answer, Query

Show = Callable[[Answer], None]
Command = Callable[..., Any]


def asks(
    show: Show, *, refuses: Show = lambda answer: None
) -> Callable[[Callable[..., Query]], Command]:
    """Turn a function that puts a question together into a command that asks it.

    `show` writes the answer for people; --json writes it for scripts: a value as it is,
    rows as a list of objects. `refuses` may then raise for the sake of the exit code.
    """

    def decorate(put: Callable[..., Query]) -> Command:
        @json_option
        @sql_option
        @click.pass_obj
        def command(dsn: str | None, /, **given: Any) -> None:
            as_json, show_sql = given.pop("as_json"), given.pop("show_sql")
            yes = given.pop("yes", None)
            query = put(**given)
            if show_sql:
                echo(query)
                return
            if yes is False:
                _confirm()
            answer = with_engine(dsn, lambda engine: engine.ask(query))
            if as_json:
                echo(to_json(answer.value if query.is_value else answer.records()))
            else:
                show(answer)
            refuses(answer)

        return functools.update_wrapper(command, put)

    return decorate


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(
        command
    )


def sql_option(command: Command) -> Command:
    return click.option(
        "--show-sql", is_flag=True, help="Print the SQL, do not run it."
    )(command)


def for_good(command: Command) -> Command:
    """Ask first, since nothing takes the command back; --yes answers."""
    return click.option("--yes", is_flag=True, help="Do not ask first.")(command)


def _confirm() -> None:
    path = click.get_current_context().command_path
    if not sys.stdin.isatty():
        raise UsageError(f"{path} cannot be undone", hint="confirm it with --yes")
    if not click.confirm(f"{path} cannot be undone. Go on?", err=True):
        raise click.Abort


def reason(command: Command) -> Command:
    """Why; the audit keeps it."""
    return click.option(
        "--reason", required=True, help="Why, for whoever looks at it later."
    )(command)


def done(answer: Answer) -> None:
    """Show whether something changed."""
    click.echo("done" if answer.value else "nothing changed: it was so already")


def value(answer: Answer) -> None:
    echo(answer.value)


def rows(answer: Answer) -> None:
    table(answer.columns, answer.rows)


def one(answer: Answer) -> None:
    """Show a single row, one column below the other."""
    [row] = answer.rows
    record(answer.columns, row)


def to_json(found: Any) -> str:
    text = json.dumps(found, default=_plain, ensure_ascii=False, indent=2)
    return printable_json(text)


def _plain(found: Any) -> Any:
    if isinstance(found, datetime):
        return found.isoformat()
    if isinstance(found, timedelta):
        return found.total_seconds()
    return int(found) if found == int(found) else float(found)  # numeric
