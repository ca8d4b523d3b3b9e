"""Asks gateways which senders could send; parks those that cannot, resumes the others.

Only active senders are asked, and never one that was blocked: whether work goes out
from it again is an operator's decision. A gateway that gives no clear answer changes
nothing.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgdrip.channels import (
    Channel,
    Down,
    Health,
    Probing,
    Unknown,
    open_channels,
    storable,
)
from pgdrip.engine import Engine, KnownSender
from pgdrip.errors import ConfigurationError, EngineRefused

PAGE = 500  # senders of one round
AT_ONCE = 50  # questions
QUESTION_TIMEOUT = 60.0  # seconds

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
    opened = open_channels(channels)
    asked = {name: one for name, one in opened.items() if isinstance(one, Probing)}
    try:
        if channels is not None and len(asked) < len(opened):
            raise ConfigurationError(
                f"nobody can probe {', '.join(sorted(opened.keys() - asked.keys()))}",
                hint="its senders are parked by what becomes of their messages",
            )
        async with await Engine.connect(dsn, writable=True) as engine:
            return await _probe(engine, asked)
    finally:
        await _close(opened)


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
    try:
        async with free, asyncio.timeout(QUESTION_TIMEOUT):
            return await channel.probe(sender)
    except TimeoutError:
        return Unknown(f"no answer within {QUESTION_TIMEOUT:g} s")
    except Exception as error:
        logger.exception("channel raised", extra={"sender": sender.sender})
        return Unknown(f"channel raised {type(error).__name__}")


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


async def _close(opened: Mapping[str, Channel]) -> None:
    for channel in opened.values():
        await channel.close()
