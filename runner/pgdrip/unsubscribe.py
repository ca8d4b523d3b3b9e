"""One-click unsubscribe links (RFC 8058): written by channel smtp, honoured by `serve`.

    <base url>/<base64url of the address>.<base64url of its HMAC-SHA256>

A link never expires and names nobody but its own address; who has no key can make none.
The key is a named secret that the runner and the server share.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from pgdrip.errors import ConfigurationError

SECRET = "PGDRIP_UNSUBSCRIBE_SECRET"  # the name of the key where no other is given
SHORTEST_SECRET = 16  # characters
LONGEST_TOKEN = 2048  # characters
# The key may sign other things elsewhere; a signature is good for this one only.
PURPOSE = b"pgdrip unsubscribe\0"


def sign_unsubscribe(address: str, secret: str, *, base_url: str) -> str:
    """The link by which whoever reads mail at `address` unsubscribes it.

    Raises ConfigurationError for a secret that is too short to keep strangers out.
    """
    return f"{base_url.rstrip('/')}/{_token(address, secret)}"


def verify_unsubscribe(token: str, secret: str) -> str | None:
    """The address of a link's last path segment; None unless this secret signed it.

    Raises ConfigurationError for a secret that is too short to keep strangers out.
    """
    given = token[:LONGEST_TOKEN].encode(errors="replace")
    try:
        address = _decode(given.partition(b".")[0]).decode()
    except ValueError:
        address = ""
    signed = _token(address, secret).encode()
    return address if address and hmac.compare_digest(signed, given) else None


def _token(address: str, secret: str) -> str:
    if len(secret) < SHORTEST_SECRET:
        raise ConfigurationError(
            f"the secret of unsubscribe links is shorter than {SHORTEST_SECRET}"
            " characters",
            hint="openssl rand -hex 32 makes a good one",
        )
    name = address.encode()
    signature = hmac.digest(secret.encode(), PURPOSE + name, hashlib.sha256)
    return f"{_encode(name)}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(data: bytes) -> bytes:
    """Raises ValueError for what is no base64url."""
    return urlsafe_b64decode(data + b"=" * (-len(data) % 4))
