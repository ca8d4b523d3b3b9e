"""What a runner holds, without a database or a gateway."""

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


def message(token: int) -> ClaimedMessage:
    at = datetime(2026, 1, 5, 9, tzinfo=UTC)
    fields: dict[str, Any] = dict.fromkeys(ClaimedMessage.__slots__)
    fields |= {"enrollment_id": token, "token": token, "channel": "log", "sender": "s"}
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
