"""Several databases behind one router: --dsn is the router's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
from psycopg.conninfo import make_conninfo

from pgdrip import definitions, shards
from pgdrip import move as moving
from pgdrip.cli.ask import json_option, sql_option, to_json
from pgdrip.cli.database import database, with_engine
from pgdrip.cli.types import SPAN
from pgdrip.console import complain, count, echo, table
from pgdrip.engine import Engine, parsed
from pgdrip.errors import InvariantViolated, UsageError
from pgdrip.move import Move
from pgdrip.query import Call, value_of
from pgdrip.shards import State

BUCKETS = 1024


class _Buckets(click.ParamType[list[int]]):
    """Numbers and ranges: 7, 0-15, or both with commas between."""

    name = "buckets"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        if isinstance(value, list):
            return value
        found: list[int] = []
        for part in str(value).split(","):
            first, _, last = part.partition("-")
            if not (first.isdecimal() and (last or first).isdecimal()):
                self.fail(f"{value!r} is no list such as 7 or 0-15,20", param, ctx)
            found += range(int(first), int(last or first) + 1)
        if not found or max(found) >= BUCKETS:
            self.fail(f"buckets are numbered from 0 to {BUCKETS - 1}", param, ctx)
        return found


user_option = click.option(
    "--user",
    metavar="ROLE",
    help="Who logs in to the shards, with the rights of their owner.  [default: as the"
    " router does]",
)


@click.group()
def shard() -> None:
    """Spread contacts over several databases, behind a router made with PL/Proxy.

    --dsn is the router. Runners connect straight to their shard.
    """


@shard.command()
@user_option
@json_option
@click.pass_obj
def init(dsn: str | None, user: str | None, as_json: bool) -> None:
    """Make an empty database the router; after an upgrade of the shards, renew it."""
    found = asyncio.run(shards.init(database(dsn), user=user))
    click.echo(to_json({"shards": found}) if as_json else count(found, "shard"))


@shard.command()
@click.argument("number", type=click.IntRange(0, 8191), metavar="SHARD")
@click.argument("shard_dsn", metavar="DSN")
@user_option
@json_option
@sql_option
@click.pass_obj
def add(
    dsn: str | None,
    *,
    number: int,
    shard_dsn: str,
    user: str | None,
    as_json: bool,
    show_sql: bool,
) -> None:
    """Take a migrated database in as number SHARD, or say how to connect to it.

    It gets the configuration of the others. Buckets are spread evenly as long as nobody
    has a contact; after that `pgdrip shard move` brings some.
    """
    if show_sql:
        shared = Call("shared_key", {})
        set_ = value_of("set_shard", shard=number, address_key=shared)
        _statement("the shard, with the key that the router tells", set_)
        query = value_of("add_shard", shard=number, dsn=shard_dsn, address_key=shared)
        _statement("router", query)
        return
    is_new = asyncio.run(shards.add(database(dsn), number, shard_dsn, user=user))
    told = f"shard {number} is new" if is_new else f"shard {number} was there"
    click.echo(to_json({"shard": number, "is_new": is_new}) if as_json else told)


def _statement(where: str, query: object) -> None:
    echo(f"-- {where}\n{query}")


@shard.command()
@click.argument(
    "files",
    nargs=-1,
    metavar="[FILE…]",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@user_option
@json_option
@click.pass_obj
def apply(
    dsn: str | None, files: Sequence[Path], user: str | None, as_json: bool
) -> None:
    """Publish YAML files in the shards that need them; then make the shards agree.

    What has limits, and the senders of a group together, live in one shard; all else is
    in every one. Without files the first shard is what the others follow.
    """
    found = definitions.load(files)

    async def work(engine: Engine) -> tuple[list[Any], list[int]]:
        known = await shards.shard_map(engine, user=user)
        applied = await shards.apply(known, found) if found else []
        return applied, await shards.sync(known)

    applied, followed = with_engine(dsn, work)
    columns = ["shard", "kind", "name", "outcome"]
    rows = [
        (where, one.definition.kind, one.definition.name, one.outcome)
        for where, one in applied
    ]
    if as_json:
        done = [dict(zip(columns, row, strict=True)) for row in rows]
        click.echo(to_json({"applied": done, "followed": followed}))
        return
    if rows:
        table(columns, rows)
    for where in followed:
        click.echo(f"shard {where} follows the others again")


@shard.command()
@click.option("--count", "is_counted", is_flag=True, help="Count contacts, too.")
@user_option
@json_option
@sql_option
@click.pass_obj
def status(
    dsn: str | None, is_counted: bool, user: str | None, as_json: bool, show_sql: bool
) -> None:
    """Every shard: whether it answers, its buckets, and whether they agree.

    Exit 4 if one does not answer, 7 if one differs from the first.
    """
    if show_sql:
        echo(shards.MAP)
        return
    found = with_engine(
        dsn, lambda engine: shards.status(engine, count=is_counted, user=user)
    )
    hashes = [one.config_hash for one in found if one.config_hash]
    rows = [_row(one) for one in found]
    columns = ["shard", "database", "buckets", "moving", "contacts", "config", "state"]
    if as_json:
        click.echo(to_json([dict(zip(columns, row, strict=True)) for row in rows]))
    else:
        table(columns, rows)
    wrong = 0
    for one in found:
        where = f"shard {one.shard.shard}"
        differs = bool(one.config_hash) and one.config_hash != hashes[0]
        for problem in [*one.problems, *["it is configured otherwise"] * differs]:
            hint = "pgdrip shard apply" if differs else None
            complain(f"{where}: {problem}", hint)
            wrong += 1
    for one in found:
        if one.error:
            raise one.error
    if wrong:
        raise InvariantViolated(count(wrong, "thing") + " wrong")


def _row(one: State) -> tuple[Any, ...]:
    own = {k: v for k, v in parsed(one.shard.dsn).items() if k in ("host", "dbname")}
    return (
        one.shard.shard,
        make_conninfo(**own),
        one.shard.buckets,
        len(one.shard.moving),
        one.contacts,
        one.config_hash and one.config_hash[:12],
        "down" if one.error else "up",
    )


@shard.command()
@click.argument("buckets", type=_Buckets(), required=False)
@click.option("--to", type=click.IntRange(0, 8191), metavar="SHARD")
@click.option("--resume", is_flag=True, help="End the moves that were broken off.")
@click.option(
    "--wait",
    type=SPAN,
    default="5m",
    show_default=True,
    help="For what runners have in hand.",
)
@user_option
@json_option
@sql_option
@click.pass_obj
def move(
    dsn: str | None,
    *,
    buckets: list[int] | None,
    to: int | None,
    resume: bool,
    wait: Any,
    user: str | None,
    as_json: bool,
    show_sql: bool,
) -> None:
    """Move BUCKETS, such as 0-15,20, with all their contacts TO another shard.

    Sends of their contacts pause for as long as it takes, a bucket at a time. Broken
    off anywhere, the same command or --resume goes on.
    """
    if resume == bool(buckets) or bool(buckets) != (to is not None):
        raise UsageError("say BUCKETS and --to, or --resume alone")
    if show_sql:
        for bucket in buckets or ():
            assert to is not None
            for where, statement in moving.script(bucket, to):
                _statement(where, statement)
        return

    async def work(engine: Engine) -> list[dict[str, int]]:
        known = {one.shard: one for one in await shards.shard_map(engine, user=user)}
        done = []
        async for bucket, one in _moves(engine, buckets, to):
            contacts = 0
            if one:
                contacts = await moving.carry_out(
                    engine, one, known, patience=wait.total_seconds()
                )
            done.append({"bucket": bucket, "contacts": contacts})
            if not as_json:
                click.echo(f"bucket {bucket}: {count(contacts, 'contact')} moved")
        return done

    moved = with_engine(dsn, work)
    if as_json:
        click.echo(to_json(moved))


async def _moves(
    engine: Engine, buckets: list[int] | None, to: int | None
) -> AsyncIterator[tuple[int, Move | None]]:
    """Each bucket with its move, None where it is there already; else all open ones."""
    if buckets is None or to is None:
        for one in await moving.open_moves(engine):
            yield one.bucket, one
        return
    for bucket in buckets:
        yield bucket, await moving.begin(engine, bucket, to)
