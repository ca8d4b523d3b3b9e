"""What systemd wants to hear from a service of Type=notify: sd_notify(3), in short.

Without NOTIFY_SOCKET in the environment nothing is told to anybody.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)


class Systemd:
    """The service manager, by the environment it gave this process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._beat = 0.0  # seconds between signs of life; 0: none wanted
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            usec = environment.get("WATCHDOG_USEC", "")
            self._beat = int(usec) / 2e6 if usec.isdigit() else 0.0

    def ready(self) -> None:
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    async def watch(self, is_alive: Callable[[], bool]) -> None:
        """Give signs of life as long as there is life; systemd restarts what gives
        none. Returns at once when none are wanted, else never."""
        while self._beat and self._address:
            if is_alive():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self._beat)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
                wire.setblocking(False)
                wire.sendto(state.encode(), self._address)
        except OSError as error:
            told = {"state": state, "error": error.strerror}
            logger.warning("systemd does not listen", extra=told)
