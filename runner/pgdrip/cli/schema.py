"""The schema: bring a database to it."""

from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from pgdrip import doctor as health
from pgdrip import migrate as schema
from pgdrip.cli.database import database
from pgdrip.console import complain, count
from pgdrip.errors import InvariantViolated


@click.command()
@click.pass_obj
def migrate(dsn: str | None) -> None:
    """Bring the database to the schema of this version."""
    done = schema.migrate(database(dsn))
    for name in done.applied:
        click.echo(f"applied {name}")
    click.echo(f"schema version {done.version}")


@click.command()
@click.pass_obj
def verify(dsn: str | None) -> None:
    """Compare the database with the schema of this version; exit 7 if it differs."""
    _tell(health.verify(database(dsn)), "the database is as it was shipped")


@click.command()
@click.pass_obj
def doctor(dsn: str | None) -> None:
    """Look for whatever could slow the engine down or stop it; exit 7 if it is wrong.

    The catalog against the shipped schema, long transactions, bloat, partitions,
    versions, and who ticks: runners, pg_cron or nobody.
    """
    where = database(dsn)
    found = health.doctor(where)
    _tell(found, "nothing ails it")
    click.echo(f"ticked by: {', '.join(health.who_ticks(where)) or 'nobody'}")


def _tell(found: Sequence[health.Finding], fine: str) -> None:
    for one in found:
        complain(one.what, one.remedy)
    wrong = sum(one.is_wrong for one in found)
    if wrong:
        raise InvariantViolated(count(wrong, "thing") + " wrong")
    if not found:
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
        click.echo(schema.roles_sql(migrator), nl=False)
        return
    for name, members in schema.roles(database(dsn)).items():
        shown = "missing" if members is None else ", ".join(members) or "nobody"
        click.echo(f"{name}: {shown}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes commands in SHELL: eval "$(pgdrip completion bash)"."""
    script = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    assert script is not None
    click.echo(script(root, {}, "pgdrip", "_PGDRIP_COMPLETE").source())
