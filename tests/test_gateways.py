"""What every HTTP channel makes of what a gateway may do to it."""

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway import (
    MESSAGE,
    Gateway,
    Step,
    answer,
    close_after_reading,
    close_before_reading,
    endless,
    gateway,
    hang,
    hang_after_accept,
    packed,
    raw,
    redirect,
    reset_after_reading,
    send,
)
from pgdrip.channels import Failed, Outcome, Reference, Sent, Uncertain
from pgdrip.channels.gowa import GowaChannel
from pgdrip.channels.http import ANSWER_LIMIT, DETAIL_LIMIT, HttpChannel
from pgdrip.channels.twilio import TwilioChannel
from pgdrip.channels.webhook import WebhookChannel
from pgdrip.channels.whatsapp_cloud import WhatsappCloudChannel

QUICK = aiohttp.ClientTimeout(total=0.3, connect=0.2)
PATIENT = aiohttp.ClientTimeout(total=20, connect=10)
SECRET = "user:5up3r/s3cret"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"


@dataclass(frozen=True, slots=True)
class Kind:
    """A channel, a config it can work with, and what its gateway says of success."""

    make: Callable[[aiohttp.ClientTimeout], HttpChannel]
    config: dict[str, Any]
    success: object

    def send(
        self, *script: Step, timeout: aiohttp.ClientTimeout = PATIENT, **fields: Any
    ) -> Outcome:
        return send(self.make(timeout), *script, config=self.config, **fields)[0]


KINDS = {
    "webhook": Kind(WebhookChannel, {"secret": "KEY"}, {"id": "m-1"}),
    "gowa": Kind(
        GowaChannel,
        {"secret": "GATEWAY_AUTH", "device": "d-1"},
        {"code": "SUCCESS", "results": {"message_id": "m-1"}},
    ),
    "whatsapp_cloud": Kind(
        WhatsappCloudChannel,
        {"secret": "GATEWAY_AUTH", "phone_number_id": "1055"},
        {"messages": [{"id": "m-1"}]},
    ),
    "twilio": Kind(
        TwilioChannel,
        {"secret": "GATEWAY_AUTH", "account_sid": "AC1", "from": "+15005550006"},
        {"sid": "m-1", "status": "queued"},
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_AUTH", SECRET)
    monkeypatch.setenv("KEY", KEY)


def test_a_success_is_sent_under_the_gateways_id(kind: Kind) -> None:
    assert kind.send(answer(200, kind.success)) == Sent("m-1")


def test_a_compressed_success_is_read(kind: Kind) -> None:
    assert kind.send(packed(200, kind.success)) == Sent("m-1")


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_status_without_a_code_is_the_code(kind: Kind, status: int) -> None:
    outcome = kind.send(answer(status, "go away"))
    assert outcome == Failed(f"http_{status}", "go away")


def test_the_wait_a_gateway_asks_for_is_told(kind: Kind) -> None:
    outcome = kind.send(answer(429, "slow down", {"Retry-After": "30"}))
    assert outcome == Failed("http_429", "slow down (Retry-After: 30)")


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_broken_gateway_leaves_a_code_that_nobody_classified(
    kind: Kind, status: int
) -> None:
    outcome = kind.send(answer(status, "<html>oops</html>"))
    assert outcome == Failed(f"http_{status}", "<html>oops</html>")


@pytest.mark.parametrize(
    "step", [hang, hang_after_accept, close_before_reading, close_after_reading]
)
def test_a_request_without_an_answer_is_uncertain(kind: Kind, step: Step) -> None:
    assert isinstance(kind.send(step, timeout=QUICK), Uncertain)


def test_a_reset_after_the_request_is_uncertain(kind: Kind) -> None:
    assert isinstance(kind.send(reset_after_reading), Uncertain)


def test_an_answer_that_is_no_http_is_uncertain(kind: Kind) -> None:
    assert isinstance(kind.send(raw(b"\x00\xff garbage\r\n\r\n")), Uncertain)


def test_a_gateway_out_of_reach_is_transient(kind: Kind) -> None:
    async def main() -> Outcome:
        async with gateway(hang) as made:
            url = made.url
        channel = kind.make(PATIENT)
        config = {**kind.config, "url": url}
        try:
            return await channel.send(replace(MESSAGE, sender_config=config))
        finally:
            await channel.close()

    outcome = asyncio.run(main())
    assert outcome == Failed("transient", "no connection: ClientConnectorError")


@pytest.mark.parametrize(
    "body", [b"", b"<html>login</html>", b"[1]", b'{"ok": 1}', b"[" * 9999, b"\xff\xfe"]
)
@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
def test_a_200_that_says_nothing_is_no_proof(name: str, body: bytes) -> None:
    assert isinstance(KINDS[name].send(answer(200, body)), Uncertain)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_credentials_along(
    kind: Kind, status: int
) -> None:
    async def main() -> tuple[Outcome, int]:
        async with gateway(answer(200, kind.success)) as other:
            async with gateway(redirect(status, f"{other.url}/elsewhere")) as made:
                channel = kind.make(PATIENT)
                config = {**kind.config, "url": made.url}
                outcome = await channel.send(replace(MESSAGE, sender_config=config))
                await channel.close()
            return outcome, other.connections

    outcome, connections = asyncio.run(main())
    assert outcome == Failed(f"http_{status}", "Said So")
    assert connections == 0


def test_a_huge_answer_is_read_to_its_limit(kind: Kind) -> None:
    async def main() -> tuple[Outcome, int]:
        async with gateway(endless(500)) as made:
            channel = kind.make(PATIENT)
            config = {**kind.config, "url": made.url}
            outcome = await channel.send(replace(MESSAGE, sender_config=config))
            await channel.close()
            return outcome, made.written

    outcome, written = asyncio.run(main())
    assert outcome == Failed("http_500", "x" * DETAIL_LIMIT)
    assert written < 300 * ANSWER_LIMIT


def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut(kind: Kind) -> None:
    outcome = kind.send(packed(500, "y" * 50_000_000))
    assert outcome == Failed("http_500", "y" * DETAIL_LIMIT)


def test_connections_are_reused(kind: Kind) -> None:
    async def main() -> tuple[int, int]:
        async with gateway(answer(200, kind.success)) as made:
            channel = kind.make(PATIENT)
            message = replace(MESSAGE, sender_config={**kind.config, "url": made.url})
            for _ in range(5):
                assert await channel.send(message) == Sent("m-1")
            await channel.close()
            return made.connections, len(made.ledger)

    assert asyncio.run(main()) == (1, 5)


@pytest.mark.parametrize("code", [[1], {"a": 1}, 1.5, True, None])
@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
def test_a_code_that_is_none_is_the_status(name: str, code: object) -> None:
    said = {"code": code, "message": "no", "error": {"code": code, "message": "no"}}
    assert KINDS[name].send(answer(400, said)) == Failed("http_400", "no")


# Secrets


def test_a_secret_that_a_gateway_echoes_is_in_no_detail(kind: Kind) -> None:
    seen: list[str] = []

    async def echo(made: Gateway, reader: StreamReader, writer: StreamWriter) -> bool:
        taken = await made.take(reader)
        seen.append(taken.headers.get("authorization", "").partition(" ")[2])
        text = f"refused {SECRET} {KEY} {seen}"
        lines = f"Content-Length: {len(text)}\r\nRetry-After: {SECRET} {KEY}"
        head = f"HTTP/1.1 400 {SECRET} {KEY}\r\n{lines}\r\n\r\n"
        writer.write(f"{head}{text}".encode())
        await writer.drain()
        return False

    outcome = kind.send(echo)
    assert isinstance(outcome, Failed)
    assert outcome.detail
    assert outcome.detail.startswith("refused")
    assert "Retry-After" in outcome.detail
    secret = KEY if kind is KINDS["webhook"] else SECRET
    assert secret not in str(outcome)
    assert not seen[0] or seen[0] not in str(outcome)


@pytest.mark.parametrize("name", ["gowa", "twilio"])
def test_a_password_alone_is_masked_too(name: str) -> None:
    password = SECRET.partition(":")[2]
    outcome = KINDS[name].send(answer(400, f"no such password: {password}"))
    assert outcome == Failed("http_400", "no such password: …")


def test_a_password_that_is_a_word_of_the_answer_spoils_no_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_AUTH", "SUCCESS:message_id")
    assert KINDS["gowa"].send(answer(200, KINDS["gowa"].success)) == Sent("m-1")


def test_a_secret_in_the_place_of_a_code_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_AUTH", "jane:longpassword")
    for code, told in (("bad-longpassword", "http_400"), ("BAD_LOGIN", "BAD_LOGIN")):
        said = {"code": code, "message": "no"}
        assert KINDS["gowa"].send(answer(400, said)) == Failed(told, "no")


def test_no_part_of_a_secret_is_left_where_a_detail_is_cut(kind: Kind) -> None:
    secret = KEY if kind is KINDS["webhook"] else SECRET
    for before in range(DETAIL_LIMIT - len(secret), DETAIL_LIMIT, 3):
        outcome = kind.send(answer(400, "x" * before + secret))
        assert isinstance(outcome, Failed)
        assert outcome.detail == "x" * before + "…"


@pytest.mark.parametrize("name", ["NO_SUCH_SECRET", "/no/such/file"])
def test_a_secret_that_is_missing_is_the_senders_fault(kind: Kind, name: str) -> None:
    channel = kind.make(PATIENT)
    config = {**kind.config, "secret": name}
    outcome, ledger = send(channel, answer(200), config=config)
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"
    assert name in (outcome.detail or "")
    assert ledger == []


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://x", "http://", "no url", "http://u:p@localhost/", 5, None),
        *("https://a..example/", f"https://{'a' * 64}.example/", "https://xn--/"),
    ],
)
def test_an_address_that_cannot_be_used_is_the_senders_fault(
    kind: Kind, url: object
) -> None:
    channel = kind.make(PATIENT)
    outcome, _ = send(channel, answer(200), config={**kind.config, "url": url})
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"


@pytest.mark.parametrize("name", ["whatsapp_cloud", "twilio"])
def test_a_bearer_of_credentials_goes_nowhere_but_over_https(name: str) -> None:
    channel = KINDS[name].make(PATIENT)
    config = {**KINDS[name].config, "url": "http://gateway.example/"}
    outcome, _ = send(channel, answer(200), config=config)
    assert outcome == Failed("sender", "url in the sender's config must be https")


@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
@pytest.mark.parametrize(
    "recipient", ["jane@example.com", "+0123456789", "60110000007", "+1234567890123456"]
)
def test_what_is_no_phone_number_is_the_contacts_fault(
    name: str, recipient: str
) -> None:
    kind = KINDS[name]
    channel = kind.make(PATIENT)
    outcome, ledger = send(
        channel, answer(200, kind.success), config=kind.config, recipient=recipient
    )
    assert outcome == Failed("contact", "the recipient is no E.164 phone number")
    assert ledger == []


@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
@pytest.mark.parametrize(
    "media",
    [
        "https://example.com/x.png",
        {"url": "https://example.com/x.png"},
        {"type": "hologram", "url": "https://example.com/x"},
        {"type": "image"},
        {"type": "image", "url": "file:///etc/passwd"},
        {"type": "image", "url": "http://example.com/x.png"},
    ],
)
def test_media_that_cannot_be_fetched_is_refused(name: str, media: object) -> None:
    kind = KINDS[name]
    channel = kind.make(PATIENT)
    outcome, ledger = send(
        channel,
        answer(200, kind.success),
        config=kind.config,
        content={"media": media},
    )
    assert isinstance(outcome, Failed)
    assert outcome.code == "content"
    assert ledger == []


@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
def test_media_over_plain_http_is_a_choice_of_the_sender(name: str) -> None:
    kind = KINDS[name]
    channel = kind.make(PATIENT)
    media = {"type": "image", "url": "http://example.com/x.png"}
    outcome, _ = send(
        channel,
        answer(200, kind.success),
        config={**kind.config, "media_http": "true"},
        content={"media": media},
    )
    assert outcome == Sent("m-1")


@pytest.mark.parametrize(
    ("hosts", "is_sent"),
    [
        ("cdn.example.com img.example.com", True),
        (["CDN.example.com"], True),
        ("example.com", False),
        ([], False),
        ({"cdn.example.com": 1}, False),
    ],
)
@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
def test_media_comes_from_the_senders_hosts_only(
    name: str, hosts: object, is_sent: bool
) -> None:
    kind = KINDS[name]
    outcome, ledger = send(
        kind.make(PATIENT),
        answer(200, kind.success),
        config={**kind.config, "media_hosts": hosts},
        content={"media": {"type": "image", "url": "https://cdn.example.com/x.png"}},
    )
    assert isinstance(outcome, Sent) == is_sent
    assert bool(ledger) == is_sent


@pytest.mark.parametrize("name", ["gowa", "whatsapp_cloud", "twilio"])
def test_nothing_to_say_is_not_sent(name: str) -> None:
    outcome = KINDS[name].send(answer(200, KINDS[name].success), body=None)
    assert outcome == Failed("content", "there is no text to send")


# The webhook's signature, by the library of its standard


def test_a_webhook_with_a_secret_is_signed_by_the_standard() -> None:
    config = {"secret": "KEY"}
    _, [taken] = send(WebhookChannel(PATIENT), answer(200), config=config)
    assert Webhook(KEY).verify(taken.body, taken.headers) == taken.json()
    assert taken.headers["webhook-id"] == "7:3"
    assert abs(int(taken.headers["webhook-timestamp"]) - time.time()) < 60
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(taken.body + b" ", taken.headers)


def test_a_webhook_without_a_secret_is_not_signed() -> None:
    _, [taken] = send(WebhookChannel(PATIENT), answer(200), config={})
    assert not [name for name in taken.headers if name.startswith("webhook-")]


def test_a_webhook_secret_that_is_no_base64_is_the_senders_fault() -> None:
    outcome, ledger = send(
        WebhookChannel(PATIENT), answer(200), config={"secret": "GATEWAY_AUTH"}
    )
    assert outcome == Failed("sender", "the secret must be whsec_ and base64")
    assert ledger == []


# References


def test_a_reference_is_read_as_it_was_written() -> None:
    reference = Reference.of(MESSAGE)
    assert str(reference) == "7:3/1099511627777"
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "7:3", "7:3/x", "7:3/1 ", "-7:3/1", "9" * 30 + ":1/1"],
)
def test_what_is_no_reference_is_none(text: object) -> None:
    assert Reference.parse(text) is None
