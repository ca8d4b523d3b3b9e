"""How messages leave: a channel takes one message and says what became of it.

A channel is a class without constructor arguments behind an entry point of the group
`pgdrip.channels`; the name of the entry point is what senders and sequences call their
channel. One instance serves all sends of a process, many at once.

`send` and `close` make a channel. One that can ask its gateway how a sender is also has
`probe`; one that can ask what became of a message also has `reconcile`.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar, runtime_checkable

from pgdrip.engine import ClaimedMessage, KnownSender, UncertainSend
from pgdrip.errors import ConfigurationError

GROUP = "pgdrip.channels"
KEY_LIMIT = 255  # characters of a provider id or code; both are keys of indexes
TEXT_LIMIT = 2000  # characters of a detail
QUESTION_TIMEOUT = 60.0  # seconds
CLOSE_TIMEOUT = 5.0  # seconds

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Unsendable(Exception):
    """A message that a channel can make nothing of to send: code and detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side has taken it; `provider_id` is what it calls the message."""

    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It certainly was not sent. The error rules of the channel class the `code`.

    `reached` is False when there was no connection to the gateway at all: a runner that
    sees nothing else from a channel pauses it, and the attempt does not count.
    """

    code: str
    detail: str | None = None
    reached: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Uncertain:
    """It may or may not have been sent. Whatever a channel raises counts as this."""

    detail: str


Outcome = Sent | Failed | Uncertain


@dataclass(frozen=True, slots=True)
class NotSent:
    """It never reached the other side, by its own word; it may be sent again."""


Answer = Sent | Failed | NotSent | Uncertain


@dataclass(frozen=True, slots=True)
class Up:
    """The gateway says that the sender can send."""


@dataclass(frozen=True, slots=True)
class Down:
    """The gateway says that the sender cannot send, or cannot be reached for it."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The gateway gave no answer that tells."""

    detail: str


Health = Up | Down | Unknown


class Channel(Protocol):
    """One way to send. `send` may be called many times at once and is cancelled when
    it takes too long; `close` is called once, with nothing in flight.

    What a gateway does is an outcome, never an exception. A secret is in no detail.
    """

    async def send(self, message: ClaimedMessage) -> Outcome: ...

    async def close(self) -> None: ...


@runtime_checkable
class Probing(Protocol):
    """A channel that can ask whether a sender could send, without sending."""

    async def probe(self, sender: KnownSender) -> Health: ...


@runtime_checkable
class Reconciling(Protocol):
    """A channel that can ask what became of a message whose outcome nobody knows.

    Sent and Failed settle it like a report, NotSent makes it due again; Uncertain
    leaves it as it is. `message.known_ids` are other messages to the same contact.
    """

    async def reconcile(self, message: UncertainSend) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """Names one attempt; gateways that echo a text in their callbacks get it along."""

    enrollment_id: int
    step: int
    token: int

    def __str__(self) -> str:
        return f"{self.enrollment_id}:{self.step}/{self.token}"

    @classmethod
    def of(cls, message: ClaimedMessage) -> "Reference":
        return cls(message.enrollment_id, message.step, message.token)

    @classmethod
    def parse(cls, text: object) -> "Reference | None":
        """Read what `str` wrote; None for anything else."""
        found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        return cls(*(int(number) for number in found.groups())) if found else None


_REFERENCE = re.compile(r"([0-9]{1,18}):([0-9]{1,9})/([0-9]{1,18})")


def storable(value: object, limit: int) -> str | None:
    """Text as a database takes it: no NUL, no lone surrogate, `limit` characters."""
    if value is None:
        return None
    return str(value)[:limit].replace("\0", "").encode("utf-8", "replace").decode()


def media_hosts(config: Mapping[str, Any]) -> frozenset[str] | None:
    """The hosts a sender's `media_hosts` lets media come from; None: any."""
    named = config.get("media_hosts")
    if named is None:
        return None
    words = named.split() if isinstance(named, str) else named
    is_list = isinstance(words, list) and all(isinstance(one, str) for one in words)
    return frozenset(one.lower() for one in words) if is_list else frozenset()


def as_json(message: ClaimedMessage) -> dict[str, Any]:
    """What a receiver gets to see of a message, the same on every channel of JSON."""
    return {
        "idempotency_key": message.idempotency_key,
        "enrollment_id": message.enrollment_id,
        "sequence": message.sequence,
        "step": message.step,
        "attempt": message.attempt,
        "sender": message.sender,
        "recipient": message.recipient,
        "subject": message.subject,
        "body": message.body,
        "content": message.content,
        "due_at": message.due_at.isoformat(),
    }


def open_channels(names: Iterable[str] | None = None) -> dict[str, Channel]:
    """The channels of these names, or all installed ones, ready to send."""
    installed: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = installed.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigurationError(
                f"two channels are called {point.name}: {other.value}, {point.value}"
            )
    wanted = sorted(installed) if names is None else list(dict.fromkeys(names))
    return {name: _open(name, installed) for name in wanted}


@asynccontextmanager
async def channels_that(
    can: type[T], names: Iterable[str] | None, *, verb: str, hint: str
) -> AsyncIterator[dict[str, T]]:
    """Those of the named or of all channels that have this ability, until the end.

    Raises ConfigurationError for a channel named that has not.
    """
    opened = open_channels(names)
    try:
        able: dict[str, T] = {
            name: one for name, one in opened.items() if isinstance(one, can)
        }
        if names is not None and len(able) < len(opened):
            unable = ", ".join(sorted(opened.keys() - able.keys()))
            raise ConfigurationError(f"nobody can {verb} {unable}", hint=hint)
        yield able
    finally:
        await close_channels(opened)


async def close_channels(opened: Mapping[str, Channel]) -> None:
    """Close them all; one that raises or does not end is no bar to the others."""
    for name, channel in opened.items():
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await channel.close()
        except Exception:
            logger.exception("channel raised", extra={"channel": name})


async def answer_to(
    question: Callable[[], Awaitable[T]],
    kinds: tuple[type, ...],
    unknown: Callable[[str], T],
    about: Mapping[str, object],
) -> T:
    """What a channel answers to probe or reconcile, one of these `kinds`; `unknown`
    whenever it does anything else. `about` is for the log."""
    try:
        async with asyncio.timeout(QUESTION_TIMEOUT):
            answer = await question()
    except TimeoutError:
        return unknown(f"no answer within {QUESTION_TIMEOUT:g} s")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        asked_by = asyncio.current_task()
        if asked_by and asked_by.cancelling():
            raise
        logger.exception("channel raised", extra=dict(about))
        return unknown(f"channel raised {type(error).__name__}")
    if isinstance(answer, kinds):
        return answer
    return unknown(f"channel gave {type(answer).__name__}")


def _open(name: str, installed: dict[str, EntryPoint]) -> Channel:
    if name not in installed:
        raise ConfigurationError(
            f"no channel is called {name}",
            hint=f"installed: {', '.join(sorted(installed)) or 'none'}",
        )
    try:
        channel: Channel = installed[name].load()()
    except Exception as error:
        raise ConfigurationError(
            f"channel {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return channel
