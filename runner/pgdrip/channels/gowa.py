"""The channel to GoWA (aldinokemal/go-whatsapp-web-multidevice, version 9).

Sender config: `url` of the server, `device` (an id or JID; header X-Device-Id; needed
when the server holds several), `media_http: true` to let it fetch media over plain
http. `secret`: `user:password` of the server's basic authentication, if it has one.

    200 with code SUCCESS    sent: the WhatsApp server has acknowledged it
    any other answer         failed with GoWA's code, else `http_<status>`
    INVALID_JID              on the third attempt `INVALID_JID_AGAIN`: a look-up that
                             failed says the same as a number without WhatsApp
    GATEWAY_TIMEOUT,
    INTERNAL_SERVER_ERROR,
    2xx without SUCCESS      uncertain

GoWA gives up after 45 s, so this channel waits longer. It takes no key of ours; but it
keeps the messages it sent, by which reconcile() finds one. That it keeps none proves
nothing: what WhatsApp took without an answer is not kept.

Source: docs/openapi.yaml and src/pkg/error of GoWA.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp

from pgdrip.channels import (
    KEY_LIMIT,
    Answer,
    Down,
    Health,
    Outcome,
    Sent,
    Uncertain,
    Unknown,
    Unsendable,
    Up,
)
from pgdrip.channels.http import (
    LIST_LIMIT,
    HttpChannel,
    Reply,
    Request,
    answer_without,
    as_body,
    health_of,
    health_without,
    http_url,
    text_of,
)
from pgdrip.channels.phone import Media, digits, whatsapp_media_of
from pgdrip.engine import ClaimedMessage, KnownSender, UncertainSend
from pgdrip.secrets import resolve

# By the type of media: the end of the path, and of the field for its URL.
PATHS = {"image": "image", "video": "video", "audio": "audio", "document": "file"}
AMBIGUOUS = frozenset({"GATEWAY_TIMEOUT", "INTERNAL_SERVER_ERROR"})
SUSPECT = "INVALID_JID"
LOOK_UPS = 3  # attempts, then a number without WhatsApp is believed to be one
SKEW = timedelta(minutes=5)  # between the clocks of the gateway and the database
WITHIN = timedelta(hours=1)  # of its begin a message can still have gone out


class GowaChannel(HttpChannel):
    total = 50.0

    def request(self, message: ClaimedMessage) -> Request:
        jid = f"{digits(message.recipient)}@s.whatsapp.net"
        media = whatsapp_media_of(message)
        if media is not None:
            path, data = f"send/{PATHS[media.kind]}", _form(jid, media, message.body)
            return _request("POST", path, message.sender_config, data=data)
        if not message.body:
            raise Unsendable("content", "there is no text to send")
        body = as_body({"phone": jid, "message": message.body})
        return _request("POST", "send/message", message.sender_config, data=body)

    def outcome(self, message: ClaimedMessage, reply: Reply) -> Outcome:
        answer = reply.json()
        code = answer.get("code")
        if reply.status == 200 and code == "SUCCESS":
            results = answer.get("results")
            found = results.get("message_id") if isinstance(results, dict) else None
            return Sent(found[:KEY_LIMIT] if isinstance(found, str) and found else None)
        failed = reply.failed(code if _is_code(code) else None, answer.get("message"))
        if reply.is_success or failed.code in AMBIGUOUS:
            return Uncertain(f"{failed.code}: {failed.detail}")
        if code == SUSPECT and message.attempt >= LOOK_UPS:
            return reply.failed(f"{SUSPECT}_AGAIN", answer.get("message"))
        return failed

    async def probe(self, sender: KnownSender) -> Health:
        return await self.ask(
            lambda: _status_request(sender.config), _health, health_without
        )

    async def reconcile(self, message: UncertainSend) -> Answer:
        begun_at = message.begun_at
        if begun_at is None:
            return Uncertain("nobody knows when it was sent")
        return await self.ask(
            lambda: _kept_request(message, begun_at),
            lambda reply: _found(message, reply),
            answer_without,
            limit=LIST_LIMIT,
        )


def _health(reply: Reply) -> Health:
    if not reply.is_success:
        return health_of(reply)
    state = reply.json().get("results")
    if not isinstance(state, dict) or "is_logged_in" not in state:
        return Unknown("the answer does not tell the device's state")
    for key in ("is_connected", "is_logged_in"):
        if state.get(key) is not True:
            return Down(f"the device says {key}: {state.get(key)}")
    return Up()


def _found(message: UncertainSend, reply: Reply) -> Answer:
    if not reply.is_success:
        return Uncertain(reply.failed().detail or "")
    for found in _kept(reply):
        if _is_it(found, message):
            return Sent(str(found["id"])[:KEY_LIMIT])
    return Uncertain("the gateway keeps no such message, which proves nothing")


def _request(
    method: str,
    path: str,
    config: Mapping[str, Any],
    *,
    query: Mapping[str, str] | None = None,
    data: bytes | aiohttp.FormData | None = None,
) -> Request:
    base = http_url(config.get("url"))
    if base is None:
        raise Unsendable("sender", "the sender's config has no http(s) url")
    headers = {"Content-Type": "application/json"} if isinstance(data, bytes) else {}
    if "device" in config:
        headers["X-Device-Id"] = _device(config)
    secrets: tuple[str, ...] = ()
    if config.get("secret"):
        secret = resolve(config["secret"])
        if ":" not in secret:
            raise Unsendable("sender", "the secret must be user:password")
        credentials = b64encode(secret.encode()).decode()
        headers["Authorization"] = f"Basic {credentials}"
        secrets = (secret, credentials, secret.partition(":")[2])
    url = base.joinpath(*path.split("/"), encoded=True).with_query(query)
    return Request(method, url, headers, data, secrets)


def _status_request(config: Mapping[str, Any]) -> Request:
    device = "device" in config
    path = f"devices/{_device(config)}/status" if device else "app/status"
    return _request("GET", path, config)


def _kept_request(message: UncertainSend, begun_at: datetime) -> Request:
    since, until = begun_at - SKEW, begun_at + WITHIN
    return _request(
        "GET",
        f"chat/{digits(message.recipient)}@s.whatsapp.net/messages",
        message.sender_config,
        query={
            "limit": "100",
            "start_time": since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "end_time": until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "is_from_me": "true",
        },
    )


def _device(config: Mapping[str, Any]) -> str:
    """Percent-encoded, as both the header and the path want it."""
    return quote(text_of(config, "device"), safe="@")


def _form(jid: str, media: Media, caption: str | None) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("phone", jid)
    form.add_field(f"{PATHS[media.kind]}_url", media.url)
    if caption:
        form.add_field("caption", caption)
    return form


def _is_code(code: object) -> bool:
    """GoWA's own codes are words; a number there repeats the status."""
    return isinstance(code, str) and not code.isdigit()


def _kept(reply: Reply) -> Iterator[dict[str, Any]]:
    results = reply.json().get("results")
    data = results.get("data") if isinstance(results, dict) else None
    for item in data if isinstance(data, list) else []:
        if isinstance(item, dict) and item.get("id"):
            yield item


def _is_it(found: dict[str, Any], message: UncertainSend) -> bool:
    """The same text from us, and no other message that is known by its id."""
    media = (message.content or {}).get("media")
    kind = media.get("type") if isinstance(media, dict) else None
    return (
        found.get("is_from_me") is True
        and found["id"] not in message.known_ids
        and (found.get("media_type") or None) == kind
        and bool(message.body or kind)
        and (found.get("content") or "") == (message.body or "")
    )
