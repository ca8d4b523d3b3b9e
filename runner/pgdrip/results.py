"""What became of the messages a runner sent, in the columns report() takes."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgdrip.channels import Failed, Outcome, Sent, Uncertain
from pgdrip.engine import ClaimedMessage, Engine, Verdict
from pgdrip.errors import EngineRefused

ID_LIMIT = 255  # characters of a provider id or code; both are keys of indexes
TEXT_LIMIT = 2000  # characters of a detail

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    message: ClaimedMessage
    outcome: Outcome

    def row(self) -> tuple[str, str | None, str | None, str | None]:
        """Outcome, provider id, code and detail."""
        match self.outcome:
            case Sent(provider_id):
                return "sent", _text(provider_id, ID_LIMIT), None, None
            case Failed(code, detail):
                return "failed", None, _text(code, ID_LIMIT), _text(detail)
            case Uncertain(detail):
                return "uncertain", None, None, _text(detail)
            case other:  # a channel may return anything
                return "uncertain", None, None, f"channel gave {type(other).__name__}"


async def report(engine: Engine, results: Sequence[Result]) -> None:
    """Report all. A refused call is halved until the one bad result stands alone; that
    one is given up, and so becomes uncertain when its lease ends."""
    outcomes, provider_ids, codes, details = zip(
        *(r.row() for r in results), strict=True
    )
    try:
        verdicts = await engine.report(
            *ids(result.message for result in results),
            outcomes=outcomes,
            provider_ids=provider_ids,
            codes=codes,
            details=details,
        )
    except EngineRefused as error:
        if (error.sqlstate or "").startswith("MD"):
            raise  # not for what was reported, but for the state the engine is in
        if len(results) > 1:
            half = len(results) // 2
            await report(engine, results[:half])
            await report(engine, results[half:])
        else:
            refused = {**fields(results[0].message), "error": error.message}
            logger.error("report refused", extra=refused)
    else:
        _log(results, verdicts)


def ids(messages: Iterable[ClaimedMessage]) -> tuple[list[int], list[int]]:
    """Enrollments and tokens, as the functions take them."""
    pairs = [(message.enrollment_id, message.token) for message in messages]
    return [enrollment for enrollment, _ in pairs], [token for _, token in pairs]


def fields(message: ClaimedMessage) -> dict[str, object]:
    """What a log line says of a message."""
    return {
        "enrollment": message.enrollment_id,
        "step": message.step,
        "token": message.token,
        "sender": message.sender,
        "recipient": message.recipient,
    }


def _log(results: Sequence[Result], verdicts: Sequence[Verdict]) -> None:
    by_token = {verdict.token: verdict.verdict for verdict in verdicts}
    logger.debug("reported", extra=dict(Counter(by_token.values())))
    for result in results:
        verdict = by_token.get(result.message.token)
        if not isinstance(result.outcome, Sent) or verdict == "unknown":
            told = {"outcome": str(result.outcome), "verdict": verdict}
            logger.warning("not sent for certain", extra=fields(result.message) | told)


def _text(value: object, limit: int = TEXT_LIMIT) -> str | None:
    """Only what the database can store: no NUL, no lone surrogate, not endless."""
    if value is None:
        return None
    text = str(value)[:limit].replace("\0", "")
    return text.encode("utf-8", "replace").decode()
