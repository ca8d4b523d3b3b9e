"""Asks gateways which senders could send; parks those that cannot, resumes the others.

Only active senders are asked, and never one that was blocked: whether work goes out
from it again is an operator's decision. A gateway that gives no clear answer changes
nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from pgdrip.channels import (
    Down,
    Health,
    Probing,
    Unknown,
    Up,
    answer_to,
    channels_that,
    storable,
)
from pgdrip.engine import Engine, KnownSender
from pgdrip.errors import EngineRefused

PAGE = 500  # senders of one round
AT_ONCE = 50  # questions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a gateway said of one sender, and whether that resumed or parked it."""

    sender: str
    channel: str
    health: Health
    change: str


async def probe(
    dsn: str = "", *, channels: Iterable[str] | None = None
) -> list[Probed]:
    """Probe every sender of these channels, or of all that can be asked, once.

    Raises ConfigurationError for a channel named that has no way to ask.
    """
    able = channels_that(
        Probing,  # type: ignore[type-abstract]
        channels,
        verb="probe",
        hint="its senders are parked by what becomes of their messages",
    )
    async with able as asked, await Engine.connect(dsn, writable=True) as engine:
        return await _probe(engine, asked)


async def _probe(engine: Engine, channels: Mapping[str, Probing]) -> list[Probed]:
    done: list[Probed] = []
    after = ""
    while True:
        page = await engine.senders_to_probe(list(channels), after=after, limit=PAGE)
        if not page:
            return done
        after = page[-1].sender
        free = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(
            *(_ask(channels[sender.channel], sender, free) for sender in page)
        )
        for sender, health in zip(page, found, strict=True):
            change = await _record(engine, sender, health)
            if change != "unchanged":
                told = {"sender": sender.sender, "change": change}
                logger.info("probed", extra=told)
            done.append(Probed(sender.sender, sender.channel, health, change))


async def _ask(
    channel: Probing, sender: KnownSender, free: asyncio.Semaphore
) -> Health:
    question: Callable[[], Awaitable[Health]] = partial(channel.probe, sender)
    async with free:
        return await answer_to(
            question, (Up, Down, Unknown), Unknown, {"sender": sender.sender}
        )


async def _record(engine: Engine, sender: KnownSender, health: Health) -> str:
    if isinstance(health, Unknown):
        return "unchanged"
    try:
        return await engine.record_probe(
            sender.sender,
            is_up=not isinstance(health, Down),
            detail=storable(health.detail, 500) if isinstance(health, Down) else None,
        )
    except EngineRefused as error:
        if error.sqlstate != "MD001":  # deleted meanwhile
            raise
        return "unchanged"
