"""A scriptable HTTP gateway on the loopback interface that keeps its own ledger.

Each request takes the next step of the script, or the last one again and again. What a
step does to the connection is real: it answers, stalls, closes or resets a socket.
"""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pgdrip.channels import Channel, Outcome
from pgdrip.engine import ClaimedMessage, UncertainSend

IS_CLOSED = False
IS_OPEN = True
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
MESSAGE = ClaimedMessage(
    enrollment_id=7,
    token=1099511627777,
    sequence="WARM",
    step=3,
    attempt=1,
    channel="",
    sender="device-0001",
    sender_config={},
    recipient="+60110000007",
    subject=None,
    body="Hi Zoë 👋",
    content=None,
    idempotency_key="7:3",
    due_at=NOW,
    send_by=NOW,
    lease_until=NOW,
)
UNCERTAIN = UncertainSend(
    enrollment_id=7,
    token=1099511627777,
    step=3,
    channel="",
    sender="device-0001",
    sender_config={},
    recipient="+60110000007",
    subject=None,
    body="Hi Zoë 👋",
    content=None,
    idempotency_key="7:3",
    begun_at=NOW,
    known_ids=[],
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One request as it came; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in self._pairs(self.target).items()}

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        found = parse_qs(self.body.decode(), strict_parsing=True)
        return {name: value for name, [value] in found.items()}

    @staticmethod
    def _pairs(target: str) -> dict[str, list[str]]:
        return parse_qs(urlsplit(target).query)


@dataclass(slots=True)
class Gateway:
    """`ledger` has what was read completely, in order; `connections` counts sockets."""

    script: list["Step"]
    url: str = ""
    ledger: list[Taken] = field(default_factory=list)
    connections: int = 0
    written: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def next_step(self) -> "Step":
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def take(self, reader: asyncio.StreamReader) -> Taken:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        taken = Taken(method, target, headers, body)
        self.ledger.append(taken)
        return taken


Step = Callable[[Gateway, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""What becomes of one request; returns whether the connection stays open."""


@asynccontextmanager
async def gateway(*script: Step) -> AsyncIterator[Gateway]:
    """A gateway that runs this script while it is entered."""
    made = Gateway(list(script))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        try:
            while await made.next_step()(made, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    host, port = server.sockets[0].getsockname()[:2]
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        made.over.set()
        server.close()


def send(
    channel: Channel, *script: "Step", config: dict[str, Any], **fields: Any
) -> tuple[Outcome, list[Taken]]:
    """Send MESSAGE, with these fields, to a gateway with this script; its ledger too.

    The sender's `url` is the gateway's.
    """

    async def main() -> tuple[Outcome, list[Taken]]:
        async with gateway(*script) as made:
            told = {"url": made.url, **config}
            try:
                message = replace(MESSAGE, sender_config=told, **fields)
                return await channel.send(message), made.ledger
            finally:
                await channel.close()

    return asyncio.run(main())


def answer(
    status: int, body: object = b"", headers: dict[str, str] | None = None
) -> Step:
    """Read the request, then answer it; what is no text or bytes goes as JSON."""
    data = _encoded(body)
    lines = {"Content-Length": str(len(data)), **(headers or {})}

    async def step(
        made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        await made.take(reader)
        writer.write(_head(status, lines) + data)
        await writer.drain()
        return IS_OPEN

    return step


def packed(status: int, body: object) -> Step:
    """An answer that is compressed though nobody asked for it."""
    return answer(status, gzip.compress(_encoded(body)), {"Content-Encoding": "gzip"})


def redirect(status: int, location: str) -> Step:
    return answer(status, b"", {"Location": location})


def raw(data: bytes) -> Step:
    """Read the request, answer with these bytes, and close."""

    async def step(
        made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        await made.take(reader)
        writer.write(data)
        await writer.drain()
        return IS_CLOSED

    return step


async def hang(
    made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Read the request and never answer."""
    await made.take(reader)
    await reader.read()
    return IS_CLOSED


async def hang_after_accept(
    made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Not even read the request."""
    await made.over.wait()
    return IS_CLOSED


async def close_before_reading(
    made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    return IS_CLOSED


async def close_after_reading(
    made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    await made.take(reader)
    return IS_CLOSED


async def reset_after_reading(
    made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    await made.take(reader)
    wire = writer.get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    return IS_CLOSED


def endless(status: int) -> Step:
    """Answer with a body that goes on until the client has had enough."""

    async def step(
        made: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        await made.take(reader)
        writer.write(_head(status, {"Content-Length": str(1 << 40)}))
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()
            made.written += 65536
        return IS_CLOSED

    return step


def _encoded(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said So\r\n{lines}\r\n".encode()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
