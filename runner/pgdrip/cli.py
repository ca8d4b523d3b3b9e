"""The command line: each command is a thin call of the engine.

Options come from the command line, else from PGDRIP_* variables; the database from
--dsn or PGDRIP_DSN, else from libpq's own variables. Whatever goes wrong is one line
on standard error and an exit code: 0 ok, 1 unexpected or refused, 2 usage,
3 configuration, 4 database unreachable or read-only, 5 schema version, 6 rows
rejected, 7 invariant violated, 8 permission, 130 interrupted.
"""

import asyncio
import csv
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click
import psycopg

import pgdrip
from pgdrip import definitions, demo, logs, runner
from pgdrip import migrate as schema
from pgdrip.console import Terminal, complain, count, table
from pgdrip.contacts import Imported, Reject, import_csv
from pgdrip.engine import Engine, parsed
from pgdrip.errors import (
    ConfigurationError,
    InvariantViolated,
    PgdripError,
    RowsRejected,
    UsageError,
    from_database,
)

LIBPQ = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")
SHOWN_REJECTS = 20
INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended

T = TypeVar("T")


class Commands(click.Group):
    """Turns whatever ends a command into at most one line and an exit code."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        arguments = sys.argv[1:] if args is None else list(args)
        try:
            with self.make_context("pgdrip", arguments) as context:
                self.invoke(context)
            if sys.stdout:
                sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes once more on its way out and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(PIPE_CLOSED)
        except (Exception, KeyboardInterrupt) as error:
            sys.exit(_explain(error))
        sys.exit(0)


def _explain(error: BaseException) -> int:
    """Write one line about an error; return the exit code it deserves."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            complain("interrupted")
            return INTERRUPTED
        case click.ClickException():
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "pgdrip"
            complain(error.format_message().rstrip("."), f"see {path} --help")
            return error.exit_code
        case psycopg.Error():
            return _explain(from_database(error))
        case PgdripError():
            complain(error.message, error.hint)
            return error.exit_code
        case OSError():
            complain(str(error))
        case _:
            complain(f"unexpected {type(error).__name__}: {error}")
    return 1


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": "PGDRIP"},
)
@click.version_option(pgdrip.__version__, message="%(prog)s %(version)s")
@click.option("--dsn", help="Database as libpq takes it: service=prod, or a URI.")
@click.pass_context
def main(context: click.Context, dsn: str | None) -> None:
    """Drip sequences over many senders, kept by PostgreSQL."""
    context.obj = dsn
    source = context.get_parameter_source("dsn")
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    is_visible = source is click.core.ParameterSource.COMMANDLINE
    if dsn and is_visible and "password" in parsed(dsn):
        complain(
            "warning: everyone on this machine can read a password in --dsn",
            "use a passfile, PGPASSWORD or PGDRIP_DSN",
        )


def _database(dsn: str | None) -> str:
    """Return the connection string to use; an empty one leaves all to libpq."""
    if dsn is None and not any(name in os.environ for name in LIBPQ):
        raise ConfigurationError(
            "no database given", hint="--dsn, PGDRIP_DSN, or PGHOST, PGDATABASE, …"
        )
    parsed(dsn or "")
    return dsn or ""


def _with_engine(dsn: str | None, work: Callable[[Engine], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with await Engine.connect(_database(dsn)) as engine:
            return await work(engine)

    return asyncio.run(connected())


@main.command()
@click.pass_obj
def migrate(dsn: str | None) -> None:
    """Bring the database to the schema of this version."""
    done = schema.migrate(_database(dsn))
    for name in done.applied:
        click.echo(f"applied {name}")
    click.echo(f"schema version {done.version}")


@main.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE…",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.pass_obj
def apply(dsn: str | None, files: Sequence[Path]) -> None:
    """Publish the sequences and senders of YAML files, all or none."""
    found = definitions.load(files)
    applied = _with_engine(dsn, lambda engine: definitions.apply(engine, found))
    table(
        ["kind", "name", "outcome", "note"],
        [
            (one.definition.kind, one.definition.name, one.outcome, one.note)
            for one in applied
        ],
    )


@main.command("import")
@click.argument(
    "file",
    metavar="FILE.csv",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
)
@click.option("--pool", default="default", show_default=True, help="Whose contacts.")
@click.option("--region", help="Country of numbers without a +, such as MY.")
@click.option("--strict", is_flag=True, help="Import nothing if any line is bad.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write every bad line to this CSV file: line, column, reason.",
)
@click.pass_obj
def import_(
    dsn: str | None,
    file: str,
    pool: str,
    region: str | None,
    strict: bool,
    rejects: Path | None,
) -> None:
    """Import contacts from a CSV file; - reads standard input.

    The first line names the columns: phone, email, name, timezone, trigger (several
    separated by ;), sender. Every other column becomes an attribute.
    """
    if rejects:
        _require_writable(rejects, file)
    status = Terminal(stderr=True).status("importing…")

    async def work(engine: Engine) -> Imported:
        return await import_csv(
            engine,
            stream,
            pool=pool,
            region=region,
            strict=strict,
            on_progress=lambda line: status.update(f"importing… line {line:,}"),
        )

    signal.signal(signal.SIGINT, _interrupt)
    with click.open_file(file, "rb") as stream, status:
        done = _with_engine(dsn, work)
    if rejects:
        _write_rejects(rejects, done.rejects)
    for reject in done.rejects[:SHOWN_REJECTS]:
        column = f"{reject.column}: " if reject.column else ""
        complain(f"line {reject.line}: {column}{reject.reason}")
    imported = f"{count(done.contacts, 'contact')} imported"
    if done.rejects:
        raise RowsRejected(
            f"{count(len(done.rejects), 'line')} rejected, {imported}",
            hint=_where_rejects_are(done.rejects, rejects),
        )
    click.echo(imported)


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


@main.command()
@click.argument("sequence")
@click.argument("contact", type=click.IntRange(min=1, max=2**63 - 1))
@click.pass_obj
def enroll(dsn: str | None, sequence: str, contact: int) -> None:
    """Start SEQUENCE for the contact with the id CONTACT."""
    enrollment = _with_engine(dsn, lambda engine: engine.enroll(sequence, contact))
    click.echo(f"enrollment {enrollment}")


@main.command()
@click.option("--name", help="Name of this runner.  [default: host:process]")
@click.option(
    "--channel",
    "channels",
    multiple=True,
    help="Channel to serve; may be given several times.  [default: all installed]",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Messages in flight at once.",
)
@click.option(
    "--lease",
    type=click.IntRange(61, 3600),
    default=120,
    show_default=True,
    help="Seconds a claimed message is this runner's alone.",
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
    lease: int,
    once: bool,
    verbose: bool,
) -> None:
    """Send what is due, until SIGTERM or Ctrl-C; then finish what is in flight."""
    logs.configure(logging.DEBUG if verbose else logging.INFO)
    asyncio.run(
        runner.run(
            _database(dsn),
            channels=channels or None,
            name=name,
            slots=slots,
            lease=timedelta(seconds=lease),
            once=once,
        )
    )


@main.command()
@click.pass_obj
def check(dsn: str | None) -> None:
    """Ask the database whether every invariant holds; exit 7 if one does not."""
    found = _with_engine(dsn, lambda engine: engine.check())
    if found:
        table(
            ["invariant", "enrollment", "detail"],
            [(one.invariant, one.enrollment_id, one.detail) for one in found],
        )
        raise InvariantViolated(count(len(found), "violation"))
    click.echo("every invariant holds")


@main.command()
@click.argument("contact", type=click.IntRange(min=1, max=2**63 - 1))
@click.pass_obj
def explain(dsn: str | None, contact: int) -> None:
    """Say where CONTACT stands in each sequence, and why."""
    found = _with_engine(dsn, lambda engine: engine.explain_contact(contact))
    table(
        ["sequence", "enrollment", "status", "step", "due", "sender", "why"],
        [
            (
                one.sequence,
                one.enrollment_id,
                one.status,
                one.step,
                one.due_at,
                one.sender,
                one.why,
            )
            for one in found
        ],
    )


@main.command("demo")
@click.option(
    "--contacts",
    type=click.IntRange(min=1),
    help="Only the first so many of the contacts.  [default: all]",
)
@click.option("--keep", is_flag=True, help="Leave the database running for psql.")
def demo_(contacts: int | None, keep: bool) -> None:
    """Play a week of messages in a minute, on a database of its own."""
    demo.run(Terminal(highlight=False), people=contacts, keep=keep)
