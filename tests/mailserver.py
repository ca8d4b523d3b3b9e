"""A mail server for tests: aiosmtpd, told what to answer and when to hang up."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "desk", "correct horse battery"


@dataclass
class Script:
    """What to do at a stage: EHLO, MAIL, RCPT, DATA, BODY (after its first line), END
    (after its final dot), RSET, NOOP. A text is the reply; `drop` hangs up, `hang` says
    nothing any more."""

    at: dict[str, str] = field(default_factory=dict)
    starttls: ssl.SSLContext | None = None
    implicit: ssl.SSLContext | None = None
    has_login: bool = False
    has_utf8: bool = True
    limit: int = 64 * 1024 * 1024  # bytes of a message


@dataclass
class Received:
    """One message as it came over the wire."""

    sender: str
    recipient: str
    raw: bytes
    connection: int

    @property
    def mail(self) -> EmailMessage:
        parsed = BytesParser(policy=policy.default).parsebytes(self.raw)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class MailServer:
    """A running server: what it was told to do, and what it has got."""

    script: Script
    host: str = "127.0.0.1"
    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    commands: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def config(self) -> dict[str, Any]:
        """The sender config that reaches it without TLS."""
        return {
            "host": self.host,
            "port": self.port,
            "tls": "none",
            "from": "Desk <desk@example.com>",
        }


class _Session(SMTP):
    """One connection. aiosmtpd speaks; this only steps in where the script says so."""

    def __init__(self, told: MailServer) -> None:
        script = told.script
        with warnings.catch_warnings(category=UserWarning, action="ignore"):
            super().__init__(  # it would rather not take logins without TLS
                _Hooks(told),
                data_size_limit=script.limit,
                enable_SMTPUTF8=script.has_utf8,
                hostname="mail.test",
                tls_context=script.starttls,
                authenticator=_authenticate if script.has_login else None,
                auth_required=script.has_login,
                auth_require_tls=False,
                loop=asyncio.get_running_loop(),
            )
        self.told = told
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self.number:  # STARTTLS makes the connection once more
            self.told.connections += 1
            self.number = self.told.connections
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.told.gone.set()
        super().connection_lost(error)

    async def smtp_DATA(self, arg: str) -> None:
        if what := await self.scripted("DATA"):
            await self.push(what)
        elif "BODY" in self.told.script.at:
            await self.push("354 go ahead")
            await self._reader.readuntil(b"\r\n")  # and the rest will never be read
            await self.scripted("BODY")
        else:
            await super().smtp_DATA(arg)

    async def scripted(self, stage: str) -> str | None:
        """The reply that the script has for a stage, if it comes to one."""
        self.told.commands.append(stage)
        what = self.told.script.at.get(stage)
        if what is not None:
            self.told.reached.set()
        if what == "drop":
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.abort()
        if what in ("drop", "hang"):
            await asyncio.Event().wait()  # until the end of the connection cancels it
        return what


class _Hooks:
    """aiosmtpd's handler; a hook that answers None has answered by itself."""

    def __init__(self, told: MailServer) -> None:
        self._told = told

    async def handle_EHLO(
        self, server: _Session, session: Any, _: Any, name: str, replies: list[str]
    ) -> list[str]:
        session.host_name = name
        what = await server.scripted("EHLO")
        return [what] if what else replies

    async def handle_MAIL(
        self, server: _Session, _: Any, envelope: Any, sender: str, options: list[str]
    ) -> str | None:
        if what := await server.scripted("MAIL"):
            return what
        envelope.mail_from = sender
        envelope.mail_options.extend(options)
        return "250 fine"

    async def handle_RCPT(
        self, server: _Session, _: Any, envelope: Any, to: str, options: list[str]
    ) -> str | None:
        if what := await server.scripted("RCPT"):
            return what
        envelope.rcpt_tos.append(to)
        return "250 fine"

    async def handle_DATA(self, server: _Session, _: Any, envelope: Any) -> str:
        if what := await server.scripted("END"):
            return what
        self._told.received.append(
            Received(
                sender=envelope.mail_from,
                recipient=", ".join(envelope.rcpt_tos),
                raw=envelope.original_content,
                connection=server.number,
            )
        )
        return "250 2.0.0 queued as 4711"

    async def handle_RSET(self, server: _Session, *_: Any) -> str:
        return await server.scripted("RSET") or "250 fine"

    async def handle_NOOP(self, server: _Session, *_: Any) -> str:
        return await server.scripted("NOOP") or "250 fine"


def _authenticate(
    server: SMTP, session: Any, envelope: Any, mechanism: str, data: LoginPassword
) -> AuthResult:
    fits = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=fits, handled=False)


@asynccontextmanager
async def mail_server(
    script: Script | None = None, *, host: str = "127.0.0.1", **told: Any
) -> AsyncIterator[MailServer]:
    """A server on this machine; `told` are fields of a new Script."""
    running = MailServer(script or Script(**told), host)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Session(running), host, 0, ssl=running.script.implicit
    )
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()


class Authority:
    """A certificate authority of one's own and a server context it vouches for."""

    def __init__(self, name: str = "127.0.0.1") -> None:
        self._ca = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(self.context)

    def write(self, path: Any) -> str:
        """The path, with the authority's certificate in it."""
        self._ca.cert_pem.write_to_path(path)
        return str(path)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context
