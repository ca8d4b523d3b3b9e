"""The schema: bring a database to it."""

from collections.abc import Sequence
from dataclasses import asdict

import click
from click.shell_completion import get_completion_class

from pgdrip import doctor as health
from pgdrip import migrate as schema
from pgdrip.cli.ask import json_option, to_json
from pgdrip.cli.database import database
from pgdrip.console import complain, count, echo
from pgdrip.errors import InvariantViolated


@click.command()
@json_option
@click.pass_obj
def migrate(dsn: str | None, as_json: bool) -> None:
    """Bring the database to the schema of this version."""
    done = schema.migrate(database(dsn))
    if as_json:
        click.echo(to_json({"applied": done.applied, "version": done.version}))
        return
    for name in done.applied:
        click.echo(f"applied {name}")
    click.echo(f"schema version {done.version}")


@click.command()
@json_option
@click.pass_obj
def verify(dsn: str | None, as_json: bool) -> None:
    """Compare the database with the schema of this version; exit 7 if it differs."""
    found = health.verify(database(dsn))
    if as_json:
        click.echo(to_json({"findings": [asdict(one) for one in found]}))
    _tell(found, None if as_json else "the database is as it was shipped")


@click.command()
@json_option
@click.pass_obj
def doctor(dsn: str | None, as_json: bool) -> None:
    """Look for whatever could slow the engine down or stop it; exit 7 if it is wrong.

    The catalog against the shipped schema, long transactions, bloat, partitions,
    versions, and who ticks: runners, pg_cron or nobody.
    """
    where = database(dsn)
    found, ticking = health.doctor(where), health.who_ticks(where)
    if as_json:
        findings = [asdict(one) for one in found]
        click.echo(to_json({"findings": findings, "ticked_by": ticking}))
    _tell(found, None if as_json else "nothing ails it")
    if not as_json:
        click.echo(f"ticked by: {', '.join(ticking) or 'nobody'}")


def _tell(found: Sequence[health.Finding], fine: str | None) -> None:
    """Write each finding, or `fine` where there is none; None: all is written."""
    for one in found if fine else ():
        complain(one.what, one.remedy)
    wrong = sum(one.is_wrong for one in found)
    if wrong:
        raise InvariantViolated(count(wrong, "thing") + " wrong")
    if fine and not found:
        click.echo(fine)


@click.command()
@click.option("--sql", is_flag=True, help="Print what makes them.")
@click.option("--migrator", metavar="ROLE", help="Who will migrate as their owner.")
@click.pass_obj
def roles(dsn: str | None, sql: bool, migrator: str | None) -> None:
    """List the roles of the server and who has them, or print the SQL that makes them.

    `pgdrip migrate` makes them where it may. Else whoever may create roles runs the
    SQL, and `pgdrip migrate` then hands everything to pgdrip_owner and grants the rest.
    """
    if sql:
        echo(schema.roles_sql(migrator).rstrip("\n"))
        return
    for name, members in schema.roles(database(dsn)).items():
        shown = "missing" if members is None else ", ".join(members) or "nobody"
        echo(f"{name}: {shown}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes commands in SHELL: eval "$(pgdrip completion bash)"."""
    script = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    assert script is not None
    click.echo(script(root, {}, "pgdrip", "_PGDRIP_COMPLETE").source())
