"""Moves buckets of contacts from shard to shard, and ends moves that were broken off.

Two transactions are open at once: one on the shard that the bucket leaves, which holds
all of it, and one on the other shard, where it lands. They end in this order, and in
between only the rows in `arrivals` there say what the bucket was. Killed anywhere, the
same call again finds out by `departures` which side has it: db/functions/89_depart.sql.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pgdrip.engine import Engine
from pgdrip.errors import (
    DatabaseUnavailable,
    EngineRefused,
    InvariantViolated,
    PgdripError,
)
from pgdrip.query import Query, rows_of, value_of
from pgdrip.shards import Shard, connect

BATCH = 1000  # contacts that travel at once
POLL = 0.1  # seconds between two looks at what runners still have

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Move:
    """A move that has begun, as the router knows it."""

    move_id: int
    bucket: int
    from_shard: int
    to_shard: int


async def open_moves(engine: Engine) -> list[Move]:
    """Moves that have begun and not ended, the oldest first."""
    found = (await engine.ask(rows_of("open_moves"))).records()
    return [_move(row) for row in found]


def _move(row: dict[str, int]) -> Move:
    return Move(row["move_id"], row["bucket"], row["from_shard"], row["to_shard"])


async def begin(engine: Engine, bucket: int, to: int) -> Move | None:
    """Mark a bucket as leaving; None where it is there already."""
    [row] = (await engine.ask(rows_of("begin_move", bucket=bucket, to=to))).records()
    return None if row["move_id"] is None else _move(row)


async def carry_out(
    engine: Engine, move: Move, shards: dict[int, Shard], *, patience: float
) -> int:
    """Move what has begun to move; returns the contacts that moved now.

    Waits up to `patience` seconds for what runners have in hand. Whatever goes wrong
    before the bucket has left, it stays where it is and the move is forgotten.
    """
    await engine.ask(value_of("await_calls", bucket=move.bucket))
    source, target = shards[move.from_shard], shards[move.to_shard]
    async with await connect(source) as here, await connect(target) as there:
        try:
            async with (
                await connect(target) as landing,
                landing.transaction(),  # ends after the one within
                here.transaction(),
            ):
                if await _is_here(engine, move, here):
                    moved = await _leave(move, here, there, landing, patience)
                else:
                    moved = await _land_again(move, landing)
        except PgdripError:
            await _give_up(engine, move, here)
            raise
        ids: dict[str, list[int]] = {"contact": [], "enrollment": []}
        found = await there.ask(rows_of("foreign_ids", bucket=move.bucket))
        for kind, one in found.rows:
            ids[kind].append(one)
    await engine.ask(
        value_of(
            "end_move",
            move=move.move_id,
            contacts=ids["contact"],
            enrollments=ids["enrollment"],
        )
    )
    logger.info("bucket moved", extra={"bucket": move.bucket, "contacts": moved})
    return moved


async def _is_here(engine: Engine, move: Move, here: Engine) -> bool:
    """Whether the bucket has not left; until the transaction ends nobody else moves it.

    Raises EngineRefused where somebody else has ended the move before that.
    """
    found = (await here.ask(_still_here(move))).value
    if move not in await open_moves(engine):
        raise EngineRefused(
            f"somebody else has ended the move of bucket {move.bucket}",
            hint="pgdrip shard status says where it is",
        )
    return bool(found)


async def _leave(
    move: Move, here: Engine, there: Engine, landing: Engine, patience: float
) -> int:
    """Copy, land, compare and delete; `here` and `landing` are in transactions."""
    count = (await here.ask(value_of("stage_bucket", bucket=move.bucket))).value
    await _drain(here, patience)
    await _copy(move, here, there)
    await landing.ask(value_of("land_bucket", bucket=move.bucket))
    checksum = value_of("bucket_checksum")
    if (await here.ask(checksum)).value != (await landing.ask(checksum)).value:
        raise InvariantViolated(
            f"bucket {move.bucket} did not arrive as it was",
            hint="nothing has moved; try again",
        )
    await landing.ask(value_of("settle_in"))
    await here.ask(_remove(move))
    return int(count)


def _still_here(move: Move) -> Query:
    return value_of("is_still_here", move=move.move_id, bucket=move.bucket)


def _remove(move: Move) -> Query:
    return value_of("remove_bucket", move=move.move_id, bucket=move.bucket)


async def _drain(here: Engine, patience: float) -> None:
    deadline = time.monotonic() + patience
    while out := (await here.ask(value_of("drain_bucket"))).value:
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(
                f"runners still have {out} steps of the bucket",
                hint="nothing has moved; try again, or with a longer --wait",
            )
        await asyncio.sleep(POLL)


async def _copy(move: Move, here: Engine, there: Engine) -> None:
    """Each batch is a commit of its own; what an earlier try left goes first."""
    await there.ask(value_of("clear_arrivals", bucket=move.bucket))
    content = (await here.ask(value_of("bucket_parts"))).value
    last = 0
    while content:
        await there.ask(value_of("arrive", bucket=move.bucket, content=content))
        batch = rows_of("bucket_batch", after=last, limit=BATCH)
        [(last, content)] = (await here.ask(batch)).rows
    await there.ask(value_of("make_room", bucket=move.bucket))


async def _land_again(move: Move, landing: Engine) -> int:
    """The bucket has left: what arrived of it is the only copy, if it did not land."""
    if not (await landing.ask(value_of("has_arrived", bucket=move.bucket))).value:
        return 0
    count = (await landing.ask(value_of("land_bucket", bucket=move.bucket))).value
    await landing.ask(value_of("settle_in"))
    return int(count)


async def _give_up(engine: Engine, move: Move, here: Engine) -> None:
    """Forget a move whose bucket is still where it was.

    Where nobody can say that, as the shard is gone, it stays begun: to be gone on with.
    """
    with suppress(PgdripError):
        async with here.transaction():
            if (await here.ask(_still_here(move))).value:
                await engine.ask(value_of("cancel_move", move=move.move_id))


def script(bucket: int, to: int) -> Iterator[tuple[str, Query | str]]:
    """The statements of a move and where each is run, for people to read."""
    move = Move(0, bucket, 0, to)
    router, here, there = "router", "the shard it leaves", f"shard {to}"
    yield router, rows_of("begin_move", bucket=bucket, to=to)
    yield router, value_of("await_calls", bucket=bucket)
    yield here, "begin;"
    yield here, _still_here(move)
    yield router, rows_of("open_moves")
    yield here, value_of("stage_bucket", bucket=bucket)
    yield here, value_of("drain_bucket")
    yield there, value_of("clear_arrivals", bucket=bucket)
    yield here, value_of("bucket_parts")
    yield here, rows_of("bucket_batch", after=0, limit=BATCH)
    yield there, value_of("arrive", bucket=bucket, content="…")
    yield there, value_of("make_room", bucket=bucket)
    yield there, "begin;"
    yield there, value_of("land_bucket", bucket=bucket)
    yield f"{here}, and {there}", value_of("bucket_checksum")
    yield there, value_of("settle_in")
    yield here, _remove(move)
    yield here, "commit;"
    yield there, "commit;"
    yield there, rows_of("foreign_ids", bucket=bucket)
    yield router, value_of("end_move", move=0, contacts=[], enrollments=[])
