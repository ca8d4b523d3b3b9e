"""Why something is so, and what is to come."""

from datetime import datetime

import click

from pgdrip.cli.ask import asks, one, rows, value
from pgdrip.cli.types import CONTACT, ID, INSTANT
from pgdrip.console import printable, span, table
from pgdrip.query import Answer, Call, Query, rows_of, value_of, view


@click.group()
def explain() -> None:
    """Say where someone stands, and why."""


@explain.command("contact")
@click.argument("contact", type=CONTACT)
@asks(rows)
def explain_contact(contact: int | Call) -> Query:
    """Where CONTACT (an id, a phone or an e-mail) stands in each sequence, and why."""
    return rows_of("explain_contact", contact=contact)


@explain.command("enrollment")
@click.argument("enrollment", type=ID)
@asks(rows)
def explain_enrollment(enrollment: int) -> Query:
    """Every step of ENROLLMENT, with what became of it."""
    return view(
        "sequence_progress",
        columns=(
            *("sequence", "contact_id", "recipient", "step", "current_state"),
            *("due_at", "sent_at", "attempts", "error_class", "error_detail"),
        ),
        where={"enrollment_id": enrollment},
        order="step",
    )


@explain.command("enroll")
@click.argument("sequence")
@click.argument("contact", type=CONTACT)
@asks(value)
def explain_enroll(sequence: str, contact: int | Call) -> Query:
    """Why CONTACT is or is not in SEQUENCE."""
    return value_of("explain_enroll", sequence=sequence, contact=contact)


def timeline(answer: Answer) -> None:
    """Show the steps as a table and, for the eye, as a line of time."""
    table(answer.columns, answer.rows)
    click.echo()
    before: datetime | None = None
    for step, due_at, send_at, body in answer.rows:
        if before and due_at > before:
            click.echo(f"{'':>26}┆ {span(due_at - before)}")
        local = (send_at or due_at).astimezone().strftime("%a %Y-%m-%d %H:%M %Z")
        mark = "●" if send_at else "○ skipped,"
        text = printable(" ".join((body or "").split()))
        click.echo(f"{local:>25} {mark} step {step}  {text[:36]}".rstrip())
        before = send_at or due_at


@click.command()
@click.argument("sequence")
@click.option("--start", type=INSTANT, help="When it begins.  [default: now]")
@click.option(
    "--contact", type=CONTACT, help="For whom; else for nobody in particular."
)
@asks(timeline)
def simulate(
    sequence: str, start: datetime | None, contact: int | Call | None
) -> Query:
    """Show when each step of SEQUENCE would go out; nothing is written."""
    at = start or Call("clock", {})
    return rows_of("simulate", sequence=sequence, start=at, contact=contact)


@click.command()
@click.argument("sequence")
@click.argument("contacts", type=click.IntRange(1, 2**31 - 1))
@asks(one)
def forecast(sequence: str, contacts: int) -> Query:
    """Say when so many more CONTACTS in SEQUENCE would be done."""
    return rows_of("forecast", sequence=sequence, contacts=contacts)
