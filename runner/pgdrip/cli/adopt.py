"""Adoption of a legacy system."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from pgdrip.adopt import Adopted, Options
from pgdrip.adopt import adopt as run
from pgdrip.cli.ask import to_json
from pgdrip.cli.database import database
from pgdrip.console import Terminal, count, table
from pgdrip.engine import MERGE_TIMEOUT, Engine
from pgdrip.errors import RowsRejected
from pgdrip.export import writer

ACCOUNTS = ("table", "outcome", "rows")
NOTES = ("table", "how or why", "rows")
REPORT = ("table", "id", "outcome", "why", "object")


@click.command()
@click.option("--from-schema", required=True, help="Schema of the legacy tables.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@click.option(
    "--legacy-timezone",
    default="UTC",
    show_default=True,
    help="Zone that the legacy times are written in.",
)
@click.option("--contact-timezone", help="Zone the contacts live in.  [default: UTC]")
@click.option("--region", help="Country of phones without its code, such as MY.")
@click.option("--channel", default="gowa", show_default=True, help="Of the senders.")
@click.option(
    "--rate-per-hour",
    type=click.IntRange(1, 1_000_000),
    default=80,
    show_default=True,
    help="Of each sender.",
)
@click.option(
    "--rate-per-day",
    type=click.IntRange(1, 10_000_000),
    default=800,
    show_default=True,
    help="Of each sender.",
)
@click.option(
    "--in-doubt",
    type=click.Choice(["park", "sent", "unsent"]),
    default="park",
    show_default=True,
    help="What to take a send for that nobody can prove.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what became of every row to this CSV file.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_obj
def adopt(
    dsn: str | None,
    /,
    from_schema: str,
    dry_run: bool,
    legacy_timezone: str,
    contact_timezone: str | None,
    report: Path | None,
    as_json: bool,
    **more: Any,
) -> None:
    """Take over a running legacy system from its tables.

    Repairs what was broken there and enrolls everybody at the step that comes next.
    Stop the legacy system first. Adopting twice changes nothing.
    """
    options = Options(
        schema=from_schema, zone=legacy_timezone, contact_zone=contact_timezone, **more
    )
    with ExitStack() as stack:
        on_row = None
        if report:
            file = stack.enter_context(report.open("w", newline="", encoding="utf-8"))
            on_row = writer("csv", REPORT, file)
        status = stack.enter_context(Terminal(stderr=True).status("adopting…"))

        async def work() -> Adopted:
            dsn_used = database(dsn)
            async with await Engine.connect(dsn_used, timeout=MERGE_TIMEOUT) as engine:
                return await run(
                    engine,
                    options,
                    dry_run=dry_run,
                    on_row=on_row,
                    on_phase=lambda phase: status.update(f"{phase}…"),
                )

        done = asyncio.run(work())
    _show(done, as_json=as_json, dry_run=dry_run)
    refused = sum(rows for _, outcome, rows in done.accounts if outcome == "refused")
    if refused:
        raise RowsRejected(
            f"{count(refused, 'row')} refused",
            hint=f"see {report}" if report else "--report FILE tells which and why",
        )


def _show(done: Adopted, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        accounts = [dict(zip(ACCOUNTS, row, strict=True)) for row in done.accounts]
        notes = [
            dict(zip(("table", "why", "rows"), row, strict=True)) for row in done.notes
        ]
        found = {"enrolled": done.enrolled, "accounts": accounts, "notes": notes}
        click.echo(to_json(found))
        return
    table(ACCOUNTS, done.accounts)
    click.echo()
    table(NOTES, done.notes)
    click.echo()
    what = "would be made" if dry_run else "made"
    click.echo(f"{count(done.enrolled, 'enrollment')} {what}")
