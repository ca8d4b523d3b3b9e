"""What `pgdrip serve` is told, and the keys behind the names of secrets."""

import binascii
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pgdrip.errors import ConfigurationError
from pgdrip.inbound.gowa import Gowa
from pgdrip.inbound.provider import Provider
from pgdrip.inbound.twilio import Twilio
from pgdrip.inbound.webhook import Webhook
from pgdrip.inbound.whatsapp_cloud import WhatsappCloud
from pgdrip.secrets import resolve

SHORTEST = 16  # characters of a secret, bytes of a decoded one
# Defaults and examples that everybody can read in the documentation of a gateway.
PUBLISHED = frozenset(
    {
        "secret",
        "your-secret-key",
        "your-webhook-secret",
        "super-secret-key",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "plJ3nmyCDGBKInavdOK15jsl",
    }
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Secrets are *names* of environment variables or files. Of those a provider signs
    with there may be several: one of each gateway, or an old one beside the new."""

    dsn: str
    public_url: str | None = None
    gowa_secrets: tuple[str, ...] = ()
    whatsapp_secrets: tuple[str, ...] = ()
    whatsapp_verify_token: str | None = None
    twilio_secrets: tuple[str, ...] = ()
    webhook_secrets: tuple[str, ...] = ()
    unsubscribe_secrets: tuple[str, ...] = ()
    metrics_secrets: tuple[str, ...] = ()
    connections: int = 4
    rate: float = 500.0  # requests a second of one client
    body_limit: int = 1024 * 1024  # bytes
    body_seconds: float = 10.0

    def providers(self) -> list[Provider]:
        """Those that have a secret; ConfigurationError for one nobody should trust."""
        found: list[Provider] = []
        if self.gowa_secrets:
            found.append(Gowa(keys(self.gowa_secrets)))
        if self.whatsapp_secrets:
            if not self.whatsapp_verify_token:
                raise ConfigurationError(
                    "whatsapp_cloud needs a verify token, too",
                    hint="the word you give Meta along with the address of the webhook",
                )
            [token] = keys([self.whatsapp_verify_token])
            found.append(WhatsappCloud(keys(self.whatsapp_secrets), token))
        if self.twilio_secrets:
            self.base_url(needed_by="twilio signs the public URL")
            found.append(Twilio(keys(self.twilio_secrets)))
        if self.webhook_secrets:
            found.append(Webhook([_decoded(name) for name in self.webhook_secrets]))
        return found

    def unsubscribe_keys(self) -> list[str]:
        return [key.decode() for key in keys(self.unsubscribe_secrets)]

    def metrics_tokens(self) -> list[bytes]:
        return keys(self.metrics_secrets)

    def base_url(self, *, needed_by: str | None = None) -> str:
        """The public URL without a slash at its end; empty where none is given."""
        url = (self.public_url or "").rstrip("/")
        if not url and needed_by is None:
            return ""
        if not _is_plain(url):
            because = f": {needed_by}" if needed_by else ""
            raise ConfigurationError(
                f"no usable public URL{because}",
                hint="such as https://hooks.example.com, as the provider reaches it",
            )
        return url


def _is_plain(url: str) -> bool:
    """Whether it has a host, perhaps a port and a path, and nothing else."""
    try:
        parts = urlsplit(url)
        is_reachable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an odd port or bracket
        return False
    is_bare = not parts.query and not parts.fragment and "@" not in parts.netloc
    return parts.scheme in {"http", "https"} and is_reachable and is_bare


def keys(names: Iterable[str]) -> list[bytes]:
    return [_checked(name, resolve(name)).encode() for name in names]


def _decoded(name: str) -> bytes:
    """The key behind a secret of Standard Webhooks, `whsec_` and base64."""
    secret = resolve(name).removeprefix("whsec_")
    _checked(name, secret)
    try:
        key = b64decode(secret + "=" * (-len(secret) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < SHORTEST:
        raise ConfigurationError(
            f"secret {name} is not the base64 of {SHORTEST} bytes or more",
            hint="openssl rand -base64 32 makes a good one",
        )
    return key


def _checked(name: str, secret: str) -> str:
    """The secret, unless it is one that strangers know or can guess."""
    if secret in PUBLISHED or len(set(secret)) == 1:
        raise ConfigurationError(
            f"secret {name} is a default that everybody knows",
            hint="set another one here and at the gateway: openssl rand -hex 32",
        )
    if len(secret.strip()) < SHORTEST:
        raise ConfigurationError(
            f"secret {name} has less than {SHORTEST} characters",
            hint="openssl rand -hex 32 makes a good one",
        )
    return secret
