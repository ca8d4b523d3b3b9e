"""What gateways know: who can send, and what became of uncertain sends."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import click

from pgdrip import logs
from pgdrip.channels import Down, Failed, NotSent, Sent, Uncertain, Unknown
from pgdrip.cli.database import database
from pgdrip.console import count, table
from pgdrip.errors import DatabaseUnavailable
from pgdrip.probe import Probed
from pgdrip.probe import probe as probe_senders
from pgdrip.reconcile import SETTLED, Reconciled
from pgdrip.reconcile import reconcile as reconcile_sends

logger = logging.getLogger(__name__)

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
@click.pass_obj
def probe(dsn: str | None, channels: Sequence[str], every: float | None) -> None:
    """Ask gateways which senders can send; park and resume senders by it.

    Senders that were blocked, paused or retired are left alone.
    """
    logs.configure()
    where = database(dsn)
    if every is None:
        found = asyncio.run(probe_senders(where, channels=channels or None))
        table(
            ["sender", "channel", "health", "change", "detail"],
            [_probe_row(one) for one in found],
        )
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
@click.pass_obj
def reconcile(dsn: str | None, channels: Sequence[str], older_than: float) -> None:
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
    table(
        ["token", "enrollment", "channel", "recipient", "answer", "verdict", "detail"],
        [_reconcile_row(one) for one in done],
    )
    settled = sum(one.verdict is not None for one in done)
    click.echo(f"{settled} of {count(len(done), 'uncertain send')} settled", err=True)


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
