"""One runner as a process: signals, health server, service manager."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterable

from pgdrip import health
from pgdrip.channels import close_channels, open_channels
from pgdrip.runner import Runner
from pgdrip.settings import Settings
from pgdrip.systemd import Systemd

logger = logging.getLogger(__name__)


async def run(
    dsn: str = "",
    *,
    channels: Iterable[str] | None = None,
    settings: Settings | None = None,
    once: bool = False,
    health_address: tuple[str, int] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, with the named or all channels; a second signal ends
    the grace period.

    After SIGINT it drains like after SIGTERM, then raises KeyboardInterrupt.
    """
    stop = asyncio.Event()
    received: list[signal.Signals] = []
    systemd = Systemd()
    opened = open_channels(channels)
    runner = Runner(
        dsn,
        channels=opened,
        settings=settings,
        once=once,
        on_start=systemd.ready,
        stop=stop,
    )

    def on_signal(number: signal.Signals) -> None:
        if received:
            runner.end_grace()
        received.append(number)
        systemd.stopping()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    watch = asyncio.create_task(systemd.watch(lambda: runner.is_alive))
    try:
        async with contextlib.AsyncExitStack() as stack:
            if health_address:
                served = health.served(runner, *health_address)
                url = await stack.enter_async_context(served)
                logger.info("serving health", extra={"url": url})
            await runner.run()
    finally:
        watch.cancel()
        await close_channels(opened)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
