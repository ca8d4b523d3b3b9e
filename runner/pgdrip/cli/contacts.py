"""Contacts: in, enrolled, explained."""

import csv
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click
from rich.progress import BarColumn, Progress, TextColumn

from pgdrip.cli.ask import json_option, sql_option, to_json
from pgdrip.cli.database import with_engine
from pgdrip.console import Terminal, complain, count, echo
from pgdrip.contacts import Imported, Reject, import_csv, statements
from pgdrip.engine import Engine
from pgdrip.errors import RowsRejected, UsageError

SHOWN_REJECTS = 20


@click.command("import")
@click.argument(
    "file",
    metavar="FILE.csv",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
)
@click.option("--pool", default="default", show_default=True, help="Whose contacts.")
@click.option(
    "--map",
    "renamed",
    multiple=True,
    metavar="COLUMN=FIELD",
    help="What a column of the file is called here; may be given several times.",
)
@click.option("--region", help="Country of numbers without a +, such as MY.")
@click.option("--strict", is_flag=True, help="Import nothing if any line is bad.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write every bad line to this CSV file: line, column, reason.",
)
@json_option
@sql_option
@click.pass_obj
def import_(
    dsn: str | None,
    file: str,
    pool: str,
    renamed: Sequence[str],
    region: str | None,
    strict: bool,
    rejects: Path | None,
    as_json: bool,
    show_sql: bool,
) -> None:
    """Import contacts from a CSV file; - reads standard input.

    The first line names the columns: phone, email, name, timezone, trigger (several
    separated by ;), sender. Every other column becomes an attribute. Killed midway it
    leaves nothing; importing again updates.
    """
    mapping = _mapping(renamed)
    if show_sql:
        with click.open_file(file, "rb") as stream:
            for statement in statements(stream, pool=pool, mapping=mapping):
                echo(statement)
        return
    if rejects:
        _require_writable(rejects, file)
    terminal = Terminal(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("line {task.fields[line]:,}"),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    )
    size = Path(file).stat().st_size if file != "-" else None
    bar = progress.add_task("importing", total=size, line=0)

    async def work(engine: Engine) -> Imported:
        return await import_csv(
            engine,
            stream,
            pool=pool,
            region=region,
            mapping=mapping,
            strict=strict,
            on_progress=advance,
        )

    def advance(line: int, position: int) -> None:
        progress.update(bar, completed=position, line=line)

    signal.signal(signal.SIGINT, _interrupt)
    with click.open_file(file, "rb") as stream, progress:
        done = with_engine(dsn, work)
    if rejects:
        _write_rejects(rejects, done.rejects)
    _tell(done, rejects, as_json=as_json)


def _tell(done: Imported, rejects: Path | None, *, as_json: bool) -> None:
    imported = f"{count(done.contacts, 'contact')} imported"
    if as_json:
        click.echo(to_json(asdict(done)))
    else:
        for reject in done.rejects[:SHOWN_REJECTS]:
            column = f"{reject.column}: " if reject.column else ""
            complain(f"line {reject.line}: {column}{reject.reason}")
    if done.rejects:
        raise RowsRejected(
            f"{count(len(done.rejects), 'line')} rejected, {imported}",
            hint=None if as_json else _where_rejects_are(done.rejects, rejects),
        )
    if not as_json:
        click.echo(imported)


def _mapping(renamed: Sequence[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in renamed]
    for column, _, field in pairs:
        if not column or not field:
            raise UsageError("--map takes COLUMN=FIELD", hint="--map Mobile=phone")
    return {column: field for column, _, field in pairs}


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop at once: the handler of asyncio would let a read from a pipe end first."""
    raise KeyboardInterrupt


def _require_writable(rejects: Path, file: str) -> None:
    """Find out before the import, and spare the file that is imported."""
    try:
        rejects.open("a").close()
    except OSError as error:
        raise UsageError(f"--rejects {rejects}: {error.strerror}") from error
    if file != "-" and rejects.samefile(file):
        raise UsageError("--rejects names the file to import")


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["line", "column", "reason"])
        writer.writerows((one.line, one.column, one.reason) for one in rejects)


def _where_rejects_are(rejects: Sequence[Reject], path: Path | None) -> str | None:
    if path:
        return f"all are in {path}"
    if len(rejects) > SHOWN_REJECTS:
        return f"the first {SHOWN_REJECTS} are above, --rejects FILE writes all"
    return None
