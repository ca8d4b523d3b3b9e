"""The runner daemon."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import click

from pgdrip import daemon, logs
from pgdrip.cli.database import database
from pgdrip.cli.types import ADDRESS
from pgdrip.settings import Settings

NAME_LIMIT = 63  # bytes; what the database takes
DEFAULT = Settings()


def _short(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    if name is None or (
        name.strip() and name.isprintable() and len(name.encode()) <= NAME_LIMIT
    ):
        return name
    raise click.BadParameter(f"1 to {NAME_LIMIT} bytes of visible text are a name")


@click.command()
@click.option(
    "--name", callback=_short, help="Name of this runner.  [default: host:process]"
)
@click.option(
    "--channel",
    "--channels",
    "channels",
    multiple=True,
    help="Channel to serve; may be given several times.  [default: all installed]",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    default=DEFAULT.slots,
    show_default=True,
    help="Messages in flight at once.",
)
@click.option(
    "--per-sender",
    type=click.IntRange(1, 10_000),
    default=DEFAULT.per_sender,
    show_default=True,
    help="Messages of one sender on the wire at once.",
)
@click.option(
    "--timeout",
    type=click.IntRange(1, 3599),
    default=int(DEFAULT.timeout),
    show_default=True,
    help="Seconds one send may take.",
)
@click.option(
    "--lease",
    type=click.IntRange(2, 3600),
    default=int(DEFAULT.lease),
    show_default=True,
    help="Seconds a claimed message is this runner's alone; more than the timeout.",
)
@click.option(
    "--grace",
    type=click.IntRange(0, 3600),
    default=int(DEFAULT.grace),
    show_default=True,
    help="Seconds to end what is in flight, when stopped.",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for what is sent and not reported yet; needs --name.",
)
@click.option(
    "--health-address",
    metavar="HOST:PORT",
    type=ADDRESS,
    help="Serve /livez, /readyz and /metrics there.",
)
@click.option("--once", is_flag=True, help="Stop when nothing is due.")
@click.option("--verbose", is_flag=True, help="Log each report, too.")
@click.pass_obj
def run(
    dsn: str | None,
    *,
    name: str | None,
    channels: Sequence[str],
    slots: int,
    per_sender: int,
    timeout: int,
    lease: int,
    grace: int,
    spool: Path | None,
    health_address: tuple[str, int] | None,
    once: bool,
    verbose: bool,
) -> None:
    """Send what is due, until SIGTERM or Ctrl-C; then finish what is in flight."""
    if spool and not name:
        raise click.UsageError(
            "--spool needs --name: whose results are they next time?"
        )
    logs.configure(logging.DEBUG if verbose else logging.INFO)
    settings = Settings(
        name=name or DEFAULT.name,
        slots=slots,
        per_sender=per_sender,
        timeout=timeout,
        lease=lease,
        grace=grace,
        spool=spool,
    )
    asyncio.run(
        daemon.run(
            database(dsn),
            channels=channels or None,
            settings=settings,
            once=once,
            health_address=health_address,
        )
    )
