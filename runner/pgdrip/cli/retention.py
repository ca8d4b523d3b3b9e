"""How long history is kept."""

from datetime import timedelta

import click

from pgdrip.cli.ask import asks, done, for_good, one
from pgdrip.cli.types import SPAN
from pgdrip.query import Query, value_of, view


@click.group()
def retention() -> None:
    """Say or change how long history is kept."""


@retention.command()
@asks(one)
def show() -> Query:
    """How long history is kept, how much there is, and since when it is whole."""
    return view("history_retention")


@retention.command("set")
@click.argument("keep", type=SPAN)
@click.option("--detach", is_flag=True, help="Leave old months as tables to archive.")
@for_good
@asks(done)
def set_(keep: timedelta, detach: bool) -> Query:
    """Keep history for KEEP, such as 365d; months older than that go for good."""
    return value_of("set_retention", keep=keep, detach=detach)


@retention.command()
@asks(done)
def off() -> Query:
    """Keep history for ever; what is gone stays gone."""
    return value_of("set_retention", keep=None)
