"""What a runner holds, without a database or a gateway."""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from pgdrip.channels import Outcome, Sent
from pgdrip.engine import ClaimedMessage
from pgdrip.sending import NOT_SENT, Claimed, Ended, Sends


class Instant:
    async def send(self, message: ClaimedMessage) -> Outcome:
        return Sent()

    async def close(self) -> None:
        return None


class Endless(Instant):
    async def send(self, message: ClaimedMessage) -> Outcome:
        await asyncio.Event().wait()
        return Sent()


def message(token: int, *, sender: str = "s") -> ClaimedMessage:
    at = datetime(2026, 1, 5, 9, tzinfo=UTC)
    fields: dict[str, Any] = dict.fromkeys(ClaimedMessage.__slots__)
    fields |= {"enrollment_id": token, "token": token, "channel": "log"}
    fields["sender"] = sender
    return ClaimedMessage(**fields | {"due_at": at, "send_by": at, "lease_until": at})


@pytest.mark.parametrize(("times_asked", "told"), [(1, []), (2, [NOT_SENT])])
def test_what_an_unanswered_begin_may_have_begun_is_reported_as_not_sent(
    times_asked: int, told: list[Outcome]
) -> None:
    ended: list[Ended] = []
    sends = Sends(
        {"log": Instant()}, slots=1, per_sender=1, timeout=1, on_end=ended.append
    )
    sends.take([Claimed(message(7), monotonic() + 10)])
    for _ in range(times_asked):
        sends.ask()
    assert sends.begun([]) == 1
    assert [one.outcome for one in ended] == told
    assert len(sends) == 0


def test_what_may_begin_while_begin_is_asked_is_asked_for_next() -> None:
    ended: list[Ended] = []

    async def main() -> None:
        over = asyncio.Event()

        def on_end(one: Ended) -> None:
            ended.append(one)
            over.set()

        sends = Sends(
            {"log": Instant()}, slots=9, per_sender=1, timeout=1, on_end=on_end
        )
        first, behind, other = message(1), message(2), message(3, sender="t")
        sends.take([Claimed(one, monotonic() + 10) for one in (first, behind)])
        assert sends.ask() == [first]
        assert sends.begun([1]) == 0
        sends.take([Claimed(other, monotonic() + 10)])
        assert sends.ask() == [other]
        await over.wait()  # the first makes way for the one behind it
        assert sends.begun([3]) == 0
        assert sends.ask() == [behind]

    asyncio.run(main())
    assert ended[0].message.token == 1


def test_what_is_abandoned_has_no_outcome() -> None:
    ended: list[Ended] = []

    async def main() -> None:
        sends = Sends(
            {"log": Endless()}, slots=1, per_sender=1, timeout=9, on_end=ended.append
        )
        sends.take([Claimed(message(7), monotonic() + 10)])
        sends.ask()
        sends.begun([7])
        [task] = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)  # it is on the wire
        assert sends.abandon() == [7]
        await asyncio.wait([task])

    asyncio.run(main())
    assert ended == []
