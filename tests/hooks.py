"""What providers do to `pgdrip serve`: sign and post; and the server on loopback."""

import hashlib
import hmac
import http.client
import json
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from standardwebhooks.webhooks import Webhook as StandardWebhook
from starlette.applications import Starlette

from pgdrip.inbound.server import Server, configure, listen
from pgdrip.inbound.settings import Settings

PUBLIC = "https://hooks.example.com"
# Names of secrets and what the tests put behind them.
SECRETS = {
    "GOWA_SECRET": "gowa-5f0c9a7e4b1d2f38",
    "META_SECRET": "meta-0d9e8f7a6b5c4d3e",
    "META_TOKEN": "token-1a2b3c4d5e6f7a8b",
    "TWILIO_SECRET": "twilio-9c8b7a6d5e4f3a2b",
    "HOOK_SECRET": "whsec_" + b64encode(b"a key of 24 random bytes").decode(),
    "LINK_SECRET": "links-4e5f6a7b8c9d0e1f",
}
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def settings(dsn: str, **changed: Any) -> Settings:
    """Every provider, and unsubscribe links."""
    given: dict[str, Any] = {
        "public_url": PUBLIC,
        "gowa_secrets": ("GOWA_SECRET",),
        "whatsapp_secrets": ("META_SECRET",),
        "whatsapp_verify_token": "META_TOKEN",
        "twilio_secrets": ("TWILIO_SECRET",),
        "webhook_secrets": ("HOOK_SECRET",),
        "unsubscribe_secrets": ("LINK_SECRET",),
    }
    return Settings(dsn=dsn, **given | changed)


@dataclass(frozen=True, slots=True)
class Request:
    """One POST, signed; `path` with its query."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def hub(
    provider: str, body: bytes | dict[str, Any], secret: str, **headers: str
) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    digest = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    signed = {"Content-Type": JSON, "X-Hub-Signature-256": f"sha256={digest}"}
    return Request(f"/hooks/{provider}", raw, signed | headers)


def gowa(body: bytes | dict[str, Any], **headers: str) -> Request:
    return hub("gowa", body, SECRETS["GOWA_SECRET"], **headers)


def meta(value: dict[str, Any], name: str = "messages") -> Request:
    change = {"field": name, "value": {"messaging_product": "whatsapp"} | value}
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", "changes": [change]}],
    }
    return hub("whatsapp_cloud", body, SECRETS["META_SECRET"])


def twilio(form: Mapping[str, str], query: str = "") -> Request:
    path = f"/hooks/twilio{query}"
    signed = PUBLIC + path + "".join(f"{key}{form[key]}" for key in sorted(form))
    digest = hmac.new(SECRETS["TWILIO_SECRET"].encode(), signed.encode(), hashlib.sha1)
    signature = b64encode(digest.digest()).decode()
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    return Request(path, urlencode(form).encode(), headers)


def webhook(
    body: bytes | dict[str, Any],
    message: str = "msg_1",
    *,
    age: float = 0,
    secret: str = SECRETS["HOOK_SECRET"],
) -> Request:
    """Signed by the official library."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    at = datetime.fromtimestamp(time.time() - age, UTC)
    headers = {
        "Content-Type": JSON,
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": StandardWebhook(secret).sign(message, at, raw.decode()),
    }
    return Request("/hooks/webhook", raw, headers)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Served:
    """A server; each request on a connection of its own."""

    port: int

    def post(self, request: Request) -> Answer:
        return self.ask("POST", request.path, request.body, request.headers)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    @contextmanager
    def wire(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as wire:
            yield wire


@contextmanager
def served(
    app: Starlette, *, trusted_proxies: tuple[str, ...] = ()
) -> Iterator[Served]:
    """The application behind a real uvicorn, in a thread."""
    with listen("127.0.0.1", 0) as listener:
        server = Server(configure(app, trusted_proxies))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Served(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
