"""What became of the messages a runner sent, in the columns report() takes."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from pgdrip.channels import (
    KEY_LIMIT,
    TEXT_LIMIT,
    Failed,
    Outcome,
    Sent,
    Uncertain,
    storable,
)
from pgdrip.engine import ClaimedMessage, Engine, Verdict
from pgdrip.errors import EngineRefused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What is reported of one token, in texts the database can store; no address."""

    enrollment_id: int
    token: int
    channel: str
    sender: str
    step: int
    outcome: str
    provider_id: str | None = None
    code: str | None = None
    detail: str | None = None

    @classmethod
    def of(cls, message: ClaimedMessage, outcome: Outcome) -> Self:
        return cls(
            message.enrollment_id,
            message.token,
            message.channel,
            message.sender,
            message.step,
            *columns(outcome),
        )


def columns(outcome: Outcome) -> tuple[str, str | None, str | None, str | None]:
    """Outcome, provider id, code and detail, as report() takes them."""
    match outcome:
        case Sent(provider_id):
            return "sent", storable(provider_id, KEY_LIMIT), None, None
        case Failed(code, detail):
            told = storable(detail, TEXT_LIMIT)
            return "failed", None, storable(code, KEY_LIMIT), told
        case Uncertain(detail):
            return "uncertain", None, None, storable(detail, TEXT_LIMIT)
        case other:  # a channel may return anything
            return "uncertain", None, None, f"channel gave {type(other).__name__}"


async def report(engine: Engine, results: Sequence[Result]) -> Counter[str]:
    """Report all; how often each verdict came. A refused call is halved until the one
    bad result stands alone; that one is given up (`refused`), and so becomes uncertain
    when its lease ends."""
    try:
        verdicts = await engine.report(
            *ids(results),
            outcomes=[result.outcome for result in results],
            provider_ids=[result.provider_id for result in results],
            codes=[result.code for result in results],
            details=[result.detail for result in results],
        )
    except EngineRefused as error:
        if (error.sqlstate or "").startswith("MD"):
            raise  # not for what was reported, but for the state the engine is in
        if len(results) > 1:
            half = len(results) // 2
            told = await report(engine, results[:half])
            return told + await report(engine, results[half:])
        refused = {**fields(results[0]), "error": error.message}
        logger.error("report refused", extra=refused)
        return Counter(["refused"])
    _log(results, verdicts)
    return Counter(verdict.verdict for verdict in verdicts)


def ids(items: Iterable[ClaimedMessage | Result]) -> tuple[list[int], list[int]]:
    """Enrollments and tokens, as the functions take them."""
    pairs = [(item.enrollment_id, item.token) for item in items]
    return [enrollment for enrollment, _ in pairs], [token for _, token in pairs]


def fields(item: ClaimedMessage | Result) -> dict[str, object]:
    """What a log line says of a message."""
    return {
        "enrollment": item.enrollment_id,
        "step": item.step,
        "token": item.token,
        "sender": item.sender,
    }


def _log(results: Sequence[Result], verdicts: Sequence[Verdict]) -> None:
    by_token = {verdict.token: verdict.verdict for verdict in verdicts}
    logger.debug("reported", extra=dict(Counter(by_token.values())))
    for result in results:
        verdict = by_token.get(result.token)
        if result.outcome != "sent" or verdict == "unknown":
            told = {"outcome": result.outcome, "code": result.code}
            told |= {"detail": result.detail, "verdict": verdict}
            logger.warning("not sent for certain", extra=fields(result) | told)
