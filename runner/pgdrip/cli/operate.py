"""What an operator decides: pause, resume, end, retry, settle, unlock."""

from datetime import datetime

import click

from pgdrip.cli.ask import asks, done, for_good, reason, value
from pgdrip.cli.types import CONTACT, ID, INSTANT
from pgdrip.query import Call, Query, value_of


@click.group()
def pause() -> None:
    """Hold a sequence, a sender, an enrollment or everything."""


@pause.command("sequence")
@click.argument("sequence")
@reason
@asks(done)
def pause_sequence(sequence: str, reason: str) -> Query:
    """Send nothing of SEQUENCE; people still get in."""
    return value_of("pause_sequence", sequence=sequence, reason=reason)


@pause.command("sender")
@click.argument("sender")
@reason
@asks(done)
def pause_sender(sender: str, reason: str) -> Query:
    """Send nothing by SENDER; its work stays due."""
    return value_of("pause_sender", sender=sender, reason=reason)


@pause.command("enrollment")
@click.argument("enrollment", type=ID)
@reason
@asks(done)
def pause_enrollment(enrollment: int, reason: str) -> Query:
    """Hold one ENROLLMENT where it is."""
    return value_of("pause_enrollment", enrollment=enrollment, reason=reason)


@pause.command("all")
@reason
@asks(done)
def pause_all(reason: str) -> Query:
    """Hand out and begin nothing at all."""
    return value_of("pause_all", reason=reason)


@click.group()
def resume() -> None:
    """Let go on what was paused."""


@resume.command("sequence")
@click.argument("sequence")
@click.option(
    "--keep-remaining",
    is_flag=True,
    help="Make everything later by the length of the pause.",
)
@asks(done)
def resume_sequence(sequence: str, keep_remaining: bool) -> Query:
    """Send SEQUENCE again; what is overdue goes out at the senders' pace."""
    return value_of("resume_sequence", sequence=sequence, keep_remaining=keep_remaining)


@resume.command("sender")
@click.argument("sender")
@asks(done)
def resume_sender(sender: str) -> Query:
    """Take a paused, down or blocked SENDER back into service."""
    return value_of("resume_sender", sender=sender)


@resume.command("enrollment")
@click.argument("enrollment", type=ID)
@asks(done)
def resume_enrollment(enrollment: int) -> Query:
    """Let a paused ENROLLMENT go on."""
    return value_of("resume_enrollment", enrollment=enrollment)


@resume.command("all")
@asks(done)
def resume_all() -> Query:
    """Work again after `pause all`."""
    return value_of("resume_all")


@click.command()
@click.argument("sequence")
@asks(done)
def activate(sequence: str) -> Query:
    """Let a draft or archived SEQUENCE take people in and send."""
    return value_of("activate_sequence", sequence=sequence)


@click.command()
@click.argument("sequence")
@asks(done)
def archive(sequence: str) -> Query:
    """Take nobody into SEQUENCE any more; who is in it goes on to the end."""
    return value_of("archive_sequence", sequence=sequence)


@click.command()
@click.argument("sequence")
@click.argument("contact", type=CONTACT)
@click.option("--at", type=INSTANT, help="When the first step is due.  [default: now]")
@asks(lambda answer: click.echo(f"enrollment {answer.value}"))
def enroll(sequence: str, contact: int | Call, at: datetime | None) -> Query:
    """Start SEQUENCE for CONTACT: an id, a phone or an e-mail."""
    return value_of("enroll", sequence=sequence, contact=contact, start_at=at)


@click.command("exit")
@click.argument("enrollment", type=ID)
@reason
@for_good
@asks(done)
def exit_(enrollment: int, reason: str) -> Query:
    """End ENROLLMENT; nothing more of it is sent."""
    return value_of("exit_enrollment", enrollment=enrollment, reason=reason)


@click.command()
@click.argument("address")
@reason
@for_good
@asks(done)
def suppress(address: str, reason: str) -> Query:
    """Never message ADDRESS again; its enrollments end."""
    return value_of("suppress", address=address, reason=reason)


@click.command()
@click.argument("address")
@reason
@asks(done)
def unsuppress(address: str, reason: str) -> Query:
    """Allow messages to ADDRESS again; ended enrollments stay ended."""
    return value_of("unsuppress", address=address, reason=reason)


@click.command()
@click.argument("enrollment", type=ID)
@reason
@asks(done)
def retry(enrollment: int, reason: str) -> Query:
    """Make a failed ENROLLMENT due again at the step that failed."""
    return value_of("retry_failed", enrollment=enrollment, reason=reason)


@click.command()
@click.argument("token", type=ID)
@click.argument("outcome", type=click.Choice(["sent", "not_sent"]))
@for_good
@asks(value)
def resolve(token: int, outcome: str) -> Query:
    """Settle the uncertain send TOKEN, as `pgdrip uncertain` lists it."""
    return value_of("resolve_uncertain", token=token, outcome=outcome)


@click.command()
@reason
@for_good
@asks(done)
def unlock(reason: str) -> Query:
    """Let a restored, copied or failed-over database work again.

    Whatever may have been sent already is parked as uncertain.
    """
    return value_of("unlock", reason=reason)


@click.group()
def sender() -> None:
    """Retire, move or delete a sender."""


@sender.command()
@click.argument("sender")
@click.option(
    "--move-to", metavar="POOL", help="Pool whose senders take over its work."
)
@for_good
@asks(done)
def retire(sender: str, move_to: str | None) -> Query:
    """Take SENDER out of service for good; its name and history stay."""
    return value_of("retire_sender", sender=sender, move_to_pool=move_to)


@sender.command()
@click.argument("sender")
@click.argument("pool")
@asks(done)
def move(sender: str, pool: str) -> Query:
    """Put SENDER into another POOL; its work goes to the others of its old one."""
    return value_of("move_sender", sender=sender, pool=pool)


@sender.command()
@click.argument("sender")
@for_good
@asks(done)
def delete(sender: str) -> Query:
    """Remove a retired SENDER; history stays."""
    return value_of("delete_sender", sender=sender)
