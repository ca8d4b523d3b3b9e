"""What goes on, and whether all is well."""

import asyncio
from datetime import timedelta

import click

from pgdrip import live
from pgdrip.cli.ask import asks, one, rows, sql_option
from pgdrip.cli.database import database, with_engine
from pgdrip.cli.types import SPAN
from pgdrip.console import count, span, table
from pgdrip.engine import Engine
from pgdrip.errors import InvariantViolated, PgdripError
from pgdrip.query import Answer, Query, rows_of, view

LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=50,
    show_default=True,
    help="At most so many.",
)


@click.command()
@asks(one)
def status() -> Query:
    """The whole queue in one row."""
    return view("queue_health")


@click.command()
@click.option("--pool", help="Only of this pool.")
@click.option("--channel", help="Only of this channel.")
@asks(rows)
def senders(pool: str | None, channel: str | None) -> Query:
    """Each sender: its limits, what it sent, what waits for it."""
    return view("sender_load", where={"pool": pool, "channel": channel}, order="sender")


@click.command()
@click.argument("sequence", required=False)
@asks(rows)
def funnel(sequence: str | None) -> Query:
    """How many stand at which step, of SEQUENCE or of all."""
    return view("sequence_funnel", where={"sequence": sequence}, order="sequence, step")


@click.command()
@click.option("--sequence", help="Only of this sequence.")
@click.option("--sender", help="Only of this sender.")
@click.option("--since", type=SPAN, help="Not older than, such as 1h or 7 days.")
@LIMIT
@asks(rows)
def failures(
    sequence: str | None, sender: str | None, since: timedelta | None, limit: int
) -> Query:
    """What failed, the latest first, each with its class and reason."""
    return view(
        "failures",
        where={"sequence": sequence, "sender": sender},
        since=since,
        order="at desc",
        limit=limit,
    )


@click.command()
@click.option("--sequence", help="Only of this sequence.")
@click.option("--sender", help="Only of this sender.")
@LIMIT
@asks(rows)
def uncertain(sequence: str | None, sender: str | None, limit: int) -> Query:
    """Sends whose outcome nobody knows, the oldest first; see `pgdrip resolve`."""
    return view(
        "uncertain_deliveries",
        where={"sequence": sequence, "sender": sender},
        order="begun_at",
        limit=limit,
    )


def violations(answer: Answer) -> None:
    if answer.rows:
        table(answer.columns, answer.rows)
    else:
        click.echo("every invariant holds")


@click.command()
@asks(violations, refuses=lambda answer: _broken(len(answer.rows)))
def check() -> Query:
    """Ask the database whether every invariant holds; exit 7 if one does not."""
    return rows_of("check")


def _broken(number: int) -> None:
    if number:
        raise InvariantViolated(count(number, "violation"))


@click.command()
@click.option(
    "--runners",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="At least so many seen within a minute.",
)
@click.option("--overdue", type=SPAN, help="Nothing due may have waited longer.")
@sql_option
@click.pass_obj
def healthcheck(
    dsn: str | None, runners: int, overdue: timedelta | None, show_sql: bool
) -> None:
    """Exit 0 if the engine can work, for containers and monitors."""
    if show_sql:
        click.echo(live.HEALTH)
        click.echo(live.NOW)
        return

    async def look(engine: Engine) -> tuple[Answer, Answer]:
        return await engine.ask(live.HEALTH), await engine.ask(live.NOW)

    answer, clock = with_engine(dsn, look)
    [health] = answer.records()
    waited = clock.value - (health["oldest_due_at"] or clock.value)
    if health["is_locked"]:
        raise PgdripError("the engine is locked", hint="see `pgdrip unlock --help`")
    if health["runners_alive"] < runners:
        raise PgdripError(f"{count(health['runners_alive'], 'runner')} alive")
    if overdue is not None and waited > overdue:
        raise PgdripError(f"the oldest due message has waited {span(waited)}")
    click.echo("healthy")


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds from one look to the next.",
)
@click.option(
    "--count", "looks", type=click.IntRange(min=1), help="Stop after so many."
)
@sql_option
@click.pass_obj
def top(dsn: str | None, every: float, looks: int | None, show_sql: bool) -> None:
    """Watch the queue and its busiest senders, live; Ctrl-C ends."""
    if show_sql:
        for query in (live.NOW, live.HEALTH, live.LOAD):
            click.echo(query)
        return
    asyncio.run(live.watch(database(dsn), every=every, looks=looks))
