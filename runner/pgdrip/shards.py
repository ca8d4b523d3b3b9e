"""Several databases as one: which shards there are, and what they must agree on.

The router keeps the map: db/router/10_map.sql. What every shard must have goes by its
name: sequences, groups, senders without limits, error rules, and suppressions as
hashes. A sender with limits keeps its counters, and so lives in one shard; those of a
group live in the same one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgdrip import definitions, router
from pgdrip.definitions import Applied, Definition
from pgdrip.engine import Engine, parsed
from pgdrip.errors import (
    ConfigurationError,
    PgdripError,
    SchemaMismatch,
    UsageError,
)
from pgdrip.query import rows_of, value_of

LIMITS = frozenset(
    "rate_per_hour rate_per_day gap_min gap_max ramp hours group".split()
)
PAGE = 50_000  # hashes of suppressed addresses in one call
LONG = 3600.0  # seconds a call that reads a whole shard may take

APPLY: dict[str, LiteralString] = {
    "group": "apply_group",
    "sender": "apply_sender",
    "sequence": "apply_sequence",
}
MAP = rows_of("shard_map")


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as the router has it; `moving` are the buckets that are leaving."""

    shard: int
    dsn: str
    buckets: int
    moving: list[int]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a database is among shards."""

    shard: int
    address_key: bytes
    has_contacts: bool
    config_hash: str


@dataclass(frozen=True, slots=True)
class State:
    """What a shard says of itself, or why it does not.

    `strays` are contacts of buckets that live elsewhere, `contacts` all of them; both
    are None where they were not counted.
    """

    shard: Shard
    config_hash: str | None = None
    contacts: int | None = None
    strays: int | None = None
    problems: list[str] = field(default_factory=list)
    error: PgdripError | None = None


async def connect(shard: Shard) -> Engine:
    """An engine on a shard, for calls that take long."""
    try:
        return await Engine.connect(
            shard.dsn, application_name="pgdrip-shard", writable=True, timeout=LONG
        )
    except PgdripError as error:
        hint = error.hint or "the others go on; try again when it is back"
        raise type(error)(f"shard {shard.shard}: {error.message}", hint=hint) from error


async def shard_map(engine: Engine, *, user: str | None = None) -> list[Shard]:
    """Every shard, in the order they were added, for `user` in place of the map's.

    Raises UsageError off a router.
    """
    try:
        answer = await engine.ask(MAP)
    except SchemaMismatch as error:
        raise UsageError(
            "this database is no router", hint="pgdrip shard init makes one"
        ) from error
    return [
        Shard(**row | {"dsn": _login(row["dsn"], user)}) for row in answer.records()
    ]


def _login(dsn: str, user: str | None) -> str:
    try:
        return make_conninfo(dsn, user=user) if user else dsn
    except UnicodeEncodeError as error:
        raise ConfigurationError("no role has a name that is not UTF-8") from error


@asynccontextmanager
async def connected(shards: Iterable[Shard]) -> AsyncIterator[list[Engine]]:
    """Engines on all of them; raises DatabaseUnavailable for the first that is down."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await connect(one)) for one in shards]


async def identity(engine: Engine) -> Identity:
    [row] = (await engine.ask(rows_of("shard_identity"))).records()
    return Identity(**row)


async def init(dsn: str, *, user: str | None = None) -> int:
    """Make an empty database the router, or bring one to this version.

    Returns how many shards it has; from the first that answers it takes its functions.
    """
    router.install(dsn, None)
    async with await Engine.connect(dsn) as engine:
        shards = await shard_map(engine, user=user)
    if shards:
        async with await connect(shards[0]) as first:
            catalog = (await first.ask(value_of("api_catalog"))).value
        router.install(dsn, catalog)
    return len(shards)


async def add(
    dsn: str, number: int, shard_dsn: str, *, user: str | None = None
) -> bool:
    """Take a migrated database into the map, with the configuration of the others.

    As long as nobody has a contact the buckets are spread evenly; after that a new
    shard has none until some move there. Returns whether it is new. Raises UsageError
    for a database that is in use under another number.
    """
    if any(key.endswith("password") for key in parsed(shard_dsn)):
        raise ConfigurationError(
            "a password does not belong into the map",
            hint="use a passfile of the router's server, or certificates",
        )
    async with await Engine.connect(dsn, writable=True) as engine:
        new = Shard(number, _login(shard_dsn, user), 0, [])
        async with await connect(new) as one:
            own = await identity(one)
            key = (await engine.ask(value_of("shared_key"))).value or own.address_key
            await one.ask(value_of("set_shard", shard=number, address_key=key))
            catalog = (await one.ask(value_of("api_catalog"))).value
        added = await engine.ask(
            value_of("add_shard", shard=number, dsn=shard_dsn, address_key=key)
        )
        router.install(dsn, catalog)
        known = await shard_map(engine, user=user)
        if len(known) == 1:
            await engine.ask(value_of("give_buckets", shard=number))
        elif any(one.shard == number and not one.buckets for one in known):
            # It is new, or was broken off here.
            await _share(known, engine)
            await sync(known)
    return bool(added.value)


async def _share(shards: Sequence[Shard], engine: Engine) -> None:
    async with connected(shards) as engines:
        found = [await identity(one) for one in engines]
    if not any(one.has_contacts for one in found):
        await engine.ask(value_of("spread_buckets"))


async def apply(
    shards: Sequence[Shard], found: Sequence[Definition]
) -> list[tuple[int, Applied]]:
    """Apply definitions to the shards that need them, all or none of each shard.

    Raises ConfigurationError for what a database finds wrong, with the place, and for
    a sender with limits that is in several shards.
    """
    applied = []
    async with connected(shards) as engines, AsyncExitStack() as stack:
        homes = await _homes(engines)
        for engine in engines:
            await stack.enter_async_context(engine.transaction())
        for one in definitions.in_order(found):
            for index in _shards_of(one, homes, len(engines)):
                with definitions.applying(one):
                    done = await definitions.apply_one(engines[index], one)
                applied.append((shards[index].shard, done))
    return applied


@dataclass(slots=True)
class _Homes:
    """Where senders are: by name, by group, and how many with limits in each shard."""

    senders: dict[str, set[int]]
    groups: dict[str, int]
    limited: Counter[tuple[int, str, str]]

    def put(self, index: int, content: dict[str, Any]) -> None:
        self.senders.setdefault(content["name"], set()).add(index)
        if LIMITS & content.keys():
            pool = content.get("pool", "default")
            self.limited[index, pool, content["channel"]] += 1
            if "group" in content:
                self.groups[content["group"]] = index


async def _homes(engines: Sequence[Engine]) -> _Homes:
    homes = _Homes({}, {}, Counter())
    for index, engine in enumerate(engines):
        for one in await engine.export_definitions():
            if one["kind"] == "sender":
                homes.put(index, one)
    return homes


def _shards_of(one: Definition, homes: _Homes, count: int) -> Sequence[int]:
    """Every shard; for a sender with limits its own, else the one with the fewest."""
    content = one.content
    if one.kind != "sender" or not LIMITS & content.keys():
        return range(count)
    here = homes.senders.get(one.name, set())
    if len(here) > 1:
        raise ConfigurationError(
            f"{one.place}: sender {one.name!r} has had no limits and is in every shard",
            hint="one with limits lives in one shard: give it another name",
        )
    pool = content.get("pool", "default")
    index = next(iter(here), homes.groups.get(content.get("group", "")))
    if index is None:
        index = min(
            range(count), key=lambda i: homes.limited[i, pool, content["channel"]]
        )
    if not here:
        homes.put(index, content)
    return [index]


async def sync(shards: Sequence[Shard]) -> list[int]:
    """Give every shard what the first one has, and all of them every suppression.

    Returns the numbers of those that lacked something.
    """
    changed = []
    async with connected(shards) as engines:
        first, *others = engines
        for engine in others:
            if await _differ(first, engine):
                await _suppress(engine, first)
        for shard, engine in zip(shards[1:], others, strict=True):
            if await _differ(first, engine):
                await _configure(first, engine)
                await _suppress(first, engine)
                changed.append(shard.shard)
    return changed


async def _differ(one: Engine, other: Engine) -> bool:
    return (await identity(one)).config_hash != (await identity(other)).config_hash


async def _configure(source: Engine, target: Engine) -> None:
    shared = await source.ask(rows_of("shared_definitions"))
    rules = (await source.ask(value_of("shared_rules"))).value
    async with target.transaction():
        for kind, _, definition in shared.rows:
            await target.ask(value_of(APPLY[kind], definition=definition))
        await target.ask(value_of("merge_error_rules", rules=Jsonb(rules)))


async def _suppress(source: Engine, target: Engine) -> None:
    hashes = rows_of("hashed_suppressions")
    async for page in source.stream(hashes, rows=PAGE):
        if page.rows:
            columns = [list(column) for column in zip(*page.rows, strict=True)]
            await target.ask(
                value_of(
                    "merge_hashes",
                    hashes=columns[0],
                    reasons=columns[1],
                    times=columns[2],
                )
            )


async def status(
    engine: Engine, *, count: bool, user: str | None = None
) -> list[State]:
    """What each shard says; one that is down stops none of the others."""
    shards = await shard_map(engine, user=user)
    owners = {}
    if count:
        found = await engine.ask(rows_of("bucket_owners"))
        owners = {row["bucket"]: row["shard"] for row in found.records()}
    return await asyncio.gather(*(_state(one, owners) for one in shards))


async def _state(shard: Shard, owners: dict[int, int]) -> State:
    try:
        async with await connect(shard) as engine:
            own = await identity(engine)
            problems = await _problems(engine)
            contacts = strays = None
            if owners:
                counts = (await engine.ask(rows_of("bucket_counts"))).rows
                contacts = sum(found for _, found in counts)
                strays = sum(
                    found
                    for bucket, found in counts
                    if owners[bucket] != shard.shard and bucket not in shard.moving
                )
    except PgdripError as error:
        return State(shard, error=error)
    if own.shard != shard.shard:
        problems.append(f"the database is shard {own.shard}, not {shard.shard}")
    if strays:
        problems.append(f"{strays} contacts of buckets that live elsewhere")
    return State(shard, own.config_hash, contacts, strays, problems)


async def _problems(engine: Engine) -> list[str]:
    """Sequences that no sender of this shard can send."""
    found = await engine.export_definitions()
    served = {
        (one.get("pool", "default"), one["channel"])
        for one in found
        if one["kind"] == "sender"
    }
    wanted = {
        (one.get("pool", "default"), one["channel"])
        for one in found
        if one["kind"] == "sequence" and one["status"] == "active"
    }
    return [
        f"pool {pool} has no sender on channel {channel}"
        for pool, channel in sorted(wanted - served)
    ]
