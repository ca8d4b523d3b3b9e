"""One person's data: all of it, or none any more."""

import click

from pgdrip.cli.ask import asks, done, for_good, reason, to_json
from pgdrip.cli.types import CONTACT
from pgdrip.query import Call, Query, value_of


@click.group()
def person() -> None:
    """Hand out or erase what is kept of one person."""


@person.command()
@click.argument("contact", type=CONTACT)
@asks(lambda answer: click.echo(to_json(answer.value)))
def show(contact: int | Call) -> Query:
    """Print everything that is kept of CONTACT, as JSON."""
    return value_of("export_contact", contact=contact)


@person.command()
@click.argument("contact", type=CONTACT)
@reason
@for_good
@asks(done)
def erase(contact: int | Call, reason: str) -> Query:
    """Erase CONTACT: ids, hashes and times stay, and that it is not to be messaged."""
    return value_of("erase_contact", contact=contact, reason=reason)
