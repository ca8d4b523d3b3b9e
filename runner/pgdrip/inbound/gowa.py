"""Webhooks of GoWA (go-whatsapp-web-multidevice, docs/webhook-payload.md).

Signed by X-Hub-Signature-256 with WHATSAPP_WEBHOOK_SECRET; no time is signed. Events
`message` and `message.ack` count, of groups and of the device's own owner none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgdrip.inbound.events import Event, Ignored, Malformed, Receipt, Reply
from pgdrip.inbound.provider import JsonProvider, Post
from pgdrip.inbound.reading import instant, items, member, phone, read_json, text
from pgdrip.inbound.signature import HUB_HEADER, hub_signature

# `read-self` and the like tell of the owner's other devices.
RECEIPTS = {"delivered": "delivered", "read": "read", "played": "read"}
PEOPLE = ("s.whatsapp.net", "c.us")


@dataclass(frozen=True, slots=True)
class Gowa(JsonProvider):
    keys: Sequence[bytes]
    name = "gowa"

    def identify(self, post: Post) -> str | None:
        return hub_signature(self.keys, post.body, post.headers.get(HUB_HEADER, ""))

    def read(self, post: Post) -> list[Event]:
        event = read_json(post.content)
        payload = member(event, "payload")
        match text(event, "event"):
            case None:
                return [Malformed("no event is named")]
            case "message":
                return [_reply(event, payload)]
            case "message.ack":
                at = instant(member(event, "timestamp"))
                status = RECEIPTS.get(text(payload, "receipt_type") or "")
                if status is None:
                    return [Ignored()]
                return [
                    Receipt("gowa", message_id, status, at)
                    if isinstance(message_id, str)
                    else Malformed("an id is no text")
                    for message_id in items(payload, "ids")
                ]
            case _:
                return [Ignored()]


def _reply(event: dict[str, Any], payload: Any) -> Event:
    if member(payload, "is_from_me") is True:
        return Ignored()
    chat, server = _jid(text(payload, "chat_id"))
    if server not in {*PEOPLE, "lid"}:  # a group, a channel, a status
        return Ignored()
    sender = _number(text(payload, "from"))
    if sender is None and chat != _jid(text(event, "device_id"))[0]:
        sender = _number(text(payload, "chat_id"))
    if sender is None:
        return Malformed("the sender is known by a LID only, not by a number")
    words = text(payload, "body") or text(payload, "caption") or ""
    return Reply("gowa", sender, words, instant(member(payload, "timestamp")))


def _number(jid: str | None) -> str | None:
    """The phone in a person's JID."""
    user, server = _jid(jid)
    return phone(user) if server in PEOPLE else None


def _jid(jid: str | None) -> tuple[str, str]:
    """User and server of `user[.agent][:device]@server`."""
    user, _, server = (jid or "").partition("@")
    return user.partition(":")[0].partition(".")[0], server
