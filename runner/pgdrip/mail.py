"""Mail: what a sender's config says of it, and the bytes that one message becomes.

Headers are written here, not by email.message: that reads a header before it writes it,
so an encoded word inside a contact's name could become a line break (CVE-2024-6923).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr, quote
from typing import Any, Literal, get_args

import idna
from yarl import URL

from pgdrip import unsubscribe
from pgdrip.channels import Unsendable
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError
from pgdrip.media import Media
from pgdrip.secrets import resolve

Tls = Literal["starttls", "implicit", "none"]
PORTS: dict[Tls, int] = {"starttls": 587, "implicit": 465, "none": 25}
KEYS = frozenset(
    "host port tls ca_file helo username secret"
    " from reply_to media_hosts unsubscribe_url unsubscribe_signed_by".split()
)
BODY_POLICY = SMTP.clone(cte_type="7bit")  # every server takes that
SHORT = 60  # characters of a subject that need no folding
# RFC 5322 dot-atom, RFC 6531 for what is beyond ASCII; quoted local parts are refused.
LOCAL_PART = re.compile(
    r"[\w!#$%&'*+/=?^`{|}~\x80-\U0010ffff-]+(\.[\w!#$%&'*+/=?^`{|}~\x80-\U0010ffff-]+)*"
)
HOST_NAME = re.compile(
    r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)(\.[a-z0-9-]{1,63})*", re.I
)
HELO = re.compile(r"[A-Za-z0-9.-]+|\[[A-Za-z0-9.:]+\]")


@dataclass(frozen=True, slots=True)
class Address:
    """A mail address; `domain` is in ASCII, whatever alphabet it was written in."""

    local: str
    domain: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def header(self) -> str:
        """As From and Reply-To show it."""
        if not self.name:
            return str(self)
        if self.name.isascii() and "=?" not in self.name:
            return f'"{quote(self.name)}" <{self}>'
        return f"{_encoded(self.name)} <{self}>"


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in and as whom; `helo` is how this host calls itself."""

    host: str
    port: int
    tls: Tls
    ca_file: str | None = None
    helo: str | None = None
    username: str | None = None
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """A sender of channel smtp."""

    server: Server
    sender: Address
    reply_to: Address | None = None
    unsubscribe_url: str | None = None
    unsubscribe_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """One message as the server gets it, lines ended by CR LF, dots not yet doubled."""

    sender: str
    recipient: str
    message_id: str
    data: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether the server has to speak SMTPUTF8 (RFC 6531)."""
        return not (self.sender + self.recipient).isascii()


def read_account(config: dict[str, Any]) -> Account:
    """A sender's config, with its secrets; raises ConfigurationError."""
    if unknown := sorted(config.keys() - KEYS):
        raise ConfigurationError(f"the sender's config has an unknown {unknown[0]}")
    reply_to = _text(config, "reply_to")
    url = _text(config, "unsubscribe_url")
    if url is not None and not _is_https(url):
        raise ConfigurationError("unsubscribe_url is no plain https url: RFC 8058 3.1")
    name = _text(config, "unsubscribe_signed_by") or unsubscribe.SECRET
    return Account(
        server=_read_server(config),
        sender=_mailbox(_text(config, "from"), "from"),
        reply_to=_mailbox(reply_to, "reply_to") if reply_to else None,
        unsubscribe_url=url,
        unsubscribe_key=resolve(name) if url else "",
    )


def _read_server(config: dict[str, Any]) -> Server:
    host, helo = _text(config, "host"), _text(config, "helo")
    tls: Tls = config.get("tls", "starttls")
    if tls not in get_args(Tls):
        raise ConfigurationError(f"tls is none of {', '.join(get_args(Tls))}")
    port = str(config.get("port", PORTS[tls]))  # YAML brings it as text
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ConfigurationError("port is no number from 1 to 65535")
    if host is None or not re.fullmatch(r"[\w.:-]{1,253}", host):
        raise ConfigurationError("the sender's config has no host")
    if helo is not None and not HELO.fullmatch(helo):
        raise ConfigurationError("helo is neither a host name nor an address literal")
    username, secret = _text(config, "username"), _text(config, "secret")
    if (username is None) != (secret is None):
        raise ConfigurationError("username and secret go together only")
    password = resolve(secret) if secret else ""
    if not f"{username}{password}".isascii():
        raise ConfigurationError("username or password is beyond ASCII")
    ca_file = _text(config, "ca_file")
    return Server(host, int(port), tls, ca_file, helo, username, password)


def compose(
    message: ClaimedMessage, account: Account, attached: Sequence[Media], at: datetime
) -> Mail:
    """The mail of a message, dated `at`; raises Unsendable."""
    try:
        recipient = address(message.recipient)
    except ValueError as error:
        raise Unsendable("contact", f"no address for mail: {error}") from None
    message_id = _message_id(message, account)
    head = {
        "From": account.sender.header,
        "To": str(recipient),
        "Subject": _subject(message.subject),
        "Date": format_datetime(at),
        "Message-ID": message_id,
        "Reply-To": account.reply_to.header if account.reply_to else None,
    }
    if account.unsubscribe_url:
        link = unsubscribe.sign_unsubscribe(
            message.recipient,
            account.unsubscribe_key,
            base_url=account.unsubscribe_url,
        )
        head["List-Unsubscribe"] = f"<{link}>"
        head["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058 3.1
    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items() if value)
    data = lines.encode() + _body(message, attached)
    return Mail(str(account.sender), str(recipient), message_id, data)


def address(text: str, name: str = "") -> Address:
    """A mail address; raises ValueError for what cannot be one."""
    local, at, domain = text.rpartition("@")
    fits = LOCAL_PART.fullmatch(local) and local.isprintable()
    if not at or not fits or len(local.encode()) > 64:
        raise ValueError("the part before the @ is no dot-atom of at most 64 bytes")
    try:
        ascii_domain = idna.encode(domain, uts46=True, transitional=False).decode()
    except idna.IDNAError:
        ascii_domain = domain
    if len(ascii_domain) > 253 or not HOST_NAME.fullmatch(ascii_domain):
        raise ValueError("the part after the @ is no domain")
    return Address(local, ascii_domain, name)


def _mailbox(text: str | None, key: str) -> Address:
    """Of `address` or `Name <address>`."""
    text = text or ""
    name, spec = parseaddr(text)
    try:
        if not _is_one_line(text) or not text.rstrip(" >").endswith(spec):
            raise ValueError("more than one line or one address")
        return address(spec, name)
    except ValueError as error:
        raise ConfigurationError(f"{key} is no mail address: {error}") from None


def _message_id(message: ClaimedMessage, account: Account) -> str:
    """The same over all attempts of a step. The hash keeps databases apart that number
    their enrollments alike: who receives two messages of one id shows one only."""
    known = (message.idempotency_key, message.sequence, message.recipient)
    mark = hashlib.sha256("\n".join((*known, str(account.sender))).encode()).hexdigest()
    local = message.idempotency_key.replace(":", ".")
    return f"<{local}.{mark[:16]}@{account.sender.domain}>"


def _subject(subject: str | None) -> str | None:
    if not subject:
        return None
    if not _is_one_line(subject):
        raise Unsendable("content", "subject holds a control character")
    if subject.isascii() and "=?" not in subject and len(subject) <= SHORT:
        return subject
    return _encoded(subject)


def _encoded(text: str) -> str:
    """As encoded words (RFC 2047), folded; whatever the text looks like."""
    return Header(text, "utf-8", maxlinelen=70).encode(linesep="\r\n")


def _body(message: ClaimedMessage, attached: Sequence[Media]) -> bytes:
    """The MIME headers, an empty line and the content, in ASCII."""
    body = EmailMessage(policy=BODY_POLICY)
    html = (message.content or {}).get("html")
    try:
        body.set_content(message.body or "")
        if html:
            body.add_alternative(html, subtype="html")
        for media in attached:
            main, sub = media.type.split("/")
            body.add_attachment(
                media.data, maintype=main, subtype=sub, filename=media.name
            )
        return body.as_bytes()
    except (ValueError, TypeError, LookupError) as error:
        raise Unsendable("content", f"no mail can be made of it: {error}") from error


def _is_one_line(text: str) -> bool:
    return not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)


def _is_https(text: str) -> bool:
    """Whether it and a segment more can be a link in a header, just as they stand."""
    if not re.fullmatch(r"https://[\x21\x23-\x3b\x3d\x3f-\x7e]+", text):
        return False
    try:
        url = URL(text)
    except ValueError:
        return False
    return bool(url.host) and not url.query_string and not url.fragment


def _text(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{key} is no text")
    return value
