"""Runner processes, and who starts again what died, as a service manager does."""

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

KILLED = -signal.SIGKILL
UNREACHABLE = 4  # the exit code of a runner that finds no database when it starts
PAUSE = 0.3  # seconds until one that died is started again


@dataclass(slots=True)
class Process:
    """One runner; the process may be another one after each death."""

    name: str
    process: asyncio.subprocess.Process | None = None
    is_stopped: bool = False
    exits: list[int] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.is_up:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
                self.is_stopped = number is signal.SIGSTOP


class Runners:
    """So many of them while entered; at the end they are asked to stop.

    `lease` in seconds of the database, `timeout` in real ones.
    """

    def __init__(
        self,
        dsn: str,
        home: Path,
        *,
        count: int,
        slots: int,
        lease: int,
        timeout: int = 2,
    ) -> None:
        self.all = [Process(f"runner-{number}") for number in range(1, count + 1)]
        self.home = home
        self.spool = home / "spool"
        self._environment = os.environ | {"PGDRIP_DSN": dsn}
        self._options = (
            *("--channel", "webhook", "--slots", str(slots), "--lease", str(lease)),
            *("--timeout", str(timeout), "--per-sender", "4", "--grace", "10"),
            *("--spool", str(self.spool)),
        )
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._supervise(one)) for one in self.all]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._is_over = True
        for one in self.all:
            one.signal(signal.SIGCONT)
            one.signal(signal.SIGKILL)
        await asyncio.gather(*self._tasks)

    async def stop(self) -> float:
        """SIGTERM to all; the seconds until the last one is gone."""
        self._is_over = True
        began = time.monotonic()
        for one in self.all:
            one.signal(signal.SIGTERM)
        await asyncio.gather(*self._tasks)
        return time.monotonic() - began

    @property
    def odd_exits(self) -> list[str]:
        """Ends nobody ordered, and stops that were no success."""
        return [
            f"{one.name} ended with {code}"
            for one in self.all
            for number, code in enumerate(one.exits, 1)
            if code not in ((0,) if number == len(one.exits) else (KILLED, UNREACHABLE))
        ]

    async def _supervise(self, one: Process) -> None:
        with (self.home / f"{one.name}.log").open("ab") as log:
            while not self._is_over:
                command = (sys.executable, "-m", "pgdrip", "run", "--name", one.name)
                one.process = await asyncio.create_subprocess_exec(
                    *(*command, *self._options), env=self._environment, stderr=log
                )
                one.is_stopped = False
                one.exits.append(await one.process.wait())
                if not self._is_over:
                    await asyncio.sleep(PAUSE)
