"""What a provider can tell, and how the database is told."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgdrip.channels import KEY_LIMIT, TEXT_LIMIT, Reference, storable
from pgdrip.engine import Engine
from pgdrip.errors import EngineRefused

logger = logging.getLogger(__name__)

STATUSES = frozenset({"sent", "delivered", "read", "failed"})
# SQLSTATEs of an event that is itself bad; None: the text is not valid Unicode.
MALFORMED = frozenset({"22", "23"})
REASON_LIMIT = 500  # characters; the database takes 2,000 bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A message got so far; `code` and `detail` are the provider's, of a failure.

    `reference` is what the channel gave along and the provider repeats.
    """

    channel: str
    provider_id: str
    status: str
    at: datetime | None = None
    code: str | None = None
    detail: str | None = None
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A person answered; opt-out words are the database's to know."""

    channel: str
    address: str
    text: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OptOut:
    """The provider says that this person wants no more messages."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that is none of our business."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that should be an event and is none."""

    reason: str


Event = Receipt | Reply | OptOut | Ignored | Malformed


@dataclass(slots=True)
class Counts:
    """What became of the events of one request. `accepted` says that the database was
    told, not that it knew the message."""

    accepted: int = 0
    rejected: int = 0
    ignored: int = 0


async def tell(engine: Engine, events: Iterable[Event]) -> Counts:
    """Tell the database of each event, in a transaction of its own.

    An event it refuses is counted and spoils no other; any other error is raised, and
    all events may be told again.
    """
    counts = Counts()
    for event in events:
        try:
            if isinstance(event, Malformed):
                raise EngineRefused(event.reason)
            if isinstance(event, Ignored):
                counts.ignored += 1
                continue
            await _tell(engine, event)
            counts.accepted += 1
        except EngineRefused as error:
            if error.sqlstate and error.sqlstate[:2] not in MALFORMED:
                raise
            logger.warning("event refused", extra={"reason": error.message})
            counts.rejected += 1
    return counts


async def _tell(engine: Engine, event: Receipt | Reply | OptOut) -> None:
    match event:
        case Receipt():
            await _tell_receipt(engine, event)
        case Reply():
            await engine.record_reply(
                event.channel,
                event.address,
                text=storable(event.text, TEXT_LIMIT) or "",
                at=event.at and _end_of_second(event.at),
            )
        case OptOut():
            await engine.suppress(event.address, _reason(event.reason))


def _reason(given: str) -> str:
    """As suppress() takes it: who opts out for an odd reason has opted out."""
    reason = storable(given, REASON_LIMIT) or ""
    return reason if any(c.isprintable() and c != " " for c in reason) else "opted out"


def _end_of_second(at: datetime) -> datetime:
    """Providers cut times to seconds; who was enrolled within that second has answered
    afterwards."""
    return at if at.microsecond else at + timedelta(microseconds=999_999)


async def _tell_receipt(engine: Engine, receipt: Receipt) -> None:
    if receipt.status == "failed":
        logger.warning(
            "message not delivered",
            extra={
                "channel": receipt.channel,
                "provider_id": receipt.provider_id,
                "code": receipt.code,
                "detail": receipt.detail,
            },
        )
    is_news = await engine.record_receipt(
        receipt.channel, receipt.provider_id, status=receipt.status, at=receipt.at
    )
    if not is_news and receipt.reference:
        await _report(engine, receipt, receipt.reference)


async def _report(engine: Engine, receipt: Receipt, attempt: Reference) -> None:
    """Say whose an unknown provider id is: the runner's own report may be lost.

    Where the outcome of the attempt is known, this changes nothing.
    """
    has_failed = receipt.status == "failed"
    code = storable(receipt.code, KEY_LIMIT) or "permanent"
    await engine.report(
        [attempt.enrollment_id],
        [attempt.token],
        outcomes=["failed" if has_failed else "sent"],
        provider_ids=[receipt.provider_id],
        codes=[code] if has_failed else None,
        details=[storable(receipt.detail, TEXT_LIMIT)] if has_failed else None,
    )
