"""What gateways know: who can send, and what became of uncertain sends."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import click

from pgdrip import logs
from pgdrip.channels import Down, Failed, NotSent, Sent, Uncertain, Unknown
from pgdrip.cli.ask import json_option, to_json
from pgdrip.cli.database import database
from pgdrip.console import count, table
from pgdrip.errors import DatabaseUnavailable, UsageError
from pgdrip.probe import Probed
from pgdrip.probe import probe as probe_senders
from pgdrip.query import Answer
from pgdrip.reconcile import SETTLED, Reconciled
from pgdrip.reconcile import reconcile as reconcile_sends

logger = logging.getLogger(__name__)

PROBED = ("sender", "channel", "health", "change", "detail")
RECONCILED = (
    *("token", "enrollment", "channel", "recipient", "answer", "verdict", "detail"),
)

_channels = click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="NAME",
    help="Ask only these gateways; may be given several times.",
)


@click.command()
@_channels
@click.option(
    "--every",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Again and again, with this rest between; log what changes.",
)
@json_option
@click.pass_obj
def probe(
    dsn: str | None, channels: Sequence[str], every: float | None, as_json: bool
) -> None:
    """Ask gateways which senders can send; park and resume senders by it.

    Senders that were blocked, paused or retired are left alone.
    """
    if every and as_json:
        raise UsageError("--json is for one look", hint="leave out --every")
    logs.configure()
    where = database(dsn)
    if every is None:
        found = asyncio.run(probe_senders(where, channels=channels or None))
        _tell(PROBED, [_probe_row(one) for one in found], as_json)
    else:
        asyncio.run(_probe_forever(where, channels, every))


@click.command()
@_channels
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=SETTLED.total_seconds(),
    show_default=True,
    metavar="SECONDS",
    help="Leave out sends that began since then: they may be on their way.",
)
@json_option
@click.pass_obj
def reconcile(
    dsn: str | None, channels: Sequence[str], older_than: float, as_json: bool
) -> None:
    """Ask gateways what became of uncertain sends; settle what they know.

    What a gateway does not know stays uncertain.
    """
    logs.configure()
    done = asyncio.run(
        reconcile_sends(
            database(dsn),
            channels=channels or None,
            older_than=timedelta(seconds=older_than),
        )
    )
    _tell(RECONCILED, [_reconcile_row(one) for one in done], as_json)
    settled = sum(one.verdict is not None for one in done)
    click.echo(f"{settled} of {count(len(done), 'uncertain send')} settled", err=True)


def _tell(
    columns: Sequence[str], rows: Sequence[tuple[object, ...]], as_json: bool
) -> None:
    if as_json:
        click.echo(to_json(Answer(columns, rows).records()))
    else:
        table(columns, rows)


async def _probe_forever(dsn: str, channels: Sequence[str], every: float) -> None:
    """The first round tells what is wrong; after it an outage is waited out."""
    await probe_senders(dsn, channels=channels or None)
    while True:
        await asyncio.sleep(every)
        try:
            await probe_senders(dsn, channels=channels or None)
        except DatabaseUnavailable as error:
            logger.warning("a round was left out", extra={"error": error.message})


def _probe_row(one: Probed) -> tuple[object, ...]:
    match one.health:
        case Down(detail):
            health = "down"
        case Unknown(detail):
            health = "unknown"
        case _:
            health, detail = "up", ""
    return one.sender, one.channel, health, one.change, detail


def _reconcile_row(one: Reconciled) -> tuple[object, ...]:
    match one.answer:
        case Sent(provider_id):
            answer, detail = "sent", provider_id
        case Failed(code, detail):
            answer = f"failed {code}"
        case NotSent():
            answer, detail = "not sent", None
        case Uncertain(detail):
            answer = "unknown"
    verdict = one.verdict
    return (
        *(one.token, one.enrollment_id, one.channel, one.recipient),
        *(answer, verdict, detail),
    )
