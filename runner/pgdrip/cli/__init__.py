"""The command line: each command is a thin call of the engine.

Options come from the command line, else from PGDRIP_* variables; the database from
--dsn or PGDRIP_DSN, else from libpq's own variables. Whatever goes wrong is one line
on standard error and an exit code: 0 ok, 1 unexpected or refused, 2 usage,
3 configuration, 4 database unreachable or read-only, 5 schema version, 6 rows
rejected, 7 invariant violated, 8 permission, 10 plan found a difference, 130
interrupted.

A new command is a line of SECTIONS; its module is imported when it is called.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
import psycopg

import pgdrip
from pgdrip.console import complain
from pgdrip.engine import parsed
from pgdrip.errors import PgdripError, from_database

INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended

# What --help shows, in this order: the module of this package a command is in. There it
# has the command's name, with _ for -, and one at the end where Python has the word.
SECTIONS: dict[str, dict[str, str]] = {
    "Set up": {
        "migrate": "schema",
        "roles": "schema",
        "verify": "schema",
        "doctor": "schema",
        "demo": "demo",
        "completion": "schema",
        "adopt": "adopt",
    },
    "Sequences and senders as code": {
        "validate": "definitions",
        "plan": "definitions",
        "apply": "definitions",
        "simulate": "explain",
        "forecast": "explain",
    },
    "Contacts": {
        "import": "contacts",
        "export": "export",
        "enroll": "operate",
        "exit": "operate",
        "suppress": "operate",
        "unsuppress": "operate",
        "person": "person",
    },
    "Run": {
        "run": "run",
        "serve": "serve",
        "probe": "gateways",
        "reconcile": "gateways",
    },
    "Operate": {
        "pause": "operate",
        "resume": "operate",
        "activate": "operate",
        "archive": "operate",
        "sender": "operate",
        "retry": "operate",
        "resolve": "operate",
        "unlock": "operate",
        "retention": "retention",
    },
    "Beyond one machine": {
        "shard": "shard",
    },
    "Watch": {
        "status": "watch",
        "top": "watch",
        "explain": "explain",
        "failures": "watch",
        "uncertain": "watch",
        "senders": "watch",
        "funnel": "watch",
        "check": "watch",
        "healthcheck": "watch",
    },
}
MODULES = {
    name: module for commands in SECTIONS.values() for name, module in commands.items()
}


class Commands(click.Group):
    """Finds commands by SECTIONS; ends each with at most one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f"pgdrip.cli.{MODULES[cmd_name]}")
        name = cmd_name.replace("-", "_")
        found = vars(module).get(name)
        if not isinstance(found, click.Command):
            found = vars(module)[f"{name}_"]
        assert isinstance(found, click.Command)
        return found

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        for title, names in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name, one.get_short_help_str(60))
                        for name, one in commands
                        if one
                    ]
                )

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        arguments = sys.argv[1:] if args is None else list(args)
        self._main_shell_completion({}, "pgdrip")
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
