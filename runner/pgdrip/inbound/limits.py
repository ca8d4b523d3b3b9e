"""How much one client may ask for, and what was answered already."""

import time
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

T = TypeVar("T")


class Latest(Generic[T]):
    """Remembers the latest `size` things; the oldest go."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> T | None:
        return self._kept.get(key)

    def keep(self, key: str, value: T) -> None:
        self._kept.pop(key, None)
        self._kept[key] = value
        if len(self._kept) > self._size:
            del self._kept[next(iter(self._kept))]


class RateLimit:
    """So many requests a second for each client, in bursts of at most twice as many."""

    def __init__(
        self,
        per_second: float,
        *,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = per_second
        self._burst = 2 * per_second
        self._clock = clock
        self._buckets: Latest[tuple[float, float]] = Latest(clients)

    def require(self, request: Request) -> None:
        """429 for a client that asks too often."""
        if not self.admits(request.client.host if request.client else None):
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": "1"}
            )

    def admits(self, address: str | None) -> bool:
        """Whether a request from this IP address may pass; counts it."""
        now = self._clock()
        client = _network(address)
        left, at = self._buckets.get(client) or (self._burst, now)
        left = min(self._burst, left + (now - at) * self._rate)
        is_admitted = left >= 1
        self._buckets.keep(client, (left - is_admitted, now))
        return is_admitted


def _network(address: str | None) -> str:
    """One client of IPv6 has a /64 to itself."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return (found.ipv4_mapped or found).exploded[:19]
    return str(found)
