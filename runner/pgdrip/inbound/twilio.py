"""Webhooks of Twilio: status callbacks and incoming messages, as forms.

https://www.twilio.com/docs/usage/security#validating-requests

Signed by X-Twilio-Signature, an HMAC-SHA1 with the auth token over the public URL and
the sorted parameters; no time is signed. The URL is the one Twilio was given, so the
server must know its public address; a port may stand in it or not.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from pgdrip.channels import Reference
from pgdrip.inbound.events import Counts, Event, Ignored, OptOut, Receipt, Reply
from pgdrip.inbound.provider import Post
from pgdrip.inbound.signature import matches

CHANNEL = "twilio"
RECEIPTS = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
OPTED_OUT = "21610"  # the error code of who has answered STOP
PARAMETERS = 200  # Twilio sends about 30
PORTS = {"https": 443, "http": 80}
# Of a text answer Twilio would make a message; of this it makes none.
NOTHING_TO_SAY = '<?xml version="1.0" encoding="UTF-8"?><Response></Response>'


@dataclass(frozen=True, slots=True)
class Twilio:
    keys: Sequence[bytes]
    name = CHANNEL
    media_type = "application/x-www-form-urlencoded"

    def identify(self, post: Post) -> str | None:
        try:
            signed = [twilio_signature(key, post.url, _form(post)) for key in self.keys]
        except ValueError:
            return None
        given = post.headers.get("x-twilio-signature", "")
        every = (one for signatures in signed for one in signatures)
        return given if matches(every, given.encode()) else None

    def read(self, post: Post) -> list[Event]:
        form = dict(_form(post))
        if not form.get("MessageSid"):
            raise ValueError("no MessageSid")
        if _status(form) in {"", "receiving", "received"}:
            return list(_answered(form))
        return list(_moved(form, post.url))

    def answer(self, counts: Counts) -> Response:
        return Response(NOTHING_TO_SAY, media_type="text/xml")

    def greet(self, request: Request) -> Response:
        return Response(status_code=405, headers={"Allow": "POST"})


def twilio_signature(
    key: bytes, url: str, form: Sequence[tuple[str, str]]
) -> list[bytes]:
    """Both signatures Twilio may give: of the URL without its port, and with one.

    A parameter given several times counts once with each of its values.
    """
    signed = "".join(f"{name}{value}" for name, value in sorted(set(form)))
    parts = urlsplit(url)
    host = parts.netloc.removesuffix(f":{parts.port}")
    port = parts.port or PORTS[parts.scheme]
    return [
        b64encode(hmac.digest(key, f"{one}{signed}".encode(), hashlib.sha1))
        for one in (
            parts._replace(netloc=host).geturl(),
            parts._replace(netloc=f"{host}:{port}").geturl(),
        )
    ]


def _form(post: Post) -> list[tuple[str, str]]:
    """The parameters; ValueError if they are too many or no UTF-8."""
    return parse_qsl(
        post.content.decode(),
        keep_blank_values=True,
        errors="strict",
        max_num_fields=PARAMETERS,
    )


def _status(form: dict[str, str]) -> str:
    return form.get("MessageStatus") or form.get("SmsStatus") or ""


def _answered(form: dict[str, str]) -> Iterator[Event]:
    address = _address(form.get("From", ""))
    yield Reply(CHANNEL, address, form.get("Body", ""))
    if form.get("OptOutType") == "STOP":
        yield OptOut(address, "opted out at Twilio")


def _moved(form: dict[str, str], url: str) -> Iterator[Event]:
    status = RECEIPTS.get(_status(form))
    if status is None:  # queued, sending and the like
        yield Ignored()
        return
    code = form.get("ErrorCode") or None
    yield Receipt(
        CHANNEL,
        form["MessageSid"],
        status,
        code=code,
        detail=form.get("ErrorMessage") or None,
        reference=Reference.parse(
            dict(parse_qsl(urlsplit(url).query)).get("reference")
        ),
    )
    if code == OPTED_OUT:
        yield OptOut(_address(form.get("To", "")), "opted out at Twilio")


def _address(address: str) -> str:
    """Twilio writes the channel before the number, except for SMS."""
    return address.removeprefix("whatsapp:")
