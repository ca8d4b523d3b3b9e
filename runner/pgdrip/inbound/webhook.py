"""Signed webhooks of anybody: https://www.standardwebhooks.com

Headers webhook-id, webhook-timestamp (at most five minutes off) and webhook-signature:
`v1,` and the base64 of an HMAC-SHA256 over `<id>.<timestamp>.<body>`, several separated
by spaces. The body is one event, or an object with up to 1,000 of them:

    {"events": [{"type": "delivered", "provider_id": "…", "at": "2026-01-05T09:00:00Z"},
                {"type": "reply", "address": "+60123456789", "text": "Yes please"},
                {"type": "stop", "address": "jane@example.com", "reason": "complaint"}]}

Types: sent, delivered, read, failed (with `code` and `detail`), reply and stop. Left
out, `at` is now and `channel` is `webhook`.
"""

import hashlib
import hmac
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgdrip.inbound.events import STATUSES, Event, Malformed, OptOut, Receipt, Reply
from pgdrip.inbound.provider import JsonProvider, Post
from pgdrip.inbound.reading import instant, items, member, read_json, text
from pgdrip.inbound.signature import matches

TOLERANCE = 300  # seconds
ID_LIMIT = 256  # characters


@dataclass(frozen=True, slots=True)
class Webhook(JsonProvider):
    keys: Sequence[bytes]
    clock: Callable[[], float] = time.time
    name = "webhook"

    def identify(self, post: Post) -> str | None:
        message = post.headers.get("webhook-id", "")
        stamp = post.headers.get("webhook-timestamp", "")
        given = post.headers.get("webhook-signature", "").split(" ")
        if not 0 < len(message) <= ID_LIMIT or not _is_fresh(stamp, self.clock()):
            return None
        signed = f"{message}.{stamp}.".encode() + post.body
        shown = [one.encode() for one in given]
        for key in self.keys:
            digest = hmac.digest(key, signed, hashlib.sha256)
            if matches(shown, b"v1," + b64encode(digest)):
                # An id is unique among those of its signer only.
                return f"{hashlib.sha256(key).hexdigest()[:8]} {message}"
        return None

    def read(self, post: Post) -> list[Event]:
        body = read_json(post.content)
        return [_event(one) for one in (items(body, "events") or [body])]


def _is_fresh(stamp: str, now: float) -> bool:
    is_number = stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12
    return is_number and abs(int(stamp) - now) <= TOLERANCE


def _event(event: Any) -> Event:
    kind, stamp = text(event, "type"), member(event, "at")
    at = instant(stamp)
    if stamp is not None and at is None:
        return Malformed("`at` is no time with a zone")
    if kind in STATUSES:
        return _receipt(event, kind, at)
    if kind == "reply":
        return _reply(event, at)
    if kind == "stop":
        address = text(event, "address")
        if address is None:
            return Malformed("a stop without `address`")
        return OptOut(address, text(event, "reason") or "opted out")
    return Malformed("unknown type of event")


def _receipt(event: Any, status: str, at: datetime | None) -> Event:
    provider_id = text(event, "provider_id")
    if provider_id is None:
        return Malformed("a receipt without `provider_id`")
    code, detail = text(event, "code"), text(event, "detail")
    return Receipt(_channel(event), provider_id, status, at, code=code, detail=detail)


def _reply(event: Any, at: datetime | None) -> Event:
    address = text(event, "address")
    if address is None:
        return Malformed("a reply without `address`")
    return Reply(_channel(event), address, text(event, "text") or "", at)


def _channel(event: Any) -> str:
    return text(event, "channel") or "webhook"
