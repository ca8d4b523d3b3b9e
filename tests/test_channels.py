"""Channels against real servers and files: what was sent, and what they make of it."""

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pgdrip import channels
from pgdrip.channels import Failed, Outcome, Sent, Uncertain, open_channels
from pgdrip.channels.http import ANSWER_LIMIT, DETAIL_LIMIT
from pgdrip.channels.log import LogChannel
from pgdrip.channels.webhook import WebhookChannel
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
MESSAGE = ClaimedMessage(
    enrollment_id=7,
    token=1099511627777,
    sequence="WARM Sequence",
    step=3,
    attempt=1,
    channel="webhook",
    sender="device-0001",
    sender_config={},
    recipient="+60110000007",
    subject=None,
    body="Hi Zoë 👋",
    content=None,
    idempotency_key="7:3",
    due_at=NOW,
    send_by=NOW,
    lease_until=NOW,
)
QUICK = aiohttp.ClientTimeout(total=0.3, connect=0.2)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def to(config: dict[str, Any]) -> ClaimedMessage:
    return replace(MESSAGE, sender_config=config)


@asynccontextmanager
async def http_server(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server that answers every request by `handler`; its URL."""
    application = web.Application(client_max_size=1024)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[str]:
    """A server that talks bytes; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/"
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


async def post(url: object, timeout: aiohttp.ClientTimeout = QUICK) -> Outcome:
    channel = WebhookChannel(timeout)
    try:
        return await channel.send(to({"url": url}))
    finally:
        await channel.close()


def post_to_http(handler: Handler) -> Outcome:
    async def main() -> Outcome:
        async with http_server(handler) as url:
            return await post(url)

    return asyncio.run(main())


def post_to_raw(talk: Talk) -> Outcome:
    async def main() -> Outcome:
        async with raw_server(talk) as url:
            return await post(url)

    return asyncio.run(main())


def answer(
    status: int, body: str = "", headers: dict[str, str] | None = None
) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    return handler


# What goes over the wire


def test_webhook_posts_the_message_as_json_with_its_key_as_header() -> None:
    got: list[tuple[str, str, str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        kind = request.content_type
        got.append((request.method, kind, key, await request.json()))
        return web.Response()

    assert post_to_http(handler) == Sent(None)
    [(method, kind, key, body)] = got
    assert (method, kind, key) == ("POST", "application/json", "7:3")
    assert body == {
        "idempotency_key": "7:3",
        "enrollment_id": 7,
        "sequence": "WARM Sequence",
        "step": 3,
        "attempt": 1,
        "sender": "device-0001",
        "recipient": "+60110000007",
        "subject": None,
        "body": "Hi Zoë 👋",
        "content": None,
        "due_at": "2026-01-05T09:00:00+00:00",
    }


def test_webhook_never_shows_the_sender_config_or_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("HOOK_SECRET", "c2VjcmV0")

    async def handler(request: web.Request) -> web.Response:
        seen.append(await request.text() + str(dict(request.headers)))
        return web.Response()

    async def main() -> None:
        async with http_server(handler) as url:
            channel = WebhookChannel(QUICK)
            await channel.send(to({"url": url, "secret": "HOOK_SECRET"}))
            await channel.close()

    asyncio.run(main())
    assert "HOOK_SECRET" not in seen[0]
    assert "c2VjcmV0" not in seen[0]
    assert str(MESSAGE.token) not in seen[0]


def test_webhook_sends_many_at_once_over_one_session() -> None:
    opened: set[object] = set()

    async def handler(request: web.Request) -> web.Response:
        opened.add(request.transport)
        await asyncio.sleep(0.02)
        return web.Response()

    async def main() -> list[Outcome]:
        async with http_server(handler) as url:
            channel = WebhookChannel()
            rounds = [
                await asyncio.gather(
                    *(channel.send(to({"url": url})) for _ in range(150))
                )
                for _ in range(2)
            ]
            await channel.close()
            return [outcome for outcomes in rounds for outcome in outcomes]

    assert asyncio.run(main()) == [Sent(None)] * 300
    assert len(opened) == 150


def test_webhook_keeps_no_cookies_between_senders() -> None:
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    async def main() -> None:
        async with http_server(handler) as url:
            url = url.replace("127.0.0.1", "localhost")  # addresses keep none anyway
            channel = WebhookChannel(QUICK)
            await channel.send(to({"url": url}))
            await channel.send(to({"url": url}))
            await channel.close()

    asyncio.run(main())
    assert cookies == [None, None]


# What the answer means


@pytest.mark.parametrize(
    ("body", "provider_id"),
    [
        ('{"id": "abc"}', "abc"),
        ('{"message_id": 17}', "17"),
        ('{"id": null, "message_id": "m"}', "m"),
        ('{"id": true}', None),
        ('{"id": {"no": 1}}', None),
        ('["id"]', None),
        ("OK", None),
        ("", None),
        ("[" * 50_000, None),
        ('{"id": "' + "x" * 300 + '"}', "x" * 255),
    ],
)
def test_a_2xx_is_sent_with_the_provider_id_if_there_is_one(
    body: str, provider_id: str | None
) -> None:
    assert post_to_http(answer(202, body)) == Sent(provider_id)


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 410, 413, 415, 422, 429, 500, 502, 503]
)
def test_any_other_status_failed_with_the_status_as_code(status: int) -> None:
    outcome = post_to_http(answer(status, "no such device"))
    assert outcome == Failed(f"http_{status}", "no such device")


def test_a_failure_without_a_body_tells_the_reason_phrase() -> None:
    assert post_to_http(answer(503)) == Failed("http_503", "Service Unavailable")


def test_the_detail_of_a_failure_is_cut() -> None:
    outcome = post_to_http(answer(400, "é" * 5000))
    assert outcome == Failed("http_400", "é" * DETAIL_LIMIT)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    requests: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    outcome = post_to_http(handler)
    assert isinstance(outcome, Failed)
    assert outcome.code == f"http_{status}"
    assert requests == ["/hook"]


def test_a_huge_answer_is_read_to_its_limit_only() -> None:
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2000):
            await response.write(b"x" * ANSWER_LIMIT)
            written += ANSWER_LIMIT
        return response

    assert post_to_http(handler) == Sent(None)
    assert written < 1000 * ANSWER_LIMIT


def test_a_compressed_answer_is_not_blown_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"accept-encoding: identity" in request.lower()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
        )
        await writer.drain()

    assert post_to_raw(talk) == Sent(None)


def test_a_2xx_stands_though_its_body_breaks_off() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id":')
        await writer.drain()

    assert post_to_raw(talk) == Sent(None)


def test_a_2xx_stands_though_its_body_never_ends() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(1)

    assert post_to_raw(talk) == Sent(None)


# No answer


def test_a_refused_connection_is_transient() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        outcome = asyncio.run(post(f"http://127.0.0.1:{port}/"))
    assert outcome == Failed("transient", "no connection: ClientConnectorError")


def test_a_name_that_does_not_resolve_is_transient() -> None:
    slow = aiohttp.ClientTimeout(total=20, connect=10)
    outcome = asyncio.run(post("http://nowhere.invalid/", slow))
    assert isinstance(outcome, Failed)
    assert outcome.code == "transient"


def test_a_connection_that_takes_too_long_is_transient() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]  # more than the backlog takes
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        outcome = asyncio.run(post(f"http://127.0.0.1:{port}/"))
        for one in waiting:
            one.close()
    assert outcome == Failed("transient", "no connection: ConnectionTimeoutError")


def test_a_plain_server_where_tls_is_asked_for_is_transient() -> None:
    async def main() -> Outcome:
        async with http_server(answer(200)) as url:
            return await post(url.replace("http:", "https:"))

    outcome = asyncio.run(main())
    assert isinstance(outcome, Failed)
    assert outcome.code == "transient"


def test_a_slow_answer_is_uncertain() -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(1)
        return web.Response()

    assert post_to_http(handler) == Uncertain("no answer: TimeoutError")


def test_a_connection_closed_before_the_request_is_read_is_uncertain() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return None

    assert isinstance(post_to_raw(talk), Uncertain)


def test_a_connection_closed_after_the_request_is_read_is_uncertain() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    assert post_to_raw(talk) == Uncertain("no answer: ServerDisconnectedError")


def test_a_connection_reset_after_the_request_is_read_is_uncertain() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    assert isinstance(post_to_raw(talk), Uncertain)


def test_an_answer_that_is_no_http_is_uncertain() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"\x00\xff garbage\r\n\r\n")
        await writer.drain()

    assert isinstance(post_to_raw(talk), Uncertain)


@pytest.mark.parametrize(
    "url", [None, "", "no url", "ftp://example.com/", "http://", "http://[", 17]
)
def test_a_sender_without_a_usable_url_is_at_fault(url: object) -> None:
    outcome = asyncio.run(post(url))
    assert outcome == Failed("sender", "the sender's config has no http(s) url")


# The log


def test_log_appends_one_json_line_per_message(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"

    async def main() -> list[Outcome]:
        channel = LogChannel()
        sends = [channel.send(to({"file": str(path)})) for _ in range(3)]
        return [await send for send in sends]

    assert asyncio.run(main()) == [Sent(None)] * 3
    lines = path.read_text().splitlines()
    assert [json.loads(line)["idempotency_key"] for line in lines] == ["7:3"] * 3
    assert json.loads(lines[0])["body"] == "Hi Zoë 👋"


def test_log_writes_to_standard_output_without_a_file(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert asyncio.run(LogChannel().send(to({}))) == Sent(None)
    assert json.loads(capfd.readouterr().out)["recipient"] == "+60110000007"


def test_log_blames_the_sender_for_a_standard_output_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        for stdout in (pipe, None):
            monkeypatch.setattr(sys, "stdout", stdout)
            outcome = asyncio.run(LogChannel().send(to({})))
            assert isinstance(outcome, Failed)
            assert outcome.code == "sender"


@pytest.mark.parametrize("file", ["", "/nowhere/at/all", "/", "a\0b", 2, 3.5, ["x"]])
def test_log_blames_the_sender_for_a_file_that_cannot_be_written(file: object) -> None:
    outcome = asyncio.run(LogChannel().send(to({"file": file})))
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"


def test_log_is_uncertain_of_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        outcome = asyncio.run(LogChannel().send(to({"file": str(path)})))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome == Uncertain("the file took a part of the line only")
    assert path.stat().st_size == 100


# The registry


def install(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, str]) -> None:
    """Make these the installed channels: name and what the entry point names."""
    points = [EntryPoint(name, value, channels.GROUP) for name, value in found]
    monkeypatch.setattr(channels, "entry_points", lambda group: points)


class Pigeon:
    """A channel as someone else's package has it."""

    async def send(self, message: ClaimedMessage) -> Outcome:
        return Sent(f"pigeon-{message.idempotency_key}")

    async def close(self) -> None:
        return None


class Broken:
    def __init__(self) -> None:
        raise OSError("no such pigeon")


def test_the_built_in_channels_are_installed() -> None:
    opened = open_channels()
    assert isinstance(opened["log"], LogChannel)
    assert isinstance(opened["webhook"], WebhookChannel)


def test_only_the_named_channels_are_opened() -> None:
    assert list(open_channels(["webhook", "webhook"])) == ["webhook"]


def test_another_package_adds_a_channel_by_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, ("pigeon", f"{__name__}:Pigeon"))
    pigeon = open_channels(["pigeon"])["pigeon"]
    assert asyncio.run(pigeon.send(MESSAGE)) == Sent("pigeon-7:3")


def test_an_unknown_channel_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match="no channel is called pidgin"
    ) as refused:
        open_channels(["log", "pidgin"])
    assert "log" in str(refused.value.hint)


class Stubborn(Pigeon):
    """A channel that does not close as it should."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    async def close(self) -> None:
        if self._error:
            raise self._error
        await asyncio.Event().wait()


def test_a_channel_that_does_not_close_is_no_bar_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = asyncio.Event()

    class Last(Pigeon):
        async def close(self) -> None:
            closed.set()

    monkeypatch.setattr(channels, "CLOSE_TIMEOUT", 0.01)
    opened = {"a": Stubborn(ValueError()), "b": Stubborn(), "c": Last()}
    asyncio.run(channels.close_channels(opened))
    assert closed.is_set()


def test_two_channels_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("pigeon", f"{__name__}:Pigeon"), ("pigeon", "other:Pigeon"))
    with pytest.raises(ConfigurationError, match="two channels are called pigeon"):
        open_channels(["pigeon"])


@pytest.mark.parametrize("value", ["nowhere:Pigeon", "test_channels:Broken"])
def test_a_channel_that_cannot_be_loaded_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    install(monkeypatch, ("pigeon", value))
    with pytest.raises(ConfigurationError, match="channel pigeon cannot be loaded"):
        open_channels()
