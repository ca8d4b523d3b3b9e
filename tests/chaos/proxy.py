"""The network between the runners and the database, as bad as it is told to be.

pass        what comes is passed on
slow        after a delay
blackhole   taken and never passed on, in both directions: half-open for good
cut reply   the next answer is taken from the server, then both ends are reset
"""

import asyncio
import random
import socket
from contextlib import suppress
from enum import Enum
from typing import Self

DELAY = 0.05  # seconds for each piece, when slow
PIECE = 1 << 16  # bytes


class Mode(Enum):
    PASS = "pass"
    SLOW = "slow"
    BLACKHOLE = "blackhole"
    CUT_REPLY = "cut reply"


class Line:
    """One connection of a client, carried on to the server."""

    def __init__(
        self, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self.mode = Mode.PASS
        self._ends = client, server

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_reply: bool,
    ) -> None:
        while data := await reader.read(PIECE):
            if self.mode is Mode.SLOW:
                await asyncio.sleep(DELAY)
            if self.mode is Mode.CUT_REPLY and is_reply:
                self.reset()
                return
            if self.mode is not Mode.BLACKHOLE:
                writer.write(data)
                await writer.drain()
        if self.mode is not Mode.BLACKHOLE:
            self.close()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def reset(self) -> None:
        for end in self._ends:
            reset(end)


class Proxy:
    """Listens on a free port of the loopback interface while entered; what it is
    connected to by is `port`. While `is_away` nobody gets through."""

    def __init__(self, path: str) -> None:
        self.lines: set[Line] = set()
        self.is_away = False
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self.reset_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def some(self, share: float, dice: random.Random) -> list[Line]:
        """So many of those that pass, at random, but one at least."""
        passing = [line for line in self.lines if line.mode is Mode.PASS]
        return dice.sample(passing, max(round(share * len(passing)), len(passing[:1])))

    def reset_all(self) -> None:
        for line in [*self.lines]:
            line.reset()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.is_away:
            reset(writer)
            return
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._path)
        except OSError:
            reset(writer)
            return
        line = Line(writer, to_server)
        self.lines.add(line)
        try:
            with suppress(OSError):
                await asyncio.gather(
                    line.carry(reader, to_server, is_reply=False),
                    line.carry(from_server, writer, is_reply=True),
                )
        finally:
            line.close()
            self.lines.discard(line)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN where the socket knows one."""
    wire = writer.get_extra_info("socket")
    with suppress(OSError):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
