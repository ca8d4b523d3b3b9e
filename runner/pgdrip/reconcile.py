"""Asks gateways what became of uncertain sends, and settles those they know of.

Nothing is sent here. An answer is applied by the database's own rules; what nobody
knows stays uncertain, for the next time, a receipt or an operator.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from pgdrip.channels import (
    Answer,
    Failed,
    NotSent,
    Reconciling,
    Sent,
    Uncertain,
    answer_to,
    channels_that,
)
from pgdrip.engine import Engine, UncertainSend
from pgdrip.errors import EngineRefused
from pgdrip.results import columns

PAGE = 200  # uncertain sends of one round
AT_ONCE = 20  # questions
# Longer than any send, so that what is asked about is no longer on its way.
SETTLED = timedelta(minutes=10)


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
    able = channels_that(
        Reconciling,  # type: ignore[type-abstract]
        channels,
        verb="ask",
        hint="its gateway tells by receipts, or an operator resolves by hand",
    )
    async with able as asked, await Engine.connect(dsn, writable=True) as engine:
        return await _reconcile(engine, asked, older_than)


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
    question: Callable[[], Awaitable[Answer]] = partial(channel.reconcile, message)
    kinds = (Sent, Failed, NotSent, Uncertain)
    return await answer_to(question, kinds, Uncertain, {"token": message.token})


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
    outcome, provider_id, code, detail = columns(answer)
    [verdict] = await engine.report(
        [message.enrollment_id],
        [message.token],
        outcomes=[outcome],
        provider_ids=[provider_id],
        codes=[code],
        details=[detail],
    )
    return verdict.verdict
