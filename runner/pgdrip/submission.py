"""One conversation with a submission server (RFC 5321, 6409), blocking.

What a server has said and what it has been given decide the outcome of a message. Until
the final dot is on its way, the server must throw away what it got (RFC 5321 4.1.1.10);
from then on nobody but the server knows. `abort`, from another thread, settles in one
step on which side of that line a conversation ends.
"""

import ipaddress
import re
import smtplib
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Literal

from pgdrip.channels import Failed, Outcome, Sent, Uncertain
from pgdrip.mail import Mail, Server
from pgdrip.secrets import mask

Stage = Literal["connect", "mail", "rcpt", "data"]
_Reply = tuple[int, bytes | str]

CONNECT = 10.0  # seconds for each address of the host
REPLY = 30.0  # seconds without a byte
QUIT = 2.0  # seconds
DETAIL_LIMIT = 500  # characters
# Reply codes with a rule at every stage: RFC 4954, 5321 and 7504.
REPLIES = frozenset(
    "421 432 450 451 452 454 455 500 501 502 503 504 521 530 534 535 538"
    " 550 551 552 553 554 555 556".split()
)
# Enhanced statuses (IANA registry) that tell more than their reply code, once there is
# a recipient. X.0.0, X.1.0, X.2.0, X.5.0 and so on tell less.
STATUSES = frozenset(
    "5.1.1 5.1.2 5.1.3 5.1.4 5.1.6 5.1.7 5.1.8 5.1.9 5.1.10"
    " 5.2.1 5.2.2 5.2.3 5.2.4 5.3.4 5.4.1 5.4.4 5.4.5 5.4.6 5.4.7"
    " 5.6.1 5.6.2 5.6.3 5.6.5 5.6.6 5.6.7 5.6.9"
    " 5.7.1 5.7.2 5.7.8 5.7.9 5.7.10 5.7.11 5.7.13 5.7.14 5.7.16 5.7.17 5.7.18"
    " 5.7.20 5.7.21 5.7.22 5.7.23 5.7.24 5.7.25 5.7.26 5.7.27 5.7.28".split()
)
_STATUS = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


class Refused(Exception):
    """The server, or what is known of it, forbids to go on."""

    def __init__(self, code: str, detail: str, stage: Stage = "connect") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.stage = stage


class Session:
    """A connection, opened when first used; one thread at a time may use it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.idle_since = 0.0  # the owner's clock
        self.messages = 0
        self._client: smtplib.SMTP | None = None
        self._lock = Lock()
        self._is_aborted = False
        self._is_committed = False

    @property
    def is_open(self) -> bool:
        """Whether another message may go this way."""
        client = self._client
        return not self._is_aborted and client is not None and client.sock is not None

    def transmit(self, mail: Mail) -> Outcome:
        """Hand in one mail; never raises for what the server or the network does."""
        client = self._ready()
        if isinstance(client, Failed):
            return client
        try:
            self._envelope(client, mail)
            return self._data(client, mail)
        except Refused as refused:
            return self._failed(refused)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            if self._is_committed:
                return Uncertain(f"no reply to the final dot: {_name(error)}")
            return Failed(
                "transient", f"connection lost before the end: {_name(error)}"
            )

    def check(self) -> Sent | Failed:
        """Sent() if the server would take mail; nothing is sent."""
        client = self._ready()
        if isinstance(client, Failed):
            return client
        try:
            self._expect("connect", client.noop(), 2)
        except Refused as refused:
            return self._failed(refused)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Failed("transient", f"connection lost: {_name(error)}")
        return Sent()

    def abort(self) -> bool:
        """End it from another thread; whether the final dot may be out.

        If not, it never will be.
        """
        with self._lock:
            self._is_aborted = True
            sock = self._client.sock if self._client else None
        if sock is not None:
            with suppress(OSError):  # the method of SSLSocket would take TLS off first
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        return self._is_committed

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def quit(self) -> None:
        """Close it as one should, if the server answers soon."""
        if self._client is not None and self._client.sock is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._client.sock.settimeout(QUIT)
                self._client.quit()
        self.close()

    def _ready(self) -> smtplib.SMTP | Failed:
        """The connection at the start of a transaction, opened anew if need be."""
        self._is_committed = False
        if self._client is not None:
            with suppress(OSError, smtplib.SMTPException):
                if self._client.rset()[0] == 250:
                    return self._client
            self.close()
        self.messages = 0
        try:
            return self._opened()
        except Refused as refused:
            return self._failed(refused)
        except ssl.SSLCertVerificationError as error:
            return self._failed(
                Refused("sender", f"certificate: {error.verify_message}")
            )
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Failed("transient", f"no connection: {_name(error)}", reached=False)
        except ValueError:  # from the resolver or TLS, before anything is said
            return self._failed(Refused("sender", "host is no host name"))

    def _opened(self) -> smtplib.SMTP:
        server = self.server
        sock = socket.create_connection((server.host, server.port), CONNECT)
        client = smtplib.SMTP(local_hostname=server.helo or _helo(sock))
        self._adopt(client, sock)
        if server.tls == "implicit":
            self._adopt(client, _wrapped(sock, server))
        self._expect("connect", client.getreply(), 2)
        self._greet(client)
        if server.tls == "starttls":
            self._start_tls(client)
        if server.username is not None:
            self._log_in(client, server.username)
        return client

    def _adopt(self, client: smtplib.SMTP, sock: socket.socket) -> None:
        """Speak over this socket, unless it is too late for that."""
        sock.settimeout(REPLY)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            client.sock = sock
            self._client = client
            if self._is_aborted:
                raise OSError("aborted")

    def _greet(self, client: smtplib.SMTP) -> None:
        code, text = client.ehlo()
        if code in (500, 502):  # no ESMTP: RFC 5321 3.2
            code, text = client.helo()
        self._expect("connect", (code, text), 2)

    def _start_tls(self, client: smtplib.SMTP) -> None:
        if not client.has_extn("starttls"):
            raise Refused("sender", "the server offers no STARTTLS")
        self._expect("connect", client.docmd("STARTTLS"), 2)
        assert client.sock is not None
        client.file = None  # whatever else came in the clear: RFC 3207 4.2
        self._adopt(client, _wrapped(client.sock, self.server))
        self._greet(client)

    def _log_in(self, client: smtplib.SMTP, username: str) -> None:
        assert client.sock is not None
        peer = ipaddress.ip_address(client.sock.getpeername()[0])
        if self.server.tls == "none" and not peer.is_loopback:
            raise Refused("sender", "a password goes over the wire under TLS only")
        try:
            client.login(username, self.server.password)
        except (smtplib.SMTPNotSupportedError, ValueError) as error:
            raise Refused("sender", f"no login: {error}") from None
        except smtplib.SMTPAuthenticationError as error:
            self._expect("connect", (error.smtp_code, error.smtp_error), 9)
        except smtplib.SMTPException as error:
            if type(error) is not smtplib.SMTPException:
                raise
            told = "no login: the server offers none of CRAM-MD5, PLAIN and LOGIN"
            raise Refused("sender", told) from None

    def _envelope(self, client: smtplib.SMTP, mail: Mail) -> None:
        options = f" SIZE={len(mail.data)}" if client.has_extn("size") else ""
        if mail.needs_utf8:
            if not client.has_extn("smtputf8"):
                code = "rcpt_5.6.7" if mail.sender.isascii() else "sender"
                told = "the server takes addresses in ASCII only"
                raise Refused(code, told, "rcpt")
            client.command_encoding = "utf-8"  # until the next RSET
            options += " SMTPUTF8 BODY=8BITMIME"
        self._expect("mail", client.docmd("MAIL", f"FROM:<{mail.sender}>{options}"), 2)
        self._expect("rcpt", client.docmd("RCPT", f"TO:<{mail.recipient}>"), 2)

    def _data(self, client: smtplib.SMTP, mail: Mail) -> Outcome:
        self._expect("data", client.docmd("DATA"), 3)
        client.send(re.sub(rb"(?m)^\.", b"..", mail.data))
        with self._lock:
            if self._is_aborted:
                raise OSError("aborted")
            self._is_committed = True
        client.send(b".\r\n")
        code, text = client.getreply()
        if code // 100 == 2:
            self.messages += 1
            return Sent(mail.message_id)
        if code // 100 in (4, 5):
            raise _refusal("data", code, _words(text))
        self.close()
        told = f"no reply to the final dot: {code} {_words(text)}"
        return Uncertain(self._masked(told))

    def _expect(self, stage: Stage, reply: _Reply, digit: int) -> None:
        """Go on after a reply that begins with this digit only; none begins with 9."""
        code, text = reply
        if code // 100 == digit:
            return
        if code // 100 in (4, 5):
            raise _refusal(stage, code, _words(text))
        raise smtplib.SMTPServerDisconnected("nonsense")

    def _failed(self, refused: Refused) -> Failed:
        """The failure, and no connection that must not be used again."""
        if refused.stage == "connect" or refused.code.endswith("_421"):
            self.close()
        return Failed(refused.code, self._masked(refused.detail))

    def _masked(self, detail: str) -> str:
        """The detail, without a password the server may have repeated."""
        password, name = self.server.password, self.server.username
        plain = b64encode(f"\0{name}\0{password}".encode()).decode()
        known = (password, plain, b64encode(password.encode()).decode())
        return mask(detail, known)[:DETAIL_LIMIT]


def _refusal(stage: Stage, code: int, text: str) -> Refused:
    found = _STATUS.match(text) if code >= 500 and stage in ("rcpt", "data") else None
    status = found[0] if found and found[0] in STATUSES else str(code)
    if status not in STATUSES | REPLIES:
        status = f"{code // 100}yz"
    return Refused(f"{stage}_{status}", f"{code} {text}", stage)


def _wrapped(sock: socket.socket, server: Server) -> ssl.SSLSocket:
    try:
        context = _trust(server.ca_file)
    except (OSError, ValueError) as error:
        raise Refused("sender", f"ca_file cannot be used: {_name(error)}") from None
    return context.wrap_socket(sock, server_hostname=server.host)


@lru_cache
def _trust(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _helo(sock: socket.socket) -> str:
    """This host's full name if it has one, else its address: RFC 5321 4.1.3."""
    name = socket.gethostname()
    if "." in name and re.fullmatch(r"[A-Za-z0-9.-]+", name):
        return name
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _words(text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return " ".join(words.split())


def _name(error: BaseException) -> str:
    """Which error it was, or which one closed the connection."""
    cause = error.__context__ if isinstance(error, smtplib.SMTPException) else None
    return type(cause or error).__name__
