"""Media are fetched from public servers only, and only what was promised."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from mailserver import Authority
from pgdrip.channels import Unsendable
from pgdrip.media import NAME_LIMIT, REDIRECTS, Fetcher, Media, is_public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 300
LIMIT = 100_000  # bytes
AUTHORITY = Authority("localhost")


def is_loopback(address: str) -> bool:
    """In the tests only this machine itself is a public server."""
    return address in ("127.0.0.1", "::1")


@asynccontextmanager
async def media_server(handler: Handler) -> AsyncIterator[str]:
    """An https server that answers every request by `handler`; where it is."""
    application = web.Application()
    application.router.add_get(r"/{path:[\s\S]*}", handler)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        context = AUTHORITY.context
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def fetch(
    handler: Handler,
    path: str = "/a/logo.png",
    kind: str = "image",
    *,
    filename: str | None = None,
    timeout: float = 5,
    hosts: set[str] | None = None,
) -> Media:
    """What is fetched from `handler`."""

    async def main() -> Media:
        async with media_server(handler) as url:
            fetcher = Fetcher(
                allowed=is_loopback,
                tls=AUTHORITY.client(),
                limit=LIMIT,
                timeout=timeout,
            )
            try:
                named = {"type": kind, "url": f"{url}{path}", "filename": filename}
                return await fetcher.fetch(named, hosts)
            finally:
                await fetcher.close()

    return asyncio.run(main())


def refused(handler: Handler, **options: Any) -> Unsendable:
    with pytest.raises(Unsendable) as raised:
        fetch(handler, **options)
    return raised.value


def answer(
    body: bytes = PICTURE,
    type: str = "image/png",
    status: int = 200,
    encoding: str = "identity",
) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        headers = {"Content-Type": type, "Content-Encoding": encoding}
        return web.Response(status=status, body=body, headers=headers)

    return handler


# What comes


def test_a_picture_comes_with_its_name_and_type() -> None:
    assert fetch(answer()) == Media("logo.png", "image/png", PICTURE)


@pytest.mark.parametrize(
    ("kind", "given", "path", "type"),
    [
        ("image", "image/jpeg; q=1", "/a", "image/jpeg"),
        ("image", "IMAGE/PNG", "/a", "image/png"),
        ("image", "application/octet-stream", "/a.png", "image/png"),
        ("image", "binary/octet-stream", "/a.png", "image/png"),
        ("video", "video/mp4", "/a", "video/mp4"),
        ("audio", "audio/mpeg", "/a", "audio/mpeg"),
        ("document", "application/pdf", "/a", "application/pdf"),
        ("document", "text/csv", "/a", "text/csv"),
        ("document", "image/png", "/a", "image/png"),
        ("document", "application/octet-stream", "/a", "application/octet-stream"),
    ],
)
def test_what_is_of_the_promised_kind_is_taken(
    kind: str, given: str, path: str, type: str
) -> None:
    assert fetch(answer(type=given), path, kind).type == type


@pytest.mark.parametrize(
    ("kind", "given", "path"),
    [
        ("image", "text/html", "/a.png"),
        ("image", "application/pdf", "/a.png"),
        ("image", "application/octet-stream", "/a"),
        ("image", "image/", "/a.png"),
        ("image", "image/p\tng", "/a.png"),
        ("video", "image/png", "/a.png"),
        ("document", "text/html; charset=utf-8", "/a.pdf"),
        ("document", "multipart/mixed", "/a.pdf"),
        ("document", "message/rfc822", "/a.pdf"),
    ],
)
def test_what_is_of_another_kind_is_refused(kind: str, given: str, path: str) -> None:
    error = refused(answer(type=given), path=path, kind=kind)
    assert error.code == "media_refused"
    assert f"in place of {kind}" in error.detail


@pytest.mark.parametrize(
    ("path", "filename", "name"),
    [
        ("/a/logo.png", None, "logo.png"),
        ("/a/%E6%8A%A5%E4%BB%B7.png", None, "报价.png"),
        ("/a/", None, "attachment.png"),
        ("/a/logo", None, "logo.png"),
        ("/a/..%2F..%2Fetc%2Fpasswd", None, "etc_passwd.png"),
        ("/a/x%0D%0ABcc:%20y.png", None, "x_Bcc_y.png"),
        ("/a/=%3Futf-8%3Fq%3F=0A%3F=.png", None, "utf-8_q_0A_.png"),
        ("/a/logo.png", "Price list.png", "Price_list.png"),
        ("/a/" + "x" * 200 + ".png", None, "x" * (NAME_LIMIT - 4) + ".png"),
    ],
)
def test_a_name_is_a_harmless_one(path: str, filename: str | None, name: str) -> None:
    assert fetch(answer(), path, filename=filename).name == name


# What does not come


@pytest.mark.parametrize("status", [201, 204, 300, 304, 400, 401, 403, 404, 410])
def test_what_is_not_there_is_missing(status: int) -> None:
    error = refused(answer(b"", status=status))
    assert (error.code, error.detail) == (
        "media_missing",
        f"localhost answered {status}",
    )


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_may_come_later_is_unavailable(status: int) -> None:
    assert refused(answer(b"", status=status)).code == "media_unavailable"


def test_a_server_that_says_nothing_is_unavailable() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    error = refused(handler, timeout=0.2)
    assert error.code == "media_unavailable"
    assert error.detail == "localhost did not deliver within 0.2 s"


def test_a_body_that_breaks_off_is_unavailable() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        return response

    assert refused(handler).code == "media_unavailable"


def test_media_comes_from_the_hosts_that_were_named_only() -> None:
    assert fetch(answer(), hosts={"localhost", "127.0.0.1"}).data
    told = refused(answer(), hosts={"example.com"})
    assert (told.code, "media_hosts" in told.detail) == ("media_refused", True)


def test_a_server_that_cannot_prove_its_name_is_unavailable() -> None:
    async def main() -> None:
        async with media_server(answer()) as url:
            fetcher = Fetcher(allowed=is_loopback)
            with pytest.raises(Unsendable) as raised:
                await fetcher.fetch({"type": "image", "url": f"{url}/a.png"})
            await fetcher.close()
            assert raised.value.code == "media_unavailable"

    asyncio.run(main())


def test_what_says_it_is_too_large_is_not_read() -> None:
    error = refused(answer(b"x" * (LIMIT + 1)))
    assert (error.code, error.detail) == ("media_refused", f"larger than {LIMIT} bytes")


def test_what_does_not_say_how_large_it_is_is_read_to_the_limit_only() -> None:
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * LIMIT)
            written += LIMIT
        return response

    assert refused(handler).detail == f"larger than {LIMIT} bytes"
    assert written < 1000 * LIMIT


def test_exactly_the_limit_is_taken() -> None:
    assert len(fetch(answer(b"x" * LIMIT)).data) == LIMIT


def test_what_is_compressed_is_not_blown_up() -> None:
    error = refused(answer(b"\x1f\x8b\x08\x00", encoding="gzip"))
    assert error.code == "media_refused"


# Where it comes from


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "localhost",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
def test_a_url_that_leads_inside_is_refused_before_it_is_connected_to(
    host: str,
) -> None:
    """Without this it would be: each is a spelling of this machine."""

    async def main() -> Unsendable:
        connected = asyncio.Event()
        server = await asyncio.start_server(
            lambda r, w: connected.set(), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        fetcher = Fetcher()
        with pytest.raises(Unsendable) as raised:
            await fetcher.fetch(
                {"type": "image", "url": f"https://{host}:{port}/a.png"}
            )
        await fetcher.close()
        server.close()
        assert not connected.is_set()
        return raised.value

    error = asyncio.run(main())
    assert error.code == "media_refused"
    assert re.search("is no (public address|host name)$", error.detail)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        17,
        "logo.png",
        "//example.com/a.png",
        "http://example.com/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "data:image/png;base64,aaaa",
        "https://",
        "https://[",
        "https://user@example.com/a.png",
        "https://user:pass@example.com/a.png",
    ],
)
def test_what_is_no_plain_https_url_is_refused(url: object) -> None:
    with pytest.raises(Unsendable) as raised:
        asyncio.run(Fetcher().fetch({"type": "image", "url": url}))
    assert raised.value.code == "media_refused"


@pytest.mark.parametrize("kind", [None, "", "file", "sticker", 5])
def test_an_unknown_kind_of_media_is_bad_content(kind: object) -> None:
    with pytest.raises(Unsendable) as raised:
        asyncio.run(Fetcher().fetch({"type": kind, "url": "https://example.com/a"}))
    assert raised.value.code == "content"


def test_a_host_with_one_address_inside_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("8.8.8.8", 443)), (*kind, ("10.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Unsendable, match="no public address"):
        asyncio.run(Fetcher().fetch({"type": "image", "url": "https://a.example/a"}))


def test_a_host_is_connected_to_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the second answer, had anybody asked, leads inside."""
    answers = ["127.0.0.1", "127.0.0.2"]
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host == "localhost":
            host = answers.pop(0)
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert fetch(answer()).data == PICTURE
    assert answers == ["127.0.0.2"]


# Redirects


def redirect(*to: str) -> tuple[Handler, list[str]]:
    """A handler that leads on from one place to the next, and what it was asked."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if len(asked) > len(to):
            return await answer()(request)
        return web.Response(status=302, headers={"Location": to[len(asked) - 1]})

    return handler, asked


def test_a_redirect_is_followed() -> None:
    handler, asked = redirect("/b", "../c/d.png")
    assert fetch(handler, path="/a/a.png").name == "d.png"
    assert asked == ["/a/a.png", "/b", "/c/d.png"]


@pytest.mark.parametrize(
    "inside",
    [
        "https://127.0.0.2/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://169.254.169.254/latest/meta-data",
        "http://localhost/a.png",
        "file:///etc/passwd",
        "https://[",
    ],
)
def test_a_redirect_that_leads_inside_is_refused(inside: str) -> None:
    handler, asked = redirect(inside)
    assert refused(handler).code == "media_refused"
    assert len(asked) == 1


def test_redirects_are_followed_so_many_times_only() -> None:
    handler, asked = redirect(*["/again"] * 99)
    error = refused(handler)
    assert error.code == "media_refused"
    assert len(asked) == REDIRECTS + 1
