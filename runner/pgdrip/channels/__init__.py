"""How messages leave: a channel takes one message and says what became of it.

A channel is a class without constructor arguments behind an entry point of the group
`pgdrip.channels`; the name of the entry point is what senders and sequences call their
channel. One instance serves all sends of a process, many at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError

GROUP = "pgdrip.channels"


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side has taken it; `provider_id` is what it calls the message."""

    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It certainly was not sent. The error rules of the channel class the `code`."""

    code: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Uncertain:
    """It may or may not have been sent. Whatever a channel raises counts as this."""

    detail: str


Outcome = Sent | Failed | Uncertain


class Channel(Protocol):
    """One way to send. `send` may be called many times at once and is cancelled when
    it takes too long; `close` is called once, with nothing in flight."""

    async def send(self, message: ClaimedMessage) -> Outcome: ...

    async def close(self) -> None: ...


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
