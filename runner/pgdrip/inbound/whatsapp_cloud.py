"""Webhooks of Meta's WhatsApp Cloud API.

https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks

Signed by X-Hub-Signature-256 with the app's secret; no time is signed. The fields
`messages` and `user_preferences` count. A GET is Meta asking whether this is the
address it was told: the verify token proves it.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pgdrip.channels import Reference
from pgdrip.inbound.events import (
    STATUSES,
    Event,
    Ignored,
    Malformed,
    OptOut,
    Receipt,
    Reply,
)
from pgdrip.inbound.provider import JsonProvider, Post
from pgdrip.inbound.reading import instant, items, member, phone, read_json, text
from pgdrip.inbound.signature import HUB_HEADER, hub_signature

CHANNEL = "whatsapp_cloud"
OPTED_OUT = "131050"  # the error code of who has stopped marketing messages
# Not answers of a person, or not worth one.
SILENT = frozenset({"reaction", "system", "request_welcome"})
# Where the words of a message stand, by its type.
WORDS = (
    ("text", "body"),
    ("button", "text"),
    ("interactive", "button_reply", "title"),
    ("interactive", "list_reply", "title"),
    ("image", "caption"),
    ("video", "caption"),
    ("document", "caption"),
)
CHALLENGE = re.compile(r"[\w.-]{1,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WhatsappCloud(JsonProvider):
    keys: Sequence[bytes]
    verify_token: bytes
    name = CHANNEL

    def identify(self, post: Post) -> str | None:
        return hub_signature(self.keys, post.body, post.headers.get(HUB_HEADER, ""))

    def read(self, post: Post) -> list[Event]:
        """Meta puts up to 1,000 updates into one request."""
        return [
            event
            for entry in items(read_json(post.content), "entry")
            for change in items(entry, "changes")
            for event in _events(member(change, "value"))
        ]

    def greet(self, request: Request) -> Response:
        asked = request.query_params
        given = asked.get("hub.verify_token", "").encode()
        is_known = hmac.compare_digest(given, self.verify_token)
        if not is_known or asked.get("hub.mode") != "subscribe":
            return Response(status_code=403)
        challenge = asked.get("hub.challenge", "")
        if not CHALLENGE.fullmatch(challenge):
            return Response(status_code=400)
        return PlainTextResponse(challenge)


def _events(value: Any) -> list[Event]:
    found = [_reply(message) for message in items(value, "messages")]
    for status in items(value, "statuses"):
        found += _receipt(status)
    found += [_preference(one) for one in items(value, "user_preferences")]
    return found or [Ignored()]


def _receipt(status: Any) -> list[Event]:
    wamid, word = text(status, "id"), text(status, "status")
    if not wamid or not word:
        return [Malformed("a status without id or status")]
    word = {"played": "read"}.get(word, word)
    if word not in STATUSES:
        return [Ignored()]
    error = next(iter(items(status, "errors")), None)
    code = member(error, "code")
    receipt = Receipt(
        CHANNEL,
        wamid,
        word,
        instant(member(status, "timestamp")),
        code=None if code is None else str(code),
        detail=text(error, "error_data", "details") or text(error, "title"),
        reference=Reference.parse(member(status, "biz_opaque_callback_data")),
    )
    address = phone(text(status, "recipient_id"))
    if receipt.code == OPTED_OUT and address:
        return [receipt, OptOut(address, "stopped marketing messages")]
    return [receipt]


def _reply(message: Any) -> Event:
    address = phone(text(message, "from"))
    if not address:
        return Malformed("a message without the sender's number")
    if text(message, "type") in SILENT or text(message, "group_id"):
        return Ignored()
    words = next((found for path in WORDS if (found := text(message, *path))), "")
    return Reply(CHANNEL, address, words, instant(member(message, "timestamp")))


def _preference(preference: Any) -> Event:
    address = phone(text(preference, "wa_id"))
    if not address:
        return Malformed("a preference without the person's number")
    if text(preference, "value") != "stop":
        return Ignored()
    return OptOut(address, "stopped marketing messages")
