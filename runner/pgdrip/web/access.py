"""Who may look and who may act.

Without a token and without a proxy that names its users, the page is for the machine it
runs on, to look at only. With a token people log in; a trusted proxy may name them
instead. Nothing is kept on the server: a session is a signed cookie.
"""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address

from starlette.exceptions import HTTPException
from starlette.requests import Request

from pgdrip.errors import ConfigurationError
from pgdrip.inbound.metrics import is_local
from pgdrip.inbound.server import is_proxied
from pgdrip.inbound.settings import keys

COOKIE = "pgdrip_session"
SESSION_SECONDS = 12 * 3600
NAME_LIMIT = 100  # characters of a viewer's name


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody at the page. `name` is what the audit says; `csrf` belongs into every
    form of this viewer."""

    name: str
    csrf: str
    may_act: bool
    can_leave: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """`token` is the secret people log in with, `user_header` the header in which a
    trusted proxy names who it let in; given twice, one is not the proxy's word."""

    token: str | None = None
    user_header: str | None = None
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @classmethod
    def configured(
        cls, *, token: str | None, user_header: str | None, host: str, has_proxy: bool
    ) -> "Access":
        """`token` is a secret's name, `host` where the server listens.

        Raises ConfigurationError for a weak token, and where strangers could look.
        """
        if user_header and not has_proxy:
            raise ConfigurationError(
                "a header that names users needs a trusted proxy",
                hint="--trusted-proxy is who may set it, by address",
            )
        if token is None and user_header is None and not _is_loopback(host):
            raise ConfigurationError(
                f"the page on {host} would be open to everybody",
                hint="name a token, or listen on 127.0.0.1",
            )
        if token is None:
            return cls(user_header=user_header)
        [secret] = keys([token])
        key = hashlib.sha256(b"pgdrip page " + secret).digest()
        return cls(secret.decode(), user_header, key)

    def viewer(self, request: Request) -> Viewer | None:
        """Who asks; None for somebody who has to log in first."""
        users = request.headers.getlist(self.user_header or "")
        if is_proxied(request.scope) and len(users) == 1 and _name(users[0]):
            return Viewer(_name(users[0]), self._sign("proxy", users[0]), may_act=True)
        if self.token is not None:
            cookie = request.cookies.get(COOKIE, "")
            name = self._session(cookie)
            if name is None:
                return None
            return Viewer(name, self._sign("form", cookie), True, can_leave=True)
        if self.user_header is None and is_local(request):
            return Viewer("this machine", self._sign("form", "local"), may_act=False)
        return None

    @property
    def has_login(self) -> bool:
        return self.token is not None

    def log_in(self, token: str, name: str) -> str | None:
        """The cookie of a new session; None for a wrong token or no name."""
        is_right = hmac.compare_digest(token.encode(), (self.token or "").encode())
        if not self.token or not is_right or not _name(name):
            return None
        until = int(time.time()) + SESSION_SECONDS
        content = f"{until} {secrets.token_hex(8)} {_name(name)}"
        encoded = urlsafe_b64encode(content.encode()).decode().rstrip("=")
        return f"{encoded}.{self._sign('session', encoded)}"

    def require_csrf(self, request: Request, viewer: Viewer, given: str) -> None:
        """403 for a form that is not of this page."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        is_own = hmac.compare_digest(given.encode(), viewer.csrf.encode())
        if not is_own or site != "same-origin":
            raise HTTPException(HTTPStatus.FORBIDDEN, "This form is too old; go back.")

    def _session(self, cookie: str) -> str | None:
        """The name in a cookie that is genuine and has not run out."""
        encoded, _, signature = cookie.partition(".")
        expected = self._sign("session", encoded)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        content = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        until, _, name = content.split(" ", 2)
        return name if int(until) > time.time() else None

    def _sign(self, purpose: str, text: str) -> str:
        signed = f"{purpose} {text}".encode("utf-8", "replace")
        return hmac.new(self.key, signed, hashlib.sha256).hexdigest()


def _name(given: str) -> str:
    """A name as the audit takes it; empty for one without anything to see."""
    return "".join(c for c in given if c.isprintable()).strip()[:NAME_LIMIT]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
