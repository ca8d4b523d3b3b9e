"""When the gateway of a channel cannot be reached: claim nothing for it for a while.

Closed until a send fails to connect and none that began as late got through. Then open
for a jittered time that doubles from failure to failure; after it one message goes out
as a probe, and whatever reaches the gateway closes it again.
"""

import logging
import random
from collections.abc import Iterable
from time import monotonic

from pgdrip.channels import Failed, Outcome
from pgdrip.sending import NOT_SENT, STOPPED, Ended

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds

logger = logging.getLogger(__name__)


class Breaker:
    """The state of one channel; times are monotonic."""

    __slots__ = ("_failures", "_reached_at", "opens_at")

    def __init__(self) -> None:
        self._failures = 0
        self._reached_at = 0.0
        self.opens_at = 0.0  # the end of the pause

    @property
    def is_closed(self) -> bool:
        return self._failures == 0

    @property
    def is_paused(self) -> bool:
        return not self.is_closed and monotonic() < self.opens_at

    def reached(self) -> bool:
        """A send got to the gateway; whether that closed the breaker."""
        was_closed = self.is_closed
        self._failures, self._reached_at = 0, monotonic()
        return not was_closed

    def unreached(self, began_at: float) -> bool:
        """A send that began then did not; whether the gateway counts as away."""
        if self.is_closed and began_at < self._reached_at:
            return False
        if not self.is_paused:  # those under way when it opened are one failure
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self.opens_at = monotonic() + random.uniform(0.5, 1.0) * pause
            self._failures += 1
        return True


class Breakers:
    """One for each channel."""

    def __init__(self, channels: Iterable[str]) -> None:
        self._of = {channel: Breaker() for channel in sorted(channels)}

    @property
    def closed(self) -> list[str]:
        """The channels to claim for without reserve."""
        return [channel for channel, one in self._of.items() if one.is_closed]

    @property
    def away(self) -> list[str]:
        """Those whose gateway could not be reached last time."""
        return [channel for channel, one in self._of.items() if not one.is_closed]

    @property
    def on_trial(self) -> list[str]:
        """Those of them whose pause is over."""
        return [channel for channel in self.away if not self._of[channel].is_paused]

    def judge(self, ended: Ended) -> Outcome:
        """What to report. While nothing reaches a gateway that is the sender's fault,
        whatever the channel says: such an attempt does not count."""
        outcome, channel = ended.outcome, ended.message.channel
        breaker = self._of[channel]
        match outcome:
            case Failed(reached=False):
                if breaker.unreached(ended.began_at):
                    seconds = round(breaker.opens_at - monotonic(), 1)
                    told: dict[str, object] = {"channel": channel}
                    told |= {"error": outcome.detail, "paused_for": seconds}
                    logger.warning("the gateway cannot be reached", extra=told)
                    return Failed("sender", outcome.detail)
            case Failed("sender"):
                pass  # it may not even have tried
            case _ if outcome not in (NOT_SENT, STOPPED) and breaker.reached():
                logger.info("the gateway is back", extra={"channel": channel})
        return outcome
