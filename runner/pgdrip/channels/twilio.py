"""The channel to Twilio's Programmable Messaging: SMS, MMS, and WhatsApp.

Sender config: `account_sid`; `from` (a number, or `whatsapp:+…`) or
`messaging_service_sid`; `status_callback`, a URL that Twilio tells of each message's
status; `media_http: true` to let Twilio fetch media over plain http; `url` of another
host that speaks the API, https unless it is this machine. `secret`: the auth token, or
`SK…:secret` of an API key.

    2xx with a sid             sent: queued only; the status callback tells the rest
    an error                   failed with Twilio's code, else `http_<status>`
    20500, 2xx without a sid   uncertain: a repeated request would be a second message

The callback's URL gets a query parameter `reference` along, a Reference. Twilio lists
what it took, so reconcile() finds a message by its text, and believes that one was
never taken only if nothing else went to that number since.

Source: twilio.com/docs/messaging/api/message-resource and /docs/api/errors.
"""

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from yarl import URL

from pgdrip.channels import (
    KEY_LIMIT,
    Answer,
    Down,
    Failed,
    Health,
    NotSent,
    Outcome,
    Reference,
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
    api_url,
    as_form,
    health_of,
    health_without,
    http_url,
    text_of,
)
from pgdrip.channels.phone import KINDS, digits, media_of
from pgdrip.engine import ClaimedMessage, KnownSender, UncertainSend
from pgdrip.secrets import resolve

API = "https://api.twilio.com"
AMBIGUOUS = frozenset({"20500"})
LOST = frozenset({"failed", "undelivered", "canceled"})
PAGE = 100  # messages of one list
SKEW = timedelta(minutes=5)  # between the clocks of Twilio and the database
WITHIN = timedelta(hours=1)  # of its begin a message can still have been taken
WHATSAPP = "whatsapp:"


class TwilioChannel(HttpChannel):
    def request(self, message: ClaimedMessage) -> Request:
        config = message.sender_config
        fields = {**_from(config), "To": _to(message.recipient, config)}
        media = media_of(message, KINDS)
        if media is not None:
            fields["MediaUrl"] = media.url
        if message.body:
            fields["Body"] = message.body
        elif media is None:
            raise Unsendable("content", "there is no text to send")
        if "status_callback" in config:
            fields["StatusCallback"] = _callback(message)
        return _request("POST", config, "/Messages.json", form=fields)

    def outcome(self, message: ClaimedMessage, reply: Reply) -> Outcome:
        answer = reply.json()
        if reply.is_success:
            found = answer.get("sid")
            if not isinstance(found, str) or not found:
                return Uncertain("accepted without a sid")
            return _fate(answer, reply)
        failed = reply.failed(answer.get("code"), answer.get("message"))
        if failed.code in AMBIGUOUS:
            return Uncertain(f"{failed.code}: {failed.detail}")
        return failed

    async def probe(self, sender: KnownSender) -> Health:
        return await self.ask(
            lambda: _request("GET", sender.config, ".json"), _health, health_without
        )

    async def reconcile(self, message: UncertainSend) -> Answer:
        begun_at = message.begun_at
        if begun_at is None:
            return Uncertain("nobody knows when it was sent")
        return await self.ask(
            lambda: _list_request(message),
            lambda reply: _answer(message, begun_at, reply),
            answer_without,
            limit=LIST_LIMIT,
        )


def _health(reply: Reply) -> Health:
    if not reply.is_success:
        return health_of(reply)
    status = reply.json().get("status")
    if not isinstance(status, str):
        return Unknown("the answer does not tell the account's state")
    return Up() if status == "active" else Down(f"the account is {status}")


def _answer(message: UncertainSend, begun_at: datetime, reply: Reply) -> Answer:
    listed = reply.json().get("messages")
    if not reply.is_success or not isinstance(listed, list):
        return Uncertain(reply.failed().detail or "")
    return _found(message, begun_at, listed, reply)


def _found(
    message: UncertainSend, begun_at: datetime, listed: list[Any], reply: Reply
) -> Answer:
    """What the newest messages to that number, newest first, tell of this one."""
    reached = len(listed) < PAGE
    strangers = 0
    for item in listed:
        at = _created_at(item)
        if at is None or not isinstance(item.get("sid"), str):
            return Uncertain("the list cannot be read")
        if at < begun_at - SKEW:
            reached = True
            break
        if at > begun_at + WITHIN or item["sid"] in message.known_ids:
            continue
        if item.get("direction") == "inbound":
            continue
        strangers += 1
        if message.body and item.get("body") == message.body:
            return _fate(item, reply)
    if strangers:
        return Uncertain("other messages went to that number at that time")
    return NotSent() if reached else Uncertain("too many messages to that number")


def _fate(item: dict[str, Any], reply: Reply) -> Sent | Failed:
    if str(item.get("status")) in LOST:
        code = reply.code(item.get("error_code")) or f"status_{item['status']}"
        return Failed(code, str(item.get("error_message") or ""))
    return Sent(str(item["sid"])[:KEY_LIMIT])


def _created_at(item: object) -> datetime | None:
    text = item.get("date_created") if isinstance(item, dict) else None
    try:
        at = parsedate_to_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at and at.tzinfo else None


def _request(
    method: str,
    config: Mapping[str, Any],
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Request:
    account = text_of(config, "account_sid")
    if not account.isalnum():
        raise Unsendable("sender", "account_sid is no account sid")
    if not config.get("secret"):
        raise Unsendable("sender", "the sender has no secret: the auth token")
    secret = resolve(config["secret"])
    pair = secret if ":" in secret else f"{account}:{secret}"
    credentials = b64encode(pair.encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    url: URL = api_url(config, API) / f"2010-04-01/Accounts/{account}{path}"
    return Request(
        method,
        url.with_query(query),
        headers,
        None if form is None else as_form(form),
        (secret, credentials, pair.partition(":")[2]),
    )


def _list_request(message: UncertainSend) -> Request:
    """The newest messages to the same number, and of one number all by that one."""
    config = message.sender_config
    query = {"To": _to(message.recipient, config), "PageSize": str(PAGE)}
    if "messaging_service_sid" not in config:
        query |= _from(config)
    return _request("GET", config, "/Messages.json", query=query)


def _from(config: Mapping[str, Any]) -> dict[str, str]:
    if "messaging_service_sid" in config:
        return {"MessagingServiceSid": text_of(config, "messaging_service_sid")}
    return {"From": text_of(config, "from")}


def _to(recipient: str, config: Mapping[str, Any]) -> str:
    number = f"+{digits(recipient)}"
    is_whatsapp = str(config.get("from", "")).startswith(WHATSAPP)
    return f"{WHATSAPP}{number}" if is_whatsapp else number


def _callback(message: ClaimedMessage) -> str:
    url = http_url(message.sender_config["status_callback"])
    if url is None:
        raise Unsendable("sender", "status_callback is no http(s) url")
    return str(url.update_query(reference=str(Reference.of(message))))
