"""A small HTTP receiver that keeps a ledger of every message posted to it.

The demo and tests compare the ledger with what the database says: it is the other
side of the wire, and knows nothing of the engine.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Message:
    """What must reach a recipient exactly once."""

    recipient: str
    sequence: str
    step: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """One accepted message; `at` is by the receiver's clock."""

    key: str
    sender: str
    message: Message
    at: datetime


class Receiver:
    """Accepts whatever is posted; `ledger` has it in the order of arrival.

    Listens on a free port of the loopback interface while it is entered.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.ledger: list[Receipt] = []
        self.url = ""
        self._clock = clock
        application = web.Application()
        application.router.add_post("/{sender}", self._accept)
        self._runner = web.AppRunner(application, access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _accept(self, request: web.Request) -> web.Response:
        body = await request.json()
        receipt = Receipt(
            key=request.headers["Idempotency-Key"],
            sender=request.match_info["sender"],
            message=Message(body["recipient"], body["sequence"], body["step"]),
            at=self._clock(),
        )
        self.ledger.append(receipt)
        return web.json_response({"id": f"received-{len(self.ledger)}"})


def busiest_hour(times: Iterable[datetime]) -> int:
    """Return the most that fell into any hour, wherever that hour begins.

    An hour holds its beginning but not its end.
    """
    hour: deque[datetime] = deque()
    most = 0
    for at in sorted(times):
        hour.append(at)
        while at - hour[0] >= timedelta(hours=1):
            hour.popleft()
        most = max(most, len(hour))
    return most
