"""What a runner may be told."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from pgdrip.engine import TWO_MINUTES
from pgdrip.errors import ConfigurationError

CLAIM_LIMIT = 1000  # messages; what claim() takes at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Spans in seconds. Raises ConfigurationError for what cannot work."""

    name: str = field(
        default_factory=lambda: f"{socket.gethostname()[:40]}:{os.getpid()}"
    )
    slots: int = 100  # messages in flight at once
    per_sender: int = 1  # messages of one sender on the wire at once
    batch: int = 500  # messages in one claim
    lease: float = TWO_MINUTES.total_seconds()
    timeout: float = 60.0  # of one send
    grace: float = 30.0  # to end what is in flight when it is stopped
    spool: Path | None = None  # directory for results that are not reported yet

    def __post_init__(self) -> None:
        if self.slots < 1 or self.per_sender < 1:
            raise ConfigurationError("slots and per_sender must be > 0")
        if not 1 <= self.batch <= CLAIM_LIMIT:
            raise ConfigurationError(f"batch must be 1 to {CLAIM_LIMIT}")
        if not 0 < self.timeout < self.lease <= 3600:
            raise ConfigurationError(
                f"lease ({self.lease:g} s) must be longer than the timeout of a send"
                f" ({self.timeout:g} s) and at most an hour"
            )
