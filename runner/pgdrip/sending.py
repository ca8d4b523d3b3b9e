"""The messages a runner holds, from the claim to the end of their sends.

    waiting     behind others of their sender, which sends so many at once and no more
    beginning   their sender is free: begin_send() is to be asked for them
    sending     on the wire, each a task that ends as one outcome
    unwanted    not begun, and to be given back: their time is over, their channel is
                paused, their sender has enough waiting, or the runner stops

Only `sending` survives as uncertain when the process dies. Times are monotonic.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from pgdrip.channels import Channel, Failed, Outcome, Uncertain
from pgdrip.engine import ClaimedMessage
from pgdrip.results import fields

AHEAD = 2.0  # seconds: as many wait for a sender as it can send in this time
FIRST_PACE = 0.2  # seconds a send takes, as long as nobody knows
LANES = 10_000  # senders remembered while they have nothing to do
NOT_SENT = Failed("transient", "not sent: its time was over before the request")
STOPPED = Uncertain("the runner stopped before it was answered")

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Claimed:
    """A message and the monotonic time by which its send must have started."""

    message: ClaimedMessage
    start_by: float
    is_waiting: bool = False
    asked: int = 0  # calls of begin_send() for it


@dataclass(slots=True)
class Lane:
    """One sender: what waits for it, in the order of the claims; how many are begun or
    beginning; and how long a send of it takes, in seconds."""

    waiting: deque[Claimed] = field(default_factory=deque)
    busy: int = 0
    pace: float = FIRST_PACE


@dataclass(frozen=True, slots=True)
class Ended:
    """One send that is over."""

    message: ClaimedMessage
    outcome: Outcome
    began_at: float
    seconds: float


class Sends:
    """Half of the `slots` at most hold what waits. `on_end` is called once for each
    message that was begun."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        *,
        slots: int,
        per_sender: int,
        timeout: float,
        on_end: Callable[[Ended], None],
    ) -> None:
        self.beginning: list[Claimed] = []
        self.unwanted: list[Claimed] = []
        self._sending: dict[int, tuple[Claimed, asyncio.Task[None]]] = {}
        self._lanes: defaultdict[str, Lane] = defaultdict(Lane)
        self._queue: deque[Claimed] = deque()  # waiting ones, and such as waited
        self._waiting = 0
        self._held: Counter[str] = Counter()  # by channel
        self._channels = channels
        self._most_waiting = max(1, slots // 2)
        self._per_sender = per_sender
        self._timeout = timeout
        self._on_end = on_end

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def sending(self) -> list[ClaimedMessage]:
        return [claimed.message for claimed, _ in self._sending.values()]

    @property
    def is_sending(self) -> bool:
        return bool(self._sending)

    @property
    def unbegun(self) -> int:
        """How many are claimed and not begun."""
        return self._waiting + len(self.beginning) + len(self.unwanted)

    def __len__(self) -> int:
        return self.unbegun + len(self._sending)

    def holds(self, channel: str) -> bool:
        """Whether a message of this channel is here."""
        return self._held[channel] > 0

    def take(self, claimed: Iterable[Claimed]) -> int:
        """Sort in what was claimed; how many of it nobody can send in time."""
        before = len(self.unwanted)
        for one in claimed:
            self._held[one.message.channel] += 1
            lane = self._lanes[one.message.sender]
            if lane.busy < self._per_sender:
                lane.busy += 1
                self.beginning.append(one)
            elif self._has_room(lane):
                one.is_waiting = True
                lane.waiting.append(one)
                self._queue.append(one)
                self._waiting += 1
            else:
                self.unwanted.append(one)
        return len(self.unwanted) - before

    def expire(self, now: float) -> int:
        """Make unwanted whatever has not begun in time; how many."""
        late = [one for one in self.beginning if one.start_by <= now]
        while self._queue and (
            not self._queue[0].is_waiting or self._queue[0].start_by <= now
        ):
            one = self._queue.popleft()
            if one.is_waiting:
                late.append(one)
                self._lanes[one.message.sender].pace = AHEAD * self._per_sender
        self._drop(late)
        return len(late)

    def expire_at(self) -> float:
        """When expire() has something to do at the latest."""
        return self._queue[0].start_by if self._queue else float("inf")

    def drop_unbegun(self, channel: str | None = None) -> None:
        """Make unwanted what has not begun, of one channel or of all."""
        unbegun = [*self.beginning, *(one for one in self._queue if one.is_waiting)]
        self._drop([one for one in unbegun if channel in (None, one.message.channel)])

    def given_back(self, released: Iterable[int]) -> None:
        """release() was asked for all unwanted and gave these tokens back; others were
        begun, by a call whose answer was lost, but never sent."""
        tokens = set(released)
        unwanted, self.unwanted = self.unwanted, []
        for one in unwanted:
            self._held[one.message.channel] -= 1
            if one.message.token not in tokens:
                self._on_end(Ended(one.message, NOT_SENT, monotonic(), 0.0))

    def ask(self) -> list[ClaimedMessage]:
        """What begin_send() is to be asked for now: all `beginning`."""
        for one in self.beginning:
            one.asked += 1
        return [one.message for one in self.beginning]

    def begun(self, granted: Iterable[int]) -> int:
        """begin_send() granted these tokens of those last asked for; how many it
        refused. One asked for before may be begun there by a call whose answer was
        lost, but was never sent; one that came while it was asked is still to ask."""
        tokens = set(granted)
        asked = [one for one in self.beginning if one.asked]
        self.beginning = [one for one in self.beginning if not one.asked]
        for one in asked:
            token = one.message.token
            if token in tokens:
                self._sending[token] = one, asyncio.create_task(self._send(one))
                continue
            self._leave(one)
            if one.asked > 1:
                self._on_end(Ended(one.message, NOT_SENT, monotonic(), 0.0))
        return len(asked) - len(tokens)

    def cut(self) -> None:
        """End every send as uncertain, whether or not its channel heeds the cancel."""
        sending, self._sending = self._sending, {}
        for one, task in sending.values():
            task.cancel()
            self._leave(one)
            self._on_end(Ended(one.message, STOPPED, monotonic(), 0.0))

    def abandon(self) -> list[int]:
        """Cancel every send without an outcome; their tokens."""
        sending, self._sending = self._sending, {}
        for _, task in sending.values():
            task.cancel()
        return list(sending)

    async def _send(self, one: Claimed) -> None:
        message, began_at = one.message, monotonic()
        try:
            if one.start_by <= began_at:
                outcome: Outcome = NOT_SENT
            else:
                async with asyncio.timeout(self._timeout):
                    outcome = await self._channels[message.channel].send(message)
        except TimeoutError:
            outcome = Uncertain(f"no outcome within {self._timeout:g} s")
        except asyncio.CancelledError:
            outcome = Uncertain("cancelled")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            logger.exception("channel raised", extra=fields(message))
            outcome = Uncertain(f"channel raised {type(error).__name__}")
        # Gone already when the grace period was over first.
        if self._sending.pop(message.token, None):
            seconds = monotonic() - began_at
            lane = self._lanes[message.sender]
            lane.pace += (max(seconds, 0.001) - lane.pace) / 4
            self._leave(one)
            self._on_end(Ended(message, outcome, began_at, seconds))

    def _has_room(self, lane: Lane) -> bool:
        ahead = max(1, self._per_sender * AHEAD / lane.pace)
        return len(lane.waiting) < ahead and self._waiting < self._most_waiting

    def _leave(self, one: Claimed) -> None:
        """It frees its place; the next of its sender begins."""
        self._held[one.message.channel] -= 1
        self._free(one.message.sender)

    def _free(self, sender: str) -> None:
        lane = self._lanes[sender]
        lane.busy -= 1
        while lane.waiting and lane.busy < self._per_sender:
            following = lane.waiting.popleft()
            following.is_waiting = False
            self._waiting -= 1
            lane.busy += 1
            self.beginning.append(following)
        if not lane.busy and len(self._lanes) > LANES:
            del self._lanes[sender]

    def _drop(self, unbegun: list[Claimed]) -> None:
        gone = set(unbegun)
        self.unwanted += unbegun
        freed = [one for one in self.beginning if one in gone]
        self.beginning = [one for one in self.beginning if one not in gone]
        for one in unbegun:
            if one.is_waiting:
                one.is_waiting = False
                self._waiting -= 1
                self._lanes[one.message.sender].waiting.remove(one)
        for one in freed:
            self._free(one.message.sender)
