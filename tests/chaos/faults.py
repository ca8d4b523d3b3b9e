"""The injector: one fault after the other, drawn by a seed, until it is stopped.

Each is over when its function returns, or leaves only what the product has to get over
by itself. Those that take a while go on beside the others, but never two of one kind.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from chaos.proxy import Mode
from pgdrip.migrate import migrate

if TYPE_CHECKING:
    from chaos.world import World

OUTAGE = 0.3  # seconds a server or gateway is away
Fault = Callable[["World", random.Random], Coroutine[Any, Any, None]]

TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where application_name = 'pgdrip-runner'"
)


async def kill_runner(world: "World", dice: random.Random) -> None:
    """kill -9; whatever it had begun is ambiguous."""
    world.runner(dice).signal(signal.SIGKILL)


async def stop_runner(world: "World", dice: random.Random) -> None:
    """A zombie: stands still longer than its leases, then goes on as if nothing was."""
    one = world.runner(dice)
    one.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(1.7 * world.clock.real(world.plan.lease))
    finally:
        one.signal(signal.SIGCONT)


async def terminate_backends(world: "World", dice: random.Random) -> None:
    with suppress(psycopg.OperationalError):  # there is no server at the moment
        async with await psycopg.AsyncConnection.connect(world.server.dsn) as admin:
            await admin.execute(TERMINATE)


async def reset_connections(world: "World", dice: random.Random) -> None:
    world.proxy.reset_all()


async def cut_replies(world: "World", dice: random.Random) -> None:
    """The next answers of half the connections are lost, that of a COMMIT, too."""
    for line in world.proxy.some(0.5, dice):
        line.mode = Mode.CUT_REPLY


async def blackhole(world: "World", dice: random.Random) -> None:
    """One connection is half-open from now on."""
    for line in world.proxy.some(0, dice):
        line.mode = Mode.BLACKHOLE


async def slow_network(world: "World", dice: random.Random) -> None:
    slowed = world.proxy.some(0.5, dice)
    for line in slowed:
        line.mode = Mode.SLOW
    await asyncio.sleep(1)
    for line in slowed:
        if line.mode is Mode.SLOW:
            line.mode = Mode.PASS


async def partition(world: "World", dice: random.Random) -> None:
    """Nobody reaches the database for a while."""
    world.proxy.is_away = True
    world.proxy.reset_all()
    await asyncio.sleep(3 * OUTAGE)
    world.proxy.is_away = False


async def long_partition(world: "World", dice: random.Random) -> None:
    """Nobody reaches the database until every lease has run out, from a moment on in
    which messages are on their way."""
    while not world.gateway.open:
        await asyncio.sleep(0.01)
    world.proxy.is_away = True
    world.proxy.reset_all()
    await asyncio.sleep(1.5 * world.clock.real(world.plan.lease))
    world.proxy.is_away = False


async def crash_server(world: "World", dice: random.Random) -> None:
    """pg_ctl stop -m immediate, and start again."""
    await _crash(world, signal.SIGQUIT)


async def kill_server(world: "World", dice: random.Random) -> None:
    """kill -9 of the postmaster."""
    await _crash(world, signal.SIGKILL)


async def migrate_again(world: "World", dice: random.Random) -> None:
    """Every function is replaced by itself."""
    with suppress(psycopg.OperationalError):  # there is no server at the moment
        await asyncio.to_thread(migrate, world.server.dsn)


async def gateway_away(world: "World", dice: random.Random) -> None:
    await world.gateway.away()
    await asyncio.sleep(OUTAGE)
    await world.gateway.back()


async def _crash(world: "World", number: signal.Signals) -> None:
    await asyncio.to_thread(world.server.crash, number)
    await asyncio.sleep(OUTAGE)
    await asyncio.to_thread(world.server.start_again)


Faults = dict[Fault, int]
"""How often each comes, in relation to the others."""

ALL: Faults = {
    kill_runner: 4,
    stop_runner: 2,
    terminate_backends: 2,
    reset_connections: 2,
    cut_replies: 3,
    blackhole: 1,
    slow_network: 1,
    partition: 1,
    crash_server: 2,
    kill_server: 1,
    gateway_away: 1,
    migrate_again: 1,
}

LOSES_ANSWERS = (
    terminate_backends,
    reset_connections,
    cut_replies,
    blackhole,
    partition,
    long_partition,
    crash_server,
    kill_server,
)
"""After which nobody knows whether the database did what it was asked."""

SAME: dict[Fault, Fault] = {crash_server: kill_server, kill_server: crash_server}
"""What cannot happen beside it."""


class Injector:
    """Draws from `faults` with a pause before each: `pause` seconds on average. `done`
    counts them by name."""

    def __init__(self, seed: int, faults: Faults, pause: float) -> None:
        self.done: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._faults = dict(faults)
        self._pause = pause
        self._under_way: set[Fault] = set()

    async def inject(self, world: "World", seconds: float) -> None:
        """Stop after that time; what has begun by then is brought to its end."""
        until = asyncio.get_running_loop().time() + seconds
        kinds, weights = [*self._faults], [*self._faults.values()]
        async with asyncio.TaskGroup() as group:
            while kinds:
                await asyncio.sleep(self._dice.uniform(0.5, 1.5) * self._pause)
                if asyncio.get_running_loop().time() >= until:
                    return
                [fault] = self._dice.choices(kinds, weights)
                if not self._under_way & {fault, SAME.get(fault, fault)}:
                    self._under_way.add(fault)
                    group.create_task(self._one(fault, world))

    async def _one(self, fault: Fault, world: "World") -> None:
        self.done[fault.__name__] += 1
        try:
            await fault(world, self._dice)
        finally:
            self._under_way.discard(fault)
