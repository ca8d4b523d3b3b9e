"""What strangers may do to the server: over real sockets, and it goes on serving."""

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

import hooks
import stage
from hooks import Served
from pgdrip.inbound.app import create_app
from pgdrip.inbound.limits import Latest, RateLimit
from pgdrip.inbound.server import DeadlineProtocol
from stage import Db

MEGABYTE = 1024 * 1024
ACK = {"event": "message.ack", "payload": {"ids": [], "receipt_type": "read"}}
HEADERS = {"Content-Type": hooks.JSON}
PATH = "/hooks/gowa"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hooks.SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def served(dsn: str, db: Db, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that waits half a second for a body, one second for a request; it must
    still serve when the test is over, and have stored nothing."""
    monkeypatch.setattr(DeadlineProtocol, "seconds", 1.0)
    settings = hooks.settings(dsn, body_seconds=0.5)
    with stage.unchanged(db), hooks.served(create_app(settings)) as found:
        yield found
        assert found.post(hooks.gowa(ACK)).status == 200


def head(*lines: str) -> bytes:
    start = (f"POST {PATH} HTTP/1.1", "Host: localhost", "Content-Type: " + hooks.JSON)
    return "\r\n".join([*start, *lines, "", ""]).encode()


def everything(wire: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    answer = b""
    while part := wire.recv(65536):
        answer += part
    return answer


# Size


def test_a_body_that_says_it_is_too_large_is_refused_unread(served: Served) -> None:
    with served.wire() as wire:
        wire.sendall(head(f"Content-Length: {50 * MEGABYTE}"))
        assert wire.recv(100).startswith(b"HTTP/1.1 413")


def test_who_sends_50_megabytes_all_the_same_can_read_the_answer(
    served: Served,
) -> None:
    answer = served.ask("POST", PATH, bytes(50 * MEGABYTE), HEADERS)
    assert answer.status == 413


def test_a_body_that_does_not_say_its_size_is_cut_at_the_limit(served: Served) -> None:
    chunks = (bytes(MEGABYTE // 4) for _ in range(200))
    assert served.ask("POST", PATH, chunks, HEADERS).status == 413


def test_a_body_as_large_as_the_limit_is_read(served: Served) -> None:
    body = json.dumps(ACK).encode()
    full = body + b" " * (MEGABYTE - len(body))
    assert served.post(hooks.gowa(full)).status == 200
    assert served.post(hooks.gowa(full + b" ")).status == 413


def test_endless_headers_are_refused(served: Served) -> None:
    with served.wire() as wire:
        wire.sendall(head(*(f"X-{number}: {'x' * 1000}" for number in range(40)))[:-2])
        assert wire.recv(100).startswith(b"HTTP/1.1 400")


# Time


def test_a_slow_body_is_answered_408(served: Served) -> None:
    with served.wire() as wire:
        wire.sendall(head("Content-Length: 100") + b"{")
        assert everything(wire).startswith(b"HTTP/1.1 408")


def test_headers_byte_by_byte_are_answered_408(served: Served) -> None:
    with served.wire() as wire:
        wire.settimeout(0.1)
        answer = b""
        for byte in head("Content-Length: 2") * 100:
            try:
                wire.sendall(bytes([byte]))
                answer += wire.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            break
        assert answer.startswith(b"HTTP/1.1 408")


def test_who_connects_and_says_nothing_is_let_go(served: Served) -> None:
    with served.wire() as wire:
        assert everything(wire).startswith(b"HTTP/1.1 408")


def test_a_second_request_on_a_connection_has_a_deadline_too(served: Served) -> None:
    with served.wire() as wire:
        wire.sendall(head("Content-Length: 2") + b"{}")
        assert wire.recv(1000).startswith(b"HTTP/1.1 401")
        wire.sendall(b"POST ")
        assert b"HTTP/1.1 408" in everything(wire)


def test_a_refused_body_is_not_drained_for_ever(served: Served) -> None:
    with served.wire() as wire:
        wire.sendall(head(f"Content-Length: {50 * MEGABYTE}"))
        assert everything(wire).startswith(b"HTTP/1.1 413")


def test_a_body_that_ends_before_its_length_stores_nothing(served: Served) -> None:
    jid = "60110000001@s.whatsapp.net"
    stop = {"id": "A", "from": jid, "chat_id": jid, "body": "STOP"}
    signed = hooks.gowa({"event": "message", "payload": stop})
    given = [f"{name}: {value}" for name, value in signed.headers.items()]
    with served.wire() as wire:
        length = f"Content-Length: {len(signed.body) + 1}"
        wire.sendall(head(*given[1:], length) + signed.body)
        wire.shutdown(socket.SHUT_WR)
        answer = everything(wire)
    assert b" 200 " not in answer.partition(b"\r\n")[0]


# Form


def test_a_gzip_bomb_is_refused_before_it_grows(served: Served) -> None:
    bomb = gzip.compress(bytes(50 * MEGABYTE))
    assert len(bomb) < MEGABYTE
    packed = {"Content-Encoding": "gzip"}
    assert served.post(hooks.gowa(bomb, **packed)).status == 413
    assert served.ask("POST", PATH, bomb, HEADERS | packed).status == 413


def test_a_packed_body_is_read_when_it_is_signed_as_packed(served: Served) -> None:
    body = json.dumps(ACK).encode()
    packed = hooks.gowa(gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert served.post(packed).json() == {"accepted": 0, "rejected": 0, "ignored": 0}
    signed_before = hooks.gowa(body, **{"Content-Encoding": "gzip"})
    assert served.post(replace(signed_before, body=packed.body)).status == 401


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"{}" * 50)[:-9], gzip.compress(b"{}") * 2],
    ids=["none", "cut short", "twice"],
)
def test_a_packed_body_that_is_broken_is_refused(served: Served, body: bytes) -> None:
    packed = hooks.gowa(body, **{"Content-Encoding": "gzip"})
    assert served.post(packed).status == 400


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip"])
def test_another_content_encoding_is_refused(served: Served, encoding: str) -> None:
    body = zlib.compress(json.dumps(ACK).encode())
    answer = served.post(hooks.gowa(body, **{"Content-Encoding": encoding}))
    assert answer.status == 415
    assert answer.headers["accept-encoding"] == "gzip, identity"


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (PATH, hooks.FORM),
        (PATH, "text/plain"),
        (PATH, "application/json-patch+json"),
        (PATH, ""),
        ("/hooks/twilio", hooks.JSON),
        ("/hooks/webhook", "multipart/form-data; boundary=x"),
    ],
)
def test_another_content_type_is_refused(served: Served, path: str, given: str) -> None:
    answer = served.ask("POST", path, b"{}", {"Content-Type": given})
    assert answer.status == 415


def test_a_content_type_may_have_parameters(served: Served) -> None:
    signed = hooks.gowa(ACK)
    named = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert served.post(replace(signed, headers=signed.headers | named)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"17",
        b"\xff\xfe{}",
        b'{"event": NaN}',
        b'{"event": ' + b"9" * 5000 + b"}",
        b'{"event": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"event": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"event":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=range(10),
)
def test_what_is_no_flat_json_object_is_refused(served: Served, body: bytes) -> None:
    assert served.post(hooks.gowa(body)).status == 400


# Number


def test_who_asks_too_often_is_told_to_wait(dsn: str) -> None:
    with hooks.served(create_app(hooks.settings(dsn, rate=1))) as served:
        answers = [served.post(hooks.gowa(ACK)) for _ in range(6)]
    assert [answer.status for answer in answers][:2] == [200, 200]
    assert answers[-1].status == 429
    assert answers[-1].headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("trusted", "statuses"), [(("127.0.0.1",), {200}), ((), {200, 429})]
)
def test_the_client_is_whom_a_trusted_proxy_names(
    dsn: str, trusted: tuple[str, ...], statuses: set[int]
) -> None:
    app = create_app(hooks.settings(dsn, rate=1))
    with hooks.served(app, trusted_proxies=trusted) as served:
        found = {
            served.post(
                hooks.gowa(ACK, **{"X-Forwarded-For": f"192.0.2.{client}"})
            ).status
            for client in range(1, 9)
        }
    assert found == statuses


def test_each_client_has_a_rate_of_its_own() -> None:
    now = 0.0
    limit = RateLimit(2, clock=lambda: now)
    assert [limit.admits("192.0.2.1") for _ in range(6)] == [True] * 4 + [False] * 2
    assert limit.admits("192.0.2.2")
    now = 1.0
    assert [limit.admits("192.0.2.1") for _ in range(3)] == [True, True, False]
    now = 100.0
    assert [limit.admits("192.0.2.1") for _ in range(5)] == [True] * 4 + [False]


def test_an_ipv6_network_is_one_client() -> None:
    limit = RateLimit(1, clock=lambda: 0.0)
    asked = [limit.admits(f"2001:db8:0:1::{host:x}") for host in range(3)]
    assert asked == [True, True, False]
    assert limit.admits("2001:db8:0:2::1")
    assert limit.admits("::ffff:192.0.2.1")
    assert limit.admits("::ffff:192.0.2.1")
    assert not limit.admits("192.0.2.1")


def test_only_the_latest_are_remembered() -> None:
    latest: Latest[int] = Latest(2)
    for number, key in enumerate(["a", "b", "a", "c"]):
        latest.keep(key, number)
    assert (latest.get("a"), latest.get("b"), latest.get("c")) == (2, None, 3)
    assert len(latest) == 2
