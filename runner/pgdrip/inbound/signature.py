"""The HMACs providers sign by, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable

HUB_HEADER = "x-hub-signature-256"


def matches(some: Iterable[bytes], signature: bytes) -> bool:
    """Whether it is one of some signatures; looks at each of them."""
    return sum(hmac.compare_digest(one, signature) for one in some) > 0


def hub_signature(keys: Iterable[bytes], body: bytes, given: str) -> str | None:
    """`given` if one of the keys made it of the body: `sha256=` and lower-case hex.

    GoWA and Meta sign alike, after PubSubHubbub:
    https://developers.facebook.com/docs/graph-api/webhooks/getting-started
    """
    expected = [
        b"sha256=" + hmac.digest(key, body, hashlib.sha256).hex().encode()
        for key in keys
    ]
    return given if matches(expected, given.encode()) else None
