"""The channel that hands mail to a submission server, by smtplib in threads.

Sender config: `host`, `from`; and `port`, `tls` (`starttls`, `implicit`, `none`),
`ca_file`, `helo`, `username` with the sender's `secret`, `reply_to`, `unsubscribe_url`
with `unsubscribe_signed_by`. The server's certificate is always checked, and a password
leaves this machine under TLS only. Where the conversation stands decides:

    250 to the final dot                sent; provider id is our own Message-ID
    4yz or 5yz at any stage             failed, code `<stage>_<status>`
    loss or time-out before that dot    failed, code `transient`
    loss, time-out or nonsense after it uncertain
    no usable config or secret          failed, code `sender`
    a certificate that does not fit     failed, code `sender`

Stages are connect (up to AUTH), mail, rcpt and data. A status is the enhanced one
(RFC 3463) where rcpt and data were refused for good with one that tells more than the
reply code does, else the reply code; of one nobody knows only the first digit counts
(RFC 5321 4.2.1): `rcpt_5yz`. SMTP cannot be asked later what became of a message.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from pgdrip.channels import (
    Down,
    Failed,
    Health,
    Outcome,
    Sent,
    Uncertain,
    Unsendable,
    Up,
    media_hosts,
)
from pgdrip.engine import ClaimedMessage, KnownSender
from pgdrip.errors import ConfigurationError
from pgdrip.mail import Account, Server, compose, read_account
from pgdrip.media import Fetcher, Media
from pgdrip.submission import Session

THREADS = 64
QUEUE = 8.0  # seconds a message waits for a thread
TIMEOUT = 45.0  # seconds for one message, media and waiting included
IDLE = 20.0  # seconds a connection is kept for the next message
FAREWELL = 1.0  # seconds close() waits for threads
REUSES = 100  # messages over one connection; many servers count them


class SmtpChannel:
    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        idle: float = IDLE,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._timeout = timeout
        self._idle = idle
        self._fetcher = fetcher or Fetcher()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="smtp")
        self._free = asyncio.Semaphore(THREADS)
        self._kept: dict[Server, list[Session]] = {}
        self._busy: dict[asyncio.Future[Outcome], Session] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def send(self, message: ClaimedMessage) -> Outcome:
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            account = read_account(message.sender_config)
            attached = await self._fetch(message)
        except ConfigurationError as error:
            return Failed("sender", error.message)
        except Unsendable as error:
            return Failed(error.code, error.detail)
        call = partial(_transmit, message=message, account=account, attached=attached)
        return await self._call(account.server, call, deadline)

    async def probe(self, sender: KnownSender) -> Health:
        """Up if the server takes this sender's connection and login, by NOOP."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            server = read_account(sender.config).server
        except ConfigurationError as error:
            return Down(error.message)
        found = await self._call(server, Session.check, deadline)
        return Up() if isinstance(found, Sent) else Down(found.detail or "refused")

    async def close(self) -> None:
        self._is_closed = True
        if self._busy:  # of sends that were cancelled
            for session in self._busy.values():
                session.abort()
            await asyncio.wait(self._busy, timeout=FAREWELL)
        for kept in self._kept.values():
            self._quit(*kept)
        self._kept.clear()
        if self._sweeper:
            self._sweeper.cancel()
        self._threads.shutdown(wait=False)
        await self._fetcher.close()

    async def _fetch(self, message: ClaimedMessage) -> list[Media]:
        media = (message.content or {}).get("media")
        if media is None:
            return []
        if not isinstance(media, dict):
            raise Unsendable("content", "media must be an object")
        hosts = media_hosts(message.sender_config)
        return [await self._fetcher.fetch(media, hosts)]

    async def _call(
        self, server: Server, call: Callable[[Session], Outcome], deadline: float
    ) -> Outcome:
        """`call` with a session, in a thread; what is cut off before the final dot is
        on its way never goes out."""
        try:
            async with asyncio.timeout(QUEUE):
                await self._free.acquire()
        except TimeoutError:
            return Failed("transient", f"not sent: no thread was free for {QUEUE:g} s")
        session = self._take(server)
        job = asyncio.get_running_loop().run_in_executor(self._threads, call, session)
        self._busy[job] = session
        job.add_done_callback(self._give_back)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(job)
        except TimeoutError:
            if job.done():
                return job.result()
            if session.abort():
                return Uncertain("no reply to the final dot in time")
            return Failed("transient", "not sent: the server was too slow")
        except asyncio.CancelledError:
            if not job.done():
                session.abort()
            raise

    def _take(self, server: Server) -> Session:
        """The connection used last, which is the least likely to be closed."""
        kept = self._kept.get(server)
        return kept.pop() if kept else Session(server)

    def _give_back(self, job: asyncio.Future[Outcome]) -> None:
        """Keep a connection for the next message, or close it."""
        session = self._busy.pop(job)
        self._free.release()
        if job.cancelled() or job.exception() or self._is_closed:
            session.close()
        elif not session.is_open or session.messages >= REUSES:
            self._quit(session)
        else:
            session.idle_since = asyncio.get_running_loop().time()
            self._kept.setdefault(session.server, []).append(session)
            self._sweeper = self._sweeper or self._sweep_later()

    def _sweep(self) -> None:
        """Close what was not needed for a while."""
        oldest = asyncio.get_running_loop().time() - self._idle
        for server, kept in list(self._kept.items()):
            self._quit(*(s for s in kept if s.idle_since <= oldest))
            self._kept[server] = [s for s in kept if s.idle_since > oldest]
            if not self._kept[server]:
                del self._kept[server]
        self._sweeper = self._sweep_later() if self._kept else None

    def _sweep_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._idle, self._sweep)

    def _quit(self, *sessions: Session) -> None:
        for session in sessions:
            self._threads.submit(session.quit)


def _transmit(
    session: Session,
    *,
    message: ClaimedMessage,
    account: Account,
    attached: list[Media],
) -> Outcome:
    try:
        mail = compose(message, account, attached, datetime.now(UTC))
    except Unsendable as error:
        return Failed(error.code, error.detail)
    return session.transmit(mail)
