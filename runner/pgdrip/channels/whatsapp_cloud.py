"""The channel to Meta's WhatsApp Cloud API.

Sender config: `phone_number_id`; `version` of the API (such as v23.0, the default);
`media_http: true` to let Meta fetch media over plain http; `url` of another host that
speaks the API, https unless it is this machine. `secret`: the access token.

A step's `template` is sent as it is (`name`, `language` as a code or {"code": …},
`components`), else its text or media. Free text reaches a contact only within 24 h of
the contact's last message; the API refuses the rest as 131047.

    200 with a message id      sent: accepted only; delivery and later failures are told
                               by webhook
    an error                   failed with Meta's code, else `http_<status>`
    200 without a message id   uncertain

Each message carries `biz_opaque_callback_data`, a Reference, which Meta repeats in
every status webhook. The API cannot be asked for a message, so nothing else finds one.

Source: developers.facebook.com, WhatsApp Cloud API, "Messages" and "Error codes".
"""

from collections.abc import Mapping
from typing import Any

from yarl import URL

from pgdrip.channels import (
    KEY_LIMIT,
    Down,
    Health,
    Outcome,
    Reference,
    Sent,
    Uncertain,
    Unsendable,
    Up,
)
from pgdrip.channels.http import (
    HttpChannel,
    Reply,
    Request,
    api_url,
    as_body,
    health_of,
    health_without,
    text_of,
)
from pgdrip.channels.phone import digits, whatsapp_media_of
from pgdrip.engine import ClaimedMessage, KnownSender
from pgdrip.secrets import resolve

API = "https://graph.facebook.com"
VERSION = "v23.0"
SUSPECT = "131026"
LOOK_UPS = 3  # attempts, then an undeliverable number is believed to be one
USABLE = frozenset({"CONNECTED", "FLAGGED"})
BLAMED = frozenset(map(str, (0, 3, 10, 33, 190, 368, 131031, *range(200, 300))))


class WhatsappCloudChannel(HttpChannel):
    def request(self, message: ClaimedMessage) -> Request:
        body = as_body(
            {
                "messaging_product": "whatsapp",
                "recipient_type": "individual",
                "to": digits(message.recipient),
                "biz_opaque_callback_data": str(Reference.of(message)),
                **_content(message),
            }
        )
        return _request("POST", message.sender_config, "messages", body=body)

    def outcome(self, message: ClaimedMessage, reply: Reply) -> Outcome:
        answer = reply.json()
        if reply.is_success:
            found = _message_id(answer)
            return Sent(found) if found else Uncertain("accepted without a message id")
        error = answer.get("error")
        if not isinstance(error, dict):
            return reply.failed()
        code = error.get("code")
        if str(code) == SUSPECT and message.attempt >= LOOK_UPS:
            code = f"{SUSPECT}_again"
        return reply.failed(code, _words(error))

    async def probe(self, sender: KnownSender) -> Health:
        return await self.ask(
            lambda: _request("GET", sender.config), _health, health_without
        )


def _health(reply: Reply) -> Health:
    error = reply.json().get("error")
    if isinstance(error, dict) and str(error.get("code")) in BLAMED:
        return Down(_words(error))
    if not reply.is_success:
        return health_of(reply)
    status = reply.json().get("status", "CONNECTED")
    return Up() if str(status) in USABLE else Down(f"the number is {status}")


def _request(
    method: str, config: Mapping[str, Any], *path: str, body: bytes | None = None
) -> Request:
    base = api_url(config, API)
    version = text_of(config, "version") if "version" in config else VERSION
    url: URL = base.joinpath(version, text_of(config, "phone_number_id"), *path)
    if not config.get("secret"):
        raise Unsendable("sender", "the sender has no secret: the access token")
    secret = resolve(config["secret"])
    headers = {"Authorization": f"Bearer {secret}"}
    if body is None:
        url = url.with_query(fields="status,quality_rating")
    else:
        headers["Content-Type"] = "application/json"
    return Request(method, url, headers, body, (secret,))


def _content(message: ClaimedMessage) -> dict[str, Any]:
    template = (message.content or {}).get("template")
    if template is not None:
        return {"type": "template", "template": _template(template)}
    media = whatsapp_media_of(message)
    if media is None:
        if not message.body:
            raise Unsendable("content", "there is no text to send")
        return {"type": "text", "text": {"body": message.body, "preview_url": False}}
    sent: dict[str, str] = {"link": media.url}
    if message.body:
        sent["caption"] = message.body
    if media.filename and media.kind == "document":
        sent["filename"] = media.filename
    return {"type": media.kind, media.kind: sent}


def _template(template: object) -> dict[str, Any]:
    if not isinstance(template, dict) or not template.get("name"):
        raise Unsendable("content", "a template needs a name")
    language = template.get("language")
    if isinstance(language, str):
        language = {"code": language}
    if not isinstance(language, dict):
        raise Unsendable("content", "a template needs a language, such as en_US")
    return {**template, "language": language}


def _message_id(answer: dict[str, Any]) -> str | None:
    messages = answer.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    found = first.get("id") if isinstance(first, dict) else None
    return found[:KEY_LIMIT] if isinstance(found, str) and found else None


def _words(error: dict[str, Any]) -> str:
    """The message and its details: the titles alone say little."""
    data = error.get("error_data")
    details = data.get("details") if isinstance(data, dict) else None
    parts = [part for part in (error.get("message"), details) if part]
    return ": ".join(str(part) for part in parts)
