"""What channels over HTTP share: one session, bounded answers, what a lost one means.

A channel says what to ask for a message and what the reply means. In between:

    a reply, whatever its status           the channel decides
    no connection                          failed, code `transient`
    time-out or loss after connecting      uncertain: the request may have been read
    no usable config or secret             failed, code `sender`; nothing is asked

Redirects are never followed, so credentials stay with the host of the config. Cookies
are not kept. At most so many bytes of an answer are read, and unpacked to at most so
many. Secrets are masked in it before anybody reads it.
"""

import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from pgdrip import __version__
from pgdrip.channels import (
    Answer,
    Down,
    Failed,
    Health,
    Outcome,
    Uncertain,
    Unknown,
    Unsendable,
)
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError
from pgdrip.secrets import mask

ANSWER_LIMIT = 64 * 1024  # bytes
LIST_LIMIT = 1024 * 1024  # bytes
DETAIL_LIMIT = 500  # characters of a gateway's words
WORDS_LIMIT = 1000  # characters of a detail
# A receiver commonly closes idle connections after 5 s or more, and a request into one
# that closes is lost without a trace.
KEEP_ALIVE = 4  # seconds
CONNECT = 5.0  # seconds, DNS and TLS included
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,50}")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `secrets` are masked in whatever is answered."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | aiohttp.FormData | None = None
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and the beginning of the text of an answer, as it came."""

    status: int
    text: str
    reason: str
    retry_after: str
    secrets: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The object answered; an empty one for whatever else it was."""
        try:
            body = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}

    def failed(self, code: object = None, message: object = None) -> Failed:
        """A failure with the gateway's code and words, else with the status."""
        words = message if isinstance(message, str) and message else self.text
        detail = mask(words, self.secrets)[:DETAIL_LIMIT] or self.reason
        if self.retry_after:
            wait = mask(self.retry_after, self.secrets)[:40]
            detail = f"{detail} (Retry-After: {wait})"
        return Failed(self.code(code) or f"http_{self.status}", detail)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def code(self, code: object) -> str | None:
        """The gateway's code as text; None for what is none, or repeats a secret."""
        if isinstance(code, bool) or not isinstance(code, str | int):
            return None
        # A long secret in it is an echo; a short one may stand in any number.
        echoes = any(len(one) >= 8 and one in str(code) for one in self.secrets)
        return str(code) if _CODE.fullmatch(str(code)) and not echoes else None


class HttpChannel(ABC):
    """One session for all sends of a process; `total` seconds for each request."""

    total = 30.0

    def __init__(self, timeout: aiohttp.ClientTimeout | None = None) -> None:
        self._timeout = timeout or aiohttp.ClientTimeout(
            total=self.total, connect=CONNECT
        )
        self._session: aiohttp.ClientSession | None = None

    @abstractmethod
    def request(self, message: ClaimedMessage) -> Request:
        """What to ask; raises Unsendable or ConfigurationError."""

    @abstractmethod
    def outcome(self, message: ClaimedMessage, reply: Reply) -> Outcome:
        """What the gateway's answer means."""

    async def send(self, message: ClaimedMessage) -> Outcome:
        return await self.ask(
            lambda: self.request(message),
            lambda reply: self.outcome(message, reply),
            lambda lost: lost,
        )

    async def ask(
        self,
        build: Callable[[], Request],
        read: Callable[[Reply], T],
        unread: Callable[[Failed | Uncertain], T],
        *,
        limit: int = ANSWER_LIMIT,
    ) -> T:
        """Ask once; what the answer says, with no secret in its detail, or what it says
        that there was none. Never raises for what a gateway does."""
        try:
            request = build()
        except Unsendable as error:
            return unread(Failed(error.code, error.detail))
        except ConfigurationError as error:
            return unread(Failed("sender", error.message))
        reply = await self._exchange(request, limit)
        if not isinstance(reply, Reply):
            return unread(reply)
        return _masked(read(reply), request.secrets)

    async def _exchange(
        self, request: Request, limit: int
    ) -> Reply | Failed | Uncertain:
        try:
            async with self._opened().request(
                request.method,
                request.url,
                data=request.data,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                answer = await _read(response, limit)
        except aiohttp.InvalidURL:
            return Failed("sender", "the sender's config has no http(s) url")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            detail = f"no connection: {_name(error)}"
            return Failed("transient", detail, reached=False)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Uncertain(f"no answer: {_name(error)}")
        return Reply(
            status=response.status,
            text=answer.decode(errors="replace"),
            reason=response.reason or "",
            retry_after=response.headers.get("Retry-After", ""),
            secrets=request.secrets,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        """The one session, opened inside the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={
                    "Accept-Encoding": "identity",
                    "User-Agent": f"pgdrip/{__version__}",
                },
                timeout=self._timeout,
            )
        return self._session


def health_of(reply: Reply) -> Health:
    """What any answer but a success tells of a sender: 401, 403 and 404 blame it, the
    others tell nothing."""
    failed = reply.failed()
    told = f"http {reply.status}: {failed.detail}"
    return Down(told) if reply.status in {401, 403, 404} else Unknown(told)


def health_without(lost: Failed | Uncertain) -> Health:
    """A gateway out of reach can send for nobody; a lost answer tells nothing."""
    if isinstance(lost, Failed):
        return Down(lost.detail or lost.code)
    return Unknown(lost.detail)


def answer_without(lost: Failed | Uncertain) -> Answer:
    """Without an answer a send stays as uncertain as it was."""
    return Uncertain(lost.detail or "no answer")


def as_body(value: object) -> bytes:
    """JSON as it goes over the wire; a signature is made over these bytes."""
    return json.dumps(value, ensure_ascii=False).encode()


def as_form(fields: Mapping[str, str]) -> bytes:
    return urlencode(fields).encode()


def http_url(text: object) -> URL | None:
    """The text as a URL of http or https with a host, without a password; else None."""
    try:
        url = URL(text) if isinstance(text, str) else URL()
        (url.host or "").encode("idna")  # labels of 1 to 63 characters
    except ValueError:
        return None
    fits = url.scheme in {"http", "https"} and url.host and url.raw_user is None
    return url if fits and url.raw_password is None else None


def api_url(config: Mapping[str, Any], default: str) -> URL:
    """The `url` of a config, where an API is found; https, or this very machine."""
    url = http_url(config.get("url", default))
    if url is None:
        raise Unsendable("sender", "url in the sender's config is no http(s) url")
    if url.scheme != "https" and url.host not in LOOPBACK:
        raise Unsendable("sender", "url in the sender's config must be https")
    return url


def text_of(config: Mapping[str, Any], key: str) -> str:
    """A plain text of a config; Unsendable where it is missing or none."""
    value = config.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Unsendable("sender", f"the sender's config has no {key}")
    return value


def _masked(said: T, secrets: tuple[str, ...]) -> T:
    """The same, with no secret in its detail: masked before it is cut."""
    if isinstance(said, Failed | Uncertain | Down | Unknown) and said.detail:
        return replace(said, detail=mask(said.detail, secrets)[:WORDS_LIMIT])
    return said


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The beginning of an answer; its status stands, however the body breaks off."""
    answer = b""
    try:
        while len(answer) < limit:
            part = await response.content.read(limit - len(answer))
            if not part:
                return _unpacked(response, answer, limit)
            answer += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    response.close()
    return _unpacked(response, answer, limit)


def _unpacked(response: aiohttp.ClientResponse, answer: bytes, limit: int) -> bytes:
    """Some servers compress whatever is asked of them; what it grows to is bounded."""
    if response.headers.get("Content-Encoding", "identity") not in {"gzip", "deflate"}:
        return answer
    try:
        return zlib.decompressobj(wbits=47).decompress(answer, limit)
    except zlib.error:
        return answer


def _name(error: BaseException) -> str:
    return type(error).__name__
