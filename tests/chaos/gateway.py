"""A gateway that accepts messages, writes each down, and lies about it by a seed.

Its ledger is a file to which it appends one JSON object a line before it answers:

    at        clock time the request came in, seconds since 1970
    key       `<enrollment>:<step>`, the Idempotency-Key
    sender    whose message it is
    act       what it did, see below
    accepted  whether the message went out by this request

What it does is drawn for each key and try, so that no order of requests changes it.
Where it `keeps_keys`, a message that went out before is answered 200 and goes out no
more.
"""

import asyncio
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from chaos.clock import Clock

SLOW = 2.5  # seconds; longer than runners wait

HONEST: Mapping[str, float] = {}
LYING = {
    "busy": 0.04,  # 503, not accepted
    "throttled": 0.02,  # 429 with Retry-After, not accepted
    "lost": 0.01,  # reset, not accepted
    "broken": 0.02,  # accepted, 500
    "cut": 0.02,  # accepted, reset
    "slow": 0.02,  # accepted, answered when nobody waits any more
}
NOT_ACCEPTED = frozenset({"away", "busy", "throttled", "lost", "repeated"})
AMBIGUOUS = frozenset({"lost", "broken", "cut", "slow"})


@dataclass(frozen=True, slots=True)
class Entry:
    at: float
    key: str
    sender: str
    act: str
    accepted: bool


class Gateway:
    """Serves on a free port of the loopback interface while entered; `url` is of it.

    `acts`: how often, of 1, it does what; the rest is answered 200. `latency` in
    seconds, of each answer.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        seed: int,
        acts: Mapping[str, float],
        keeps_keys: bool,
        latency: float,
    ) -> None:
        self.path = path
        self.acts = acts
        self._clock = clock
        self._seed = seed
        self._keeps_keys = keeps_keys
        self._latency = latency
        self.open = 0  # requests that are not answered yet
        self._tries: Counter[str] = Counter()
        self._known: set[str] = set()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/", self._take)
        self._server = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._server.setup()
        self._port = 0
        await self.back()
        self._port = self._server.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/"
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._server.cleanup()
        os.close(self._file)

    async def away(self) -> None:
        """Refuse connections from now on, and whatever comes over those there are."""
        self._is_away = True
        await self._site.stop()

    async def back(self) -> None:
        self._is_away = False
        self._site = web.TCPSite(self._server, "127.0.0.1", self._port)
        await self._site.start()

    def ledger(self, skip: int = 0) -> list[Entry]:
        """What the file says after the first `skip` lines."""
        with self.path.open() as file:
            return [Entry(**json.loads(line)) for line in islice(file, skip, None)]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        arrived = self._clock.now()
        message: dict[str, Any] = await request.json()
        key = request.headers["Idempotency-Key"]
        act = "away" if self._is_away else self._draw(key)
        accepted = act not in NOT_ACCEPTED
        entry = Entry(arrived, key, message["sender"], act, accepted)
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")
        if accepted:
            self._known.add(key)
        self.open += 1
        try:
            return await self._answer(request, act)
        finally:
            self.open -= 1

    def _draw(self, key: str) -> str:
        if self._keeps_keys and key in self._known:
            return "repeated"
        self._tries[key] += 1
        dice = random.Random(f"{self._seed} {key} {self._tries[key]}").random()
        for act, share in self.acts.items():
            if dice < share:
                return act
            dice -= share
        return "sent"

    async def _answer(self, request: web.Request, act: str) -> web.StreamResponse:
        await asyncio.sleep(SLOW if act == "slow" else self._latency)
        if act in {"lost", "cut"} and request.transport:
            wire: socket.socket = request.transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            request.transport.abort()
        status = {"busy": 503, "throttled": 429, "away": 503, "broken": 500}
        headers = {"Retry-After": "1"} if act == "throttled" else None
        return web.json_response({}, status=status.get(act, 200), headers=headers)
