"""The channel that POSTs messages as JSON to the sender's `url`.

The key stays the same over attempts and goes along as header `Idempotency-Key`, so that
a receiver which remembers keys takes each message once. The answer decides:

    2xx                 sent; provider id is `id` or `message_id`
    any other status    failed, code `http_<status>`

A sender with a `secret` (base64, perhaps with `whsec_` before it) signs as
https://www.standardwebhooks.com has it: headers webhook-id, which is the key,
webhook-timestamp in seconds since 1970, and webhook-signature, `v1,` and the base64 of
the HMAC-SHA256 of `<id>.<timestamp>.<body>`.
"""

import binascii
import hmac
import time
from base64 import b64decode, b64encode

from pgdrip.channels import KEY_LIMIT, Outcome, Sent, Unsendable, as_json
from pgdrip.channels.http import (
    HttpChannel,
    Reply,
    Request,
    as_body,
    http_url,
)
from pgdrip.engine import ClaimedMessage
from pgdrip.secrets import resolve


class WebhookChannel(HttpChannel):
    def request(self, message: ClaimedMessage) -> Request:
        url = http_url(message.sender_config.get("url"))
        if url is None:
            raise Unsendable("sender", "the sender's config has no http(s) url")
        body = as_body(as_json(message))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": message.idempotency_key,
        }
        name = message.sender_config.get("secret")
        if not name:
            return Request("POST", url, headers, body)
        secret = resolve(name)
        signed = signature(secret, message.idempotency_key, body, at=int(time.time()))
        return Request("POST", url, headers | signed, body, secrets=(secret,))

    def outcome(self, message: ClaimedMessage, reply: Reply) -> Outcome:
        return Sent(_provider_id(reply)) if reply.is_success else reply.failed()


def signature(secret: str, key: str, body: bytes, *, at: int) -> dict[str, str]:
    """The headers that sign a body sent `at` seconds after 1970."""
    try:
        decoded = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise Unsendable("sender", "the secret must be whsec_ and base64") from None
    digest = hmac.digest(decoded, f"{key}.{at}.".encode() + body, "sha256")
    return {
        "webhook-id": key,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }


def _provider_id(reply: Reply) -> str | None:
    body = reply.json()
    for key in ("id", "message_id"):
        value = body.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)[:KEY_LIMIT]
    return None
