"""The demo."""

import click

from pgdrip import demo as play
from pgdrip.console import Terminal


@click.command("demo")
@click.option(
    "--contacts",
    type=click.IntRange(min=1),
    help="Only the first so many of the contacts.  [default: all]",
)
@click.option("--keep", is_flag=True, help="Leave the database running for psql.")
def demo_(contacts: int | None, keep: bool) -> None:
    """Play a week of messages in a minute, on a database of its own."""
    play.run(Terminal(highlight=False), people=contacts, keep=keep)
