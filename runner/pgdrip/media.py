"""Media by URL, fetched so that a URL in a definition reaches nothing inside.

A URL, and each place it redirects to, must be https; every address its host resolves to
must be a public one, and the connection goes to an address so checked. Size, time and
redirects are bounded, and what comes must be of the kind that was promised.
"""

import asyncio
import ipaddress
import mimetypes
import re
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pgdrip import __version__
from pgdrip.channels import Unsendable

LIMIT = 10 * 1024 * 1024  # bytes
TIMEOUT = 15.0  # seconds, redirects included
REDIRECTS = 3
NAME_LIMIT = 100  # characters
KINDS = ("image", "video", "audio", "document")
# What answers instead of a document when the link has gone stale.
PAGES = frozenset({"text/html", "application/xhtml+xml"})
UNTYPED = frozenset({"application/octet-stream", "binary/octet-stream", ""})
PASSING = frozenset({408, 425, 429})
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291; nothing else is given out


@dataclass(frozen=True, slots=True)
class Media:
    """What was fetched; `type` is like image/png, `name` a file name without a path."""

    name: str
    type: str
    data: bytes


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, however it is wrapped."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Fetches media; one instance for all sends of a process.

    `allowed` says of an IP address whether it may be connected to, `tls` how servers
    prove who they are; other than the defaults are for servers of one's own.
    """

    def __init__(
        self,
        *,
        allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
        limit: int = LIMIT,
        timeout: float = TIMEOUT,
    ) -> None:
        self._allowed = allowed
        self._tls = tls
        self._limit = limit
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def fetch(
        self, media: dict[str, Any], hosts: Collection[str] | None = None
    ) -> Media:
        """What `media`, {"type": "image", "url": …, "filename": …}, names; from one of
        these hosts only.

        Raises Unsendable, with `media_unavailable` as its code if another try may do.
        """
        kind, url = media.get("type"), _https(media.get("url"))
        if kind not in KINDS:
            raise Unsendable("content", f"media must have a type of {', '.join(KINDS)}")
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._follow(kind, url, hosts)
            name = media.get("filename")
            return replace(found, name=_name(name, found.type)) if name else found
        except aiohttp.InvalidURL:
            raise Unsendable("media_refused", f"{url.host} is no host name") from None
        except TimeoutError:
            told = f"{url.host} did not deliver within {self._timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            told = f"{url.host} did not deliver: {type(error).__name__}"
        raise Unsendable("media_unavailable", told)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _follow(
        self, kind: str, url: URL, hosts: Collection[str] | None
    ) -> Media:
        for _ in range(REDIRECTS + 1):
            if hosts is not None and url.host not in hosts:
                told = f"{url.host} is not one of media_hosts"
                raise Unsendable("media_refused", told)
            self._check_literal(url)
            async with self._opened().get(url, allow_redirects=False) as response:
                to = response.headers.get("Location")
                if 300 <= response.status < 400 and to is not None:
                    url = _https(_joined(url, to))
                    continue
                _check_status(url, response.status)
                found = _type(kind, url, response)
                data = await self._read(url, response)
                return Media(_name(url.name, found), found, data)
        raise Unsendable(
            "media_refused", f"{url.host} redirects more than {REDIRECTS} times"
        )

    async def _read(self, url: URL, response: aiohttp.ClientResponse) -> bytes:
        """All of it; what says beforehand that it is too large is not read at all."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unsendable("media_refused", f"{url.host} compressed it unasked")
        data = bytearray()
        if (response.content_length or 0) <= self._limit:
            async for part in response.content.iter_any():
                data += part
                if len(data) > self._limit:
                    break
            else:
                return bytes(data)
        response.close()
        raise Unsendable("media_refused", f"larger than {self._limit} bytes")

    def _check_literal(self, url: URL) -> None:
        """An address in place of a name is connected to without being resolved."""
        host = url.host or ""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return  # a name, or a spelling that only the resolver takes for an address
        if not self._allowed(host):
            raise _inside(host)

    def _opened(self) -> aiohttp.ClientSession:
        """The one session, opened inside the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=20,
                    resolver=_CheckedResolver(self._allowed),
                    use_dns_cache=False,
                    ssl=self._tls or True,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={
                    "Accept-Encoding": "identity",
                    "User-Agent": f"pgdrip/{__version__}",
                },
            )
        return self._session


class _CheckedResolver(AbstractResolver):
    """Gives out addresses only if every one of the host may be connected to."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(self._allowed(address["host"]) for address in found):
            raise _inside(host)
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _inside(host: str | None) -> Unsendable:
    return Unsendable("media_refused", f"{host} is no public address")


def _https(text: object) -> URL:
    try:
        url = text if isinstance(text, URL) else URL(text if type(text) is str else "")
    except ValueError:
        url = URL()
    if url.scheme != "https" or not url.host or url.user or url.password:
        raise Unsendable("media_refused", "url is not https, or holds a user")
    return url


def _joined(url: URL, location: str) -> URL | None:
    try:
        return url.join(URL(location))
    except ValueError:
        return None


def _check_status(url: URL, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    told = f"{url.host} answered {status}"
    if status >= 500 or status in PASSING:
        raise Unsendable("media_unavailable", told)
    raise Unsendable("media_missing", told)


def _type(kind: str, url: URL, response: aiohttp.ClientResponse) -> str:
    """The type of what comes, by its header, else by the ending of its name."""
    given = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if given in UNTYPED:
        given = mimetypes.guess_type(url.path)[0] or "application/octet-stream"
    whole = re.fullmatch(r"([a-z]+)/[a-z0-9][a-z0-9.+-]{0,100}", given)
    main = whole[1] if whole else None
    if kind == "document":
        fits = main not in (None, "multipart", "message") and given not in PAGES
    else:
        fits = main == kind
    if not fits:
        raise Unsendable(
            "media_refused", f"{url.host} sent {given[:80]!r} in place of {kind}"
        )
    return given


def _name(text: object, type: str) -> str:
    """A file name without a path or anything that means something; with an ending."""
    name = (
        re.sub(r"[^\w.-]+", "_", str(text)).strip("._-")[-NAME_LIMIT:] or "attachment"
    )
    return name if "." in name else name + (mimetypes.guess_extension(type) or "")
