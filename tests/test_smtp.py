"""The smtp channel against a real mail server: what it says, and what we make of it."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailserver import PASSWORD, USER, Authority, MailServer, Script, mail_server
from pgdrip import submission
from pgdrip.channels import Down, Failed, Outcome, Probing, Sent, Uncertain, Up
from pgdrip.channels import smtp as module
from pgdrip.channels.smtp import SmtpChannel
from pgdrip.engine import ClaimedMessage, KnownSender
from pgdrip.media import Fetcher
from pgdrip.runner import Runner
from stage import Db, lead, one, sender, sequence, violations
from test_media import AUTHORITY, PICTURE, answer, is_loopback, media_server

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
MESSAGE = ClaimedMessage(
    enrollment_id=7,
    token=1099511627777,
    sequence="WARM Sequence",
    step=3,
    attempt=1,
    channel="smtp",
    sender="desk",
    sender_config={},
    recipient="aisyah@example.org",
    subject="Your question",
    body="Hi Aisyah",
    content=None,
    idempotency_key="7:3",
    due_at=NOW,
    send_by=NOW,
    lease_until=NOW,
)
LONG = ("x" * 70 + "\n") * 250_000  # bytes; more than the kernel takes from us unread
Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def to(server: MailServer, **config: Any) -> ClaimedMessage:
    return replace(MESSAGE, sender_config=server.config | config)


def send(
    script: Script,
    timeout: float = 5,
    config: dict[str, Any] | None = None,
    **change: Any,
) -> tuple[Outcome, MailServer]:
    """The outcome of one message, and the server it was for."""

    async def main() -> tuple[Outcome, MailServer]:
        async with mail_server(script) as server:
            channel = SmtpChannel(timeout=timeout)
            try:
                message = replace(to(server, **(config or {})), **change)
                return await channel.send(message), server
            finally:
                await channel.close()

    return asyncio.run(main())


def send_raw(converse: Converse, **config: Any) -> Outcome:
    """The outcome of one message for a server that talks bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        finally:
            writer.close()

    async def main() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        told = MailServer(Script(), port=server.sockets[0].getsockname()[1])
        channel = SmtpChannel(timeout=2)
        try:
            return await channel.send(to(told, **config))
        finally:
            await channel.close()
            server.close()

    return asyncio.run(main())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The config of somebody who may log in."""
    monkeypatch.setenv("MAIL_SECRET", PASSWORD)
    return {"username": USER, "secret": "MAIL_SECRET"}


# What is handed in


def test_a_message_is_handed_in_and_told_by_our_own_message_id() -> None:
    outcome, server = send(Script())
    [got] = server.received
    assert (got.sender, got.recipient) == ("desk@example.com", "aisyah@example.org")
    assert got.mail["Subject"] == "Your question"
    assert got.mail.get_content() == "Hi Aisyah\r\n"
    assert outcome == Sent(got.mail["Message-ID"])


def test_a_line_with_a_dot_does_not_end_the_message() -> None:
    outcome, server = send(Script(), body="one\n.\n..two\n.three\r\n.\r\nQUIT")
    assert isinstance(outcome, Sent)
    text = server.received[0].mail.get_content()
    assert text == "one\r\n.\r\n..two\r\n.three\r\n.\r\nQUIT\r\n"


def test_an_address_beyond_ascii_is_handed_in_as_it_is() -> None:
    _, server = send(Script(), recipient="jürgen@bücher.example")
    [got] = server.received
    assert got.recipient == "jürgen@xn--bcher-kva.example"
    assert "To: jürgen@xn--bcher-kva.example\r\n".encode() in got.raw


def test_an_address_beyond_ascii_is_at_fault_where_the_server_takes_none() -> None:
    outcome, _ = send(Script(has_utf8=False), recipient="jürgen@a.example")
    told = "the server takes addresses in ASCII only"
    assert outcome == Failed("rcpt_5.6.7", told)
    outcome, _ = send(Script(has_utf8=False), config={"from": "zoë@a.example"})
    assert outcome == Failed("sender", told)


def test_media_of_a_step_are_fetched_and_attached() -> None:
    async def main() -> tuple[Outcome, MailServer]:
        async with media_server(answer()) as url, mail_server() as server:
            channel = SmtpChannel(
                fetcher=Fetcher(allowed=is_loopback, tls=AUTHORITY.client())
            )
            media = {"type": "image", "url": f"{url}/logo.png"}
            message = replace(to(server), content={"media": media})
            outcome = await channel.send(message)
            await channel.close()
            return outcome, server

    outcome, server = asyncio.run(main())
    assert isinstance(outcome, Sent)
    [attached] = server.received[0].mail.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("logo.png", PICTURE)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": "Hi\r\nBcc: victim@example.org"}, "content"),
        ({"recipient": "a@example.org\r\nRCPT TO:<victim@example.org>"}, "contact"),
        ({"recipient": "x<victim@example.org"}, "contact"),
        ({"recipient": "+60123456789"}, "contact"),
        ({"content": {"html": 5}}, "content"),
        ({"content": {"media": "https://example.com/a.png"}}, "content"),
        (
            {"content": {"media": {"type": "image", "url": "http://x/a"}}},
            "media_refused",
        ),
    ],
)
def test_what_cannot_be_mail_fails_before_the_server_hears_of_it(
    change: dict[str, Any], code: str
) -> None:
    outcome, server = send(Script(), **change)
    assert isinstance(outcome, Failed)
    assert outcome.code == code
    assert server.connections == 0


# What the server's replies mean


@pytest.mark.parametrize(
    ("stage", "reply", "code"),
    [
        ("EHLO", "421 4.3.2 closing down", "connect_421"),
        ("EHLO", "454 later", "connect_454"),
        ("MAIL", "451 4.3.0 try again", "mail_451"),
        ("MAIL", "550 5.7.1 not your address", "mail_550"),
        ("MAIL", "552 5.3.4 too large", "mail_552"),
        ("RCPT", "421 4.7.0 busy", "rcpt_421"),
        ("RCPT", "450 4.2.0 greylisted", "rcpt_450"),
        ("RCPT", "471 nobody knows this one", "rcpt_4yz"),
        ("RCPT", "550 5.1.1 no such user", "rcpt_5.1.1"),
        ("RCPT", "552 5.2.2 mailbox full", "rcpt_5.2.2"),
        ("RCPT", "550-5.1.1 no such\r\n550 5.1.1 user", "rcpt_5.1.1"),
        ("RCPT", "554 5.7.1 relay access denied", "rcpt_5.7.1"),
        ("RCPT", "550 5.0.0 says nothing", "rcpt_550"),
        ("RCPT", "550 5.1.10.3 is no status", "rcpt_550"),
        ("RCPT", "550 5.7.999 is unknown", "rcpt_550"),
        ("RCPT", "550 4.1.1 contradicts itself", "rcpt_550"),
        ("RCPT", "550 user unknown", "rcpt_550"),
        ("RCPT", "571 nobody knows this one", "rcpt_5yz"),
        ("DATA", "451 4.3.0 no room", "data_451"),
        ("DATA", "554 no valid recipients", "data_554"),
        ("END", "421 4.3.2 closing down", "data_421"),
        ("END", "451 4.7.1 try again", "data_451"),
        ("END", "552 5.2.3 too large", "data_5.2.3"),
        ("END", "554 5.7.1 looks like spam", "data_5.7.1"),
        ("END", "550 rejected", "data_550"),
    ],
)
def test_a_refusal_is_told_by_its_stage_and_status(
    stage: str, reply: str, code: str
) -> None:
    outcome, server = send(Script(at={stage: reply}))
    words = " ".join(reply.replace("\r\n550 ", " ").replace("-", " ", 1).split())
    assert outcome == Failed(code, words if "-" in reply[:4] else reply)
    assert server.received == []


def test_a_greeting_that_refuses_is_told_by_its_code() -> None:
    async def converse(reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 your address is listed\r\n")
        await writer.drain()

    outcome = send_raw(converse)
    assert outcome == Failed("connect_554", "554 5.7.1 your address is listed")


def test_every_code_of_a_refusal_has_its_rule(db: Db) -> None:
    rules = {
        row["code"]: row["class"]
        for row in db.execute(
            "select code, class from pgdrip.error_rules where channel = 'smtp'"
        )
    }
    replies = submission.REPLIES | {"4yz", "5yz"}
    stages = ("connect", "mail", "rcpt", "data")
    known = {f"{stage}_{reply}" for stage in stages for reply in replies}
    known |= {f"{s}_{status}" for s in stages[2:] for status in submission.STATUSES}
    media = {code for code in rules if code.startswith("media_")}
    assert media == {"media_refused", "media_missing", "media_unavailable"}
    assert rules.keys() - media == known
    # Nothing before the recipient fails a message, but for its own size.
    early = {rules[code] for code in known if code.startswith(("connect", "mail"))}
    assert early == {"sender", "transient", "content"}
    assert {c for c in known if c[:4] == "mail" and rules[c] == "content"} == {
        "mail_552"
    }
    # What will pass by itself is no verdict on anybody.
    fourth = {rules[code] for code in known if "_4" in code and "432" not in code}
    assert fourth == {"sender", "transient"}


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT", "DATA", "BODY"])
def test_a_connection_lost_before_the_final_dot_is_transient(stage: str) -> None:
    """In BODY most of the message is still on this side."""
    outcome, _ = send(
        Script(at={stage: "drop"}), body=LONG if stage == "BODY" else "Hi"
    )
    assert isinstance(outcome, Failed)
    assert outcome.code == "transient"
    assert outcome.reached == (stage != "EHLO")


def test_a_connection_lost_after_the_final_dot_is_uncertain() -> None:
    outcome, _ = send(Script(at={"END": "drop"}))
    assert isinstance(outcome, Uncertain)
    assert outcome.detail.startswith("no reply to the final dot: ")


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT", "DATA", "BODY"])
def test_a_silence_before_the_final_dot_is_transient(stage: str) -> None:
    body, timeout = (LONG, 3.0) if stage == "BODY" else ("Hi", 0.3)
    outcome, _ = send(Script(at={stage: "hang"}), timeout, body=body)
    assert outcome == Failed("transient", "not sent: the server was too slow")


def test_a_silence_after_the_final_dot_is_uncertain() -> None:
    outcome, _ = send(Script(at={"END": "hang"}), timeout=0.3)
    assert outcome == Uncertain("no reply to the final dot in time")


def test_a_server_that_drips_its_reply_is_too_slow_all_the_same() -> None:
    async def converse(reader: Any, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"220-still here\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    outcome = send_raw(converse)
    assert outcome == Failed("transient", "not sent: the server was too slow")


def test_what_was_cut_off_before_the_final_dot_never_goes_out() -> None:
    """The server takes its time over RCPT and lets it pass after all."""

    async def main() -> tuple[Outcome, bytes]:
        rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"220 hi\r\n")
            for reply in (b"250 hi\r\n", b"250 ok\r\n"):
                await reader.readline()
                writer.write(reply)
            await reader.readline()
            await cut.wait()
            writer.write(b"250 ok\r\n354 go ahead\r\n250 queued\r\n")
            rest.set_result(await reader.read())
            writer.close()

        cut = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        told = MailServer(Script(), port=server.sockets[0].getsockname()[1])
        channel = SmtpChannel(timeout=0.3)
        outcome = await channel.send(to(told))
        cut.set()
        said = await rest
        await channel.close()
        server.close()
        return outcome, said

    outcome, said = asyncio.run(main())
    assert isinstance(outcome, Failed)
    assert said == b""


@pytest.mark.parametrize("reply", [b"hello\r\n", b"\x00\xff\r\n", b"199 what\r\n"])
def test_nonsense_before_the_final_dot_is_transient(reply: bytes) -> None:
    async def converse(reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    outcome = send_raw(converse)
    assert isinstance(outcome, Failed)
    assert outcome.code == "transient"


@pytest.mark.parametrize(
    "reply", ["yes", "150 what", "354 more", "x" * 9000, "250-never\r\nends"]
)
def test_nonsense_after_the_final_dot_is_uncertain(reply: str) -> None:
    outcome, _ = send(Script(at={"END": reply}))
    assert isinstance(outcome, Uncertain)


def test_an_overlong_reply_is_cut_in_the_detail() -> None:
    outcome, _ = send(Script(at={"RCPT": "550 " + "é" * 3000}))
    assert isinstance(outcome, Failed)
    assert outcome.detail == "550 " + "é" * (submission.DETAIL_LIMIT - 4)


def test_a_cancelled_send_ends_its_conversation() -> None:
    async def main() -> None:
        async with mail_server(at={"RCPT": "hang"}) as server:
            channel = SmtpChannel()
            send = asyncio.create_task(channel.send(to(server)))
            await server.reached.wait()
            send.cancel()
            with pytest.raises(asyncio.CancelledError):
                await send
            await asyncio.wait_for(server.gone.wait(), 5)
            await channel.close()

    asyncio.run(main())


def test_close_ends_what_was_cancelled_and_leaves_no_thread_behind() -> None:
    async def main() -> None:
        async with mail_server(at={"END": "hang"}) as server:
            channel = SmtpChannel()
            send = asyncio.create_task(channel.send(to(server)))
            await server.reached.wait()
            send.cancel()
            await channel.close()

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("smtp"):
            thread.join(5)
            assert not thread.is_alive()


# No connection


def test_a_refused_connection_is_transient() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        told = MailServer(Script(), port=reserved.getsockname()[1])
        outcome = asyncio.run(SmtpChannel().send(to(told)))
    assert isinstance(outcome, Failed)
    assert outcome == Failed("transient", "no connection: ConnectionRefusedError")
    assert not outcome.reached


def test_a_name_that_does_not_resolve_is_transient() -> None:
    told = MailServer(Script(), port=25)
    outcome = asyncio.run(SmtpChannel().send(to(told, host="nowhere.invalid")))
    assert outcome == Failed("transient", "no connection: gaierror")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"host": None}, "no host"),
        ({"host": "a b"}, "no host"),
        ({"host": "a..example"}, "host"),
        ({"host": "a" * 64}, "host"),
        ({"port": 0}, "port"),
        ({"port": "mail"}, "port"),
        ({"tls": "maybe"}, "tls"),
        ({"from": "nobody"}, "from"),
        ({"from": "a@example.com, b@example.com"}, "from"),
        ({"from": "Desk\r\nBcc: x <a@example.com>"}, "from"),
        ({"reply_to": "nobody"}, "reply_to"),
        ({"helo": "a b"}, "helo"),
        ({"username": "desk"}, "username and secret"),
        ({"username": "desk", "secret": "NO_SUCH_SECRET"}, "NO_SUCH_SECRET"),
        ({"unsubscribe_url": "http://example.com/u"}, "unsubscribe_url"),
        ({"unsubscribe_url": "https://example.com/u>\r\nX: y"}, "unsubscribe_url"),
        ({"unsubscribe_url": "https://example.com/u?a=1"}, "unsubscribe_url"),
        ({"unsubscribe_url": "https://example.com/u"}, "PGDRIP_UNSUBSCRIBE_SECRET"),
        ({"hots": "mail.example.com"}, "hots"),
        ({"tls": "implicit", "ca_file": "/nowhere/at/all"}, "ca_file"),
    ],
)
def test_a_config_that_cannot_be_used_blames_the_sender(
    config: dict[str, Any], told: str
) -> None:
    outcome, _ = send(Script(), config=config)
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"
    assert told in str(outcome.detail)


# TLS and login


def offering(tls: str, authority: Authority) -> Script:
    """A script of TLS and login."""
    script = Script(has_login=True)
    setattr(script, tls, authority.context)
    return script


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_goes_under_tls_to_a_server_that_is_who_it_says(
    tls: str, tmp_path: Path, secret: dict[str, str]
) -> None:
    authority = Authority()
    ca_file = authority.write(tmp_path / "ca.pem")
    script = offering(tls, authority)
    outcome, server = send(script, config=secret | {"tls": tls, "ca_file": ca_file})
    assert isinstance(outcome, Sent)
    assert len(server.received) == 1


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("name", ["127.0.0.1", "other.example"])
def test_a_certificate_of_a_stranger_or_for_another_name_stops_it(
    tls: str, name: str, tmp_path: Path, secret: dict[str, str]
) -> None:
    authority = Authority(name)
    trusted = authority if name == "other.example" else Authority()
    ca_file = trusted.write(tmp_path / "ca.pem")
    script = offering(tls, authority)
    outcome, server = send(script, config=secret | {"tls": tls, "ca_file": ca_file})
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"
    assert str(outcome.detail).startswith("certificate: ")
    assert "MAIL" not in server.commands


def test_without_the_starttls_that_is_asked_for_nothing_is_said_ever() -> None:
    async def main() -> tuple[list[Outcome], MailServer]:
        async with mail_server() as server:
            channel = SmtpChannel()
            message = to(server, tls="starttls")
            outcomes = [await channel.send(message) for _ in range(3)]
            await channel.close()
            return outcomes, server

    outcomes, server = asyncio.run(main())
    assert outcomes == [Failed("sender", "the server offers no STARTTLS")] * 3
    assert "MAIL" not in server.commands


def test_what_a_stranger_slips_in_before_tls_is_not_heard(tmp_path: Path) -> None:
    """RFC 3207 4.2: replies sent in the clear must not count under TLS."""
    authority = Authority()

    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for reply in (b"220 hi", b"250-hi\r\n250 STARTTLS"):
            writer.write(reply + b"\r\n")
            await reader.readline()
        writer.write(b"220 go\r\n" + b"250 slipped in\r\n" * 9)
        await writer.start_tls(authority.context)
        for reply in (b"250 hi", b"550 told under TLS"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        await writer.drain()

    ca_file = authority.write(tmp_path / "ca.pem")
    outcome = send_raw(converse, tls="starttls", ca_file=ca_file)
    assert outcome == Failed("mail_550", "550 told under TLS")


def test_a_plain_server_where_tls_is_asked_for_is_transient() -> None:
    outcome, _ = send(Script(), 2, {"tls": "implicit"})
    assert isinstance(outcome, Failed)
    assert outcome.code == "transient"


def test_a_wrong_password_is_the_senders_and_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAIL_SECRET", "hunter2hunter2")
    login = {"username": USER, "secret": "MAIL_SECRET"}
    outcome, server = send(Script(has_login=True), config=login)
    assert isinstance(outcome, Failed)
    assert outcome.code == "connect_535"
    assert "hunter2" not in repr(outcome)
    assert "MAIL" not in server.commands


def test_a_password_the_server_repeats_is_masked(secret: dict[str, str]) -> None:
    script = Script(has_login=True, at={"MAIL": f"550 {PASSWORD} is bad"})
    outcome, _ = send(script, config=secret)
    assert outcome == Failed("mail_550", "550 … is bad")
    script = Script(has_login=True, at={"END": f"354 {PASSWORD} is bad"})
    outcome, _ = send(script, config=secret)
    assert outcome == Uncertain("no reply to the final dot: 354 … is bad")


def test_a_server_that_takes_no_login_where_one_is_asked_for_blames_the_sender(
    secret: dict[str, str],
) -> None:
    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250 hi\r\n")
        await reader.read()

    outcome = send_raw(converse, **secret)
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"


def test_a_server_that_offers_no_login_we_know_blames_the_sender(
    secret: dict[str, str],
) -> None:
    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 AUTH XOAUTH2\r\n")
        await reader.read()

    told = "no login: the server offers none of CRAM-MD5, PLAIN and LOGIN"
    assert send_raw(converse, **secret) == Failed("sender", told)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("454 4.7.0 later", "connect_454"),
        ("534 5.7.9 too weak", "connect_534"),
        ("599 what", "connect_5yz"),
        ("334 abc", "sender"),
        ("250 what", "transient"),
        ("what", "transient"),
    ],
)
def test_a_login_that_does_not_end_well_sends_nothing(
    reply: str, code: str, secret: dict[str, str]
) -> None:
    """334 goes on with a challenge, and this one is no base64."""
    said: list[bytes] = []

    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for line in ("220 hi", "250-hi\r\n250 AUTH CRAM-MD5", reply):
            writer.write(f"{line}\r\n".encode())
            said.append(await reader.readline())
        said.append(await reader.read())

    outcome = send_raw(converse, **secret)
    assert isinstance(outcome, Failed)
    assert outcome.code == code
    assert [line[:4] for line in said if line] == [b"ehlo", b"AUTH"]


def test_a_password_leaves_this_machine_under_tls_only(secret: dict[str, str]) -> None:
    """The machine's own outward address stands for another machine."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
            outward.connect(("192.0.2.1", 9))  # sends nothing
            host = outward.getsockname()[0]
    except OSError:
        pytest.skip("no address but loopback: give this machine a network interface")

    async def main() -> tuple[Outcome, Outcome]:
        async with mail_server(host=host, has_login=True) as server:
            channel = SmtpChannel()
            refused = await channel.send(to(server, **secret))
            without_login = await channel.send(to(server))
            await channel.close()
            return refused, without_login

    refused, without_login = asyncio.run(main())
    assert refused == Failed("sender", "a password goes over the wire under TLS only")
    assert isinstance(without_login, Failed)
    assert without_login.code == "mail_530"


# Connections


def test_a_connection_is_used_again_after_a_reset() -> None:
    async def main() -> MailServer:
        async with mail_server() as server:
            channel = SmtpChannel()
            for _ in range(5):
                assert isinstance(await channel.send(to(server)), Sent)
            await channel.close()
            return server

    server = asyncio.run(main())
    assert server.connections == 1
    assert server.commands.count("RSET") == 4
    assert len(server.received) == 5


def test_a_refused_message_leaves_the_connection_to_the_next() -> None:
    async def main() -> tuple[list[Outcome], MailServer]:
        async with mail_server(at={"RCPT": "550 5.1.1 no such user"}) as server:
            channel = SmtpChannel()
            refused = await channel.send(to(server))
            server.script.at.clear()
            outcomes = [refused, await channel.send(to(server))]
            await channel.close()
            return outcomes, server

    (refused, sent), server = asyncio.run(main())
    assert isinstance(refused, Failed)
    assert isinstance(sent, Sent)
    assert server.connections == 1


@pytest.mark.parametrize("end", ["drop", "421 4.4.2 idle too long"])
def test_a_connection_the_server_gave_up_is_replaced(end: str) -> None:
    async def main() -> tuple[Outcome, MailServer]:
        async with mail_server() as server:
            channel = SmtpChannel()
            await channel.send(to(server))
            server.script.at["RSET"] = end
            outcome = await channel.send(to(server))
            await channel.close()
            return outcome, server

    outcome, server = asyncio.run(main())
    assert isinstance(outcome, Sent)
    assert server.connections == 2
    assert len(server.received) == 2


def test_another_password_gets_a_connection_of_its_own(
    monkeypatch: pytest.MonkeyPatch, secret: dict[str, str]
) -> None:
    async def main() -> tuple[Outcome, Outcome]:
        async with mail_server(has_login=True) as server:
            channel = SmtpChannel()
            good = await channel.send(to(server, **secret))
            monkeypatch.setenv("MAIL_SECRET", "another")
            bad = await channel.send(to(server, **secret))
            await channel.close()
            return good, bad

    good, bad = asyncio.run(main())
    assert isinstance(good, Sent)
    assert isinstance(bad, Failed)


def test_an_idle_connection_is_closed() -> None:
    async def main() -> None:
        async with mail_server() as server:
            channel = SmtpChannel(idle=0.05)
            await channel.send(to(server))
            await asyncio.wait_for(server.gone.wait(), 5)
            assert isinstance(await channel.send(to(server)), Sent)
            assert server.connections == 2
            await channel.close()

    asyncio.run(main())


def test_a_connection_carries_so_many_messages_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REUSES", 3)

    async def main() -> MailServer:
        async with mail_server() as server:
            channel = SmtpChannel()
            for _ in range(7):
                await channel.send(to(server))
            await channel.close()
            return server

    server = asyncio.run(main())
    assert [got.connection for got in server.received] == [1, 1, 1, 2, 2, 2, 3]


def test_close_says_goodbye_to_every_connection() -> None:
    async def main() -> None:
        async with mail_server() as server:
            channel = SmtpChannel()
            await asyncio.gather(*(channel.send(to(server)) for _ in range(8)))
            assert server.connections > 1
            await channel.close()
            await asyncio.wait_for(server.gone.wait(), 5)

    asyncio.run(main())


def test_what_finds_no_free_thread_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS", 2)
    monkeypatch.setattr(module, "QUEUE", 0.05)

    async def main() -> tuple[list[Outcome], MailServer]:
        async with mail_server(at={"END": "hang"}) as server:
            channel = SmtpChannel(timeout=1)
            sends = (channel.send(to(server)) for _ in range(3))
            outcomes = await asyncio.gather(*sends)
            await channel.close()
            return outcomes, server

    outcomes, server = asyncio.run(main())
    told = "not sent: no thread was free for 0.05 s"
    assert outcomes.count(Failed("transient", told)) == 1
    assert server.connections == 2


def test_a_server_that_knows_no_ehlo_is_greeted_the_old_way() -> None:
    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for reply in (b"220 hi", b"502 what", b"250 hi", b"250 ok", b"550 no"):
            writer.write(reply + b"\r\n")
            await reader.readline()

    assert send_raw(converse) == Failed("rcpt_550", "550 no")


# Probing


def probe(script: Script, **config: Any) -> tuple[object, MailServer]:
    async def main() -> tuple[object, MailServer]:
        async with mail_server(script) as server:
            channel = SmtpChannel(timeout=2)
            assert isinstance(channel, Probing)
            known = KnownSender("desk", "smtp", server.config | config, "down")
            health = await channel.probe(known)
            await channel.close()
            return health, server

    return asyncio.run(main())


def test_a_probe_connects_logs_in_and_sends_nothing(secret: dict[str, str]) -> None:
    health, server = probe(Script(has_login=True), **secret)
    assert health == Up()
    assert server.commands == ["EHLO", "NOOP"]


@pytest.mark.parametrize(
    ("script", "config", "told"),
    [
        (Script(at={"EHLO": "554 no"}), {}, "554 no"),
        (Script(at={"NOOP": "421 closing"}), {}, "421 closing"),
        (Script(at={"EHLO": "drop"}), {}, "no connection"),
        (Script(at={"EHLO": "hang"}), {}, "too slow"),
        (Script(), {"tls": "starttls"}, "STARTTLS"),
        (Script(), {"host": None}, "no host"),
    ],
)
def test_a_probe_of_a_sender_that_cannot_send_says_why(
    script: Script, config: dict[str, Any], told: str
) -> None:
    health, _ = probe(script, **config)
    assert isinstance(health, Down)
    assert told in health.detail


# With the engine


def test_mail_goes_out_by_the_runner_and_its_reference_is_kept(
    db: Db, dsn: str
) -> None:
    async def main() -> MailServer:
        async with mail_server() as server:
            sender(db, "desk", channel="smtp", config=server.config)
            text = {
                "subject": "Hi {{name}}",
                "body": "Hello",
                "html": "<p>{{name}}</p>",
            }
            sequence(db, channel="smtp", steps=[{"day": 1} | text])
            lead(db, p_email="aisyah@example.org", p_name="=?utf-8?q?=0ABcc:x@y?= <b>")
            channel = SmtpChannel()
            await Runner(dsn, channels={"smtp": channel}, once=True).run()
            await channel.close()
            return server

    [got] = asyncio.run(main()).received
    assert got.recipient == "aisyah@example.org"
    assert got.mail["Bcc"] is None
    assert got.mail.get_body(("html",)).get_content().startswith("<p>")  # type: ignore[union-attr]
    row = one(db, "select channel, provider_id from pgdrip.provider_refs")
    assert row == {"channel": "smtp", "provider_id": got.mail["Message-ID"]}
    assert violations(db) == []
