"""Asks gateways what became of uncertain sends, and settles those they know of.

Nothing is sent here. An answer is applied by the database's own rules; what nobody
knows stays uncertain, for the next time, a receipt or an operator.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from pgdrip.channels import (
    Answer,
    Failed,
    NotSent,
    Reconciling,
    Sent,
    Uncertain,
    open_channels,
    storable,
)
from pgdrip.engine import Engine, UncertainSend
from pgdrip.errors import ConfigurationError, EngineRefused

PAGE = 200  # uncertain sends of one round
AT_ONCE = 20  # questions
QUESTION_TIMEOUT = 60.0  # seconds
KEY_LIMIT, TEXT_LIMIT = 255, 2000  # characters of an id or code, of a detail
# Longer than any send, so that what is asked about is no longer on its way.
SETTLED = timedelta(minutes=10)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a gateway said of one send, and what became of it; None: left uncertain."""

    token: int
    enrollment_id: int
    channel: str
    recipient: str
    answer: Answer
    verdict: str | None


async def reconcile(
    dsn: str = "",
    *,
    channels: Iterable[str] | None = None,
    older_than: timedelta = SETTLED,
) -> list[Reconciled]:
    """Ask about every uncertain send of these channels, or of all that can be asked.

    Raises ConfigurationError for a channel named that has no way to ask.
    """
    opened = open_channels(channels)
    asked = {name: one for name, one in opened.items() if isinstance(one, Reconciling)}
    try:
        if channels is not None and len(asked) < len(opened):
            raise ConfigurationError(
                f"nobody can ask {', '.join(sorted(opened.keys() - asked.keys()))}",
                hint="its gateway tells by receipts, or an operator resolves by hand",
            )
        async with await Engine.connect(dsn, writable=True) as engine:
            return await _reconcile(engine, asked, older_than)
    finally:
        for channel in opened.values():
            await channel.close()


async def _reconcile(
    engine: Engine, channels: Mapping[str, Reconciling], older_than: timedelta
) -> list[Reconciled]:
    done: list[Reconciled] = []
    after = 0
    while True:
        page = await engine.uncertain_sends(
            list(channels), older_than=older_than, after=after, limit=PAGE
        )
        if not page:
            return done
        after = page[-1].token
        for message, answer in await _ask_all(channels, page):
            verdict = await _settle(engine, message, answer)
            done.append(
                Reconciled(
                    message.token,
                    message.enrollment_id,
                    message.channel,
                    message.recipient,
                    answer,
                    verdict,
                )
            )


async def _ask_all(
    channels: Mapping[str, Reconciling], page: Sequence[UncertainSend]
) -> list[tuple[UncertainSend, Answer]]:
    """Many at once, but one after another to one recipient: a message that is found
    stands for one of them only."""
    free = asyncio.Semaphore(AT_ONCE)
    by_recipient: dict[tuple[str, str], list[UncertainSend]] = defaultdict(list)
    for message in page:
        by_recipient[message.channel, message.recipient].append(message)

    async def ask(messages: list[UncertainSend]) -> list[tuple[UncertainSend, Answer]]:
        taken: list[str] = []
        answers: list[tuple[UncertainSend, Answer]] = []
        for message in messages:
            known = replace(message, known_ids=[*message.known_ids, *taken])
            async with free:
                answer = await _ask(channels[message.channel], known)
            if isinstance(answer, Sent) and answer.provider_id:
                taken.append(answer.provider_id)
            answers.append((message, answer))
        return answers

    found = await asyncio.gather(*map(ask, by_recipient.values()))
    return [answer for answers in found for answer in answers]


async def _ask(channel: Reconciling, message: UncertainSend) -> Answer:
    try:
        async with asyncio.timeout(QUESTION_TIMEOUT):
            return await channel.reconcile(message)
    except TimeoutError:
        return Uncertain(f"no answer within {QUESTION_TIMEOUT:g} s")
    except Exception as error:
        logger.exception("channel raised", extra={"token": message.token})
        return Uncertain(f"channel raised {type(error).__name__}")


async def _settle(engine: Engine, message: UncertainSend, answer: Answer) -> str | None:
    """Apply an answer; None where there is none, or the send was settled meanwhile."""
    if isinstance(answer, Uncertain):
        return None
    try:
        verdict = None
        if not isinstance(answer, NotSent):
            verdict = await _report(engine, message, answer)
        if verdict in {None, "stale"}:
            # NotSent is no failure; and no report moves a token from before a restore.
            outcome = "sent" if isinstance(answer, Sent) else "not_sent"
            verdict = await engine.resolve_uncertain(message.token, outcome)
    except EngineRefused as error:
        if error.sqlstate not in {"MD001", "MD003"}:
            raise
        return None
    return verdict


async def _report(engine: Engine, message: UncertainSend, answer: Sent | Failed) -> str:
    provider_id = code = detail = None
    if isinstance(answer, Sent):
        provider_id = storable(answer.provider_id, KEY_LIMIT)
    else:
        code = storable(answer.code, KEY_LIMIT)
        detail = storable(answer.detail, TEXT_LIMIT)
    [verdict] = await engine.report(
        [message.enrollment_id],
        [message.token],
        outcomes=["sent" if isinstance(answer, Sent) else "failed"],
        provider_ids=[provider_id],
        codes=[code],
        details=[detail],
    )
    return verdict.verdict
