"""The channel to Twilio, against a gateway that answers like it."""

import asyncio
from base64 import b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway import NOW, UNCERTAIN, Step, Taken, answer, gateway, send
from pgdrip.channels import (
    Answer,
    Down,
    Failed,
    Health,
    NotSent,
    Reference,
    Sent,
    Uncertain,
    Unknown,
    Up,
)
from pgdrip.channels.twilio import PAGE, TwilioChannel
from pgdrip.engine import KnownSender

CONFIG = {"secret": "TWILIO_AUTH", "account_sid": "AC123", "from": "+15005550006"}
QUEUED = {"sid": "SM1", "status": "queued", "error_code": None}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH", "t0ken")


def sent(config: dict[str, Any] | None = None, **fields: Any) -> Taken:
    """The request that the channel makes of a message with these fields."""
    outcome, [taken] = send(
        TwilioChannel(), answer(201, QUEUED), config=CONFIG | (config or {}), **fields
    )
    assert outcome == Sent("SM1")
    return taken


def refused(code: int, status: int = 400) -> object:
    said = {"code": code, "message": "because", "status": status}
    return send(TwilioChannel(), answer(status, said), config=CONFIG)[0]


@pytest.mark.parametrize("code", ["t0ken-t0ken", ["t0ken-t0ken"], {}, "x y", None])
def test_a_fate_without_a_code_of_twilio_is_told_by_its_status(
    code: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH", "t0ken-t0ken")
    lost = QUEUED | {"status": "failed", "error_code": code}
    outcome, _ = send(TwilioChannel(), answer(201, lost), config=CONFIG)
    assert outcome == Failed("status_failed", "")


def probe(step: Step, config: dict[str, Any] = CONFIG) -> tuple[Health, list[Taken]]:
    async def main() -> tuple[Health, list[Taken]]:
        async with gateway(step) as made:
            channel = TwilioChannel()
            told = {"url": made.url, **config}
            health = await channel.probe(KnownSender("d", "twilio", told, "healthy"))
            await channel.close()
            return health, made.ledger

    return asyncio.run(main())


def reconcile(
    step: Step, config: dict[str, Any] | None = None, **fields: Any
) -> tuple[Answer, list[Taken]]:
    async def main() -> tuple[Answer, list[Taken]]:
        async with gateway(step) as made:
            channel = TwilioChannel()
            told = {"url": made.url, **CONFIG, **(config or {})}
            message = replace(UNCERTAIN, sender_config=told, **fields)
            found = await channel.reconcile(message)
            await channel.close()
            return found, made.ledger

    return asyncio.run(main())


def listed(*messages: object) -> Step:
    return answer(200, {"messages": list(messages)})


def one(at: datetime = NOW, **fields: Any) -> dict[str, Any]:
    return {
        "sid": "SM1",
        "body": UNCERTAIN.body,
        "direction": "outbound-api",
        "status": "sent",
        "date_created": format_datetime(at),
        **fields,
    }


EARLIER = one(NOW - timedelta(days=1), sid="SM0")


# Requests


def test_a_text_is_a_form_to_the_accounts_messages() -> None:
    taken = sent()
    assert taken.method == "POST"
    assert taken.target == "/2010-04-01/Accounts/AC123/Messages.json"
    assert taken.headers["content-type"] == "application/x-www-form-urlencoded"
    login = b64encode(b"AC123:t0ken").decode()
    assert taken.headers["authorization"] == f"Basic {login}"
    assert taken.form() == {
        "From": "+15005550006",
        "To": "+60110000007",
        "Body": "Hi Zoë 👋",
    }


def test_an_api_key_is_a_login_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH", "SK1:s3cret")
    login = b64encode(b"SK1:s3cret").decode()
    assert sent().headers["authorization"] == f"Basic {login}"


def test_a_messaging_service_chooses_the_number_itself() -> None:
    form = sent({"messaging_service_sid": "MG1"}).form()
    assert form["MessagingServiceSid"] == "MG1"
    assert "From" not in form


def test_from_a_whatsapp_number_it_goes_by_whatsapp() -> None:
    form = sent({"from": "whatsapp:+14155238886"}).form()
    assert form["From"] == "whatsapp:+14155238886"
    assert form["To"] == "whatsapp:+60110000007"


@pytest.mark.parametrize("body", ["Look", None])
def test_media_go_by_their_url(body: str | None) -> None:
    media = {"type": "image", "url": "https://example.com/x.png"}
    form = sent(content={"media": media}, body=body).form()
    assert form["MediaUrl"] == "https://example.com/x.png"
    assert form.get("Body") == body


def test_the_callback_gets_a_reference_of_ours_along() -> None:
    url = sent({"status_callback": "https://hooks.example/t?tenant=1"}).form()
    asked = parse_qs(urlsplit(url["StatusCallback"]).query)
    assert asked["tenant"] == ["1"]
    [reference] = asked["reference"]
    assert Reference.parse(reference) == Reference(7, 3, 1099511627777)


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": None},
        {"account_sid": None},
        {"account_sid": "AC1/../AC2"},
        {"from": None},
        {"status_callback": "ftp://x"},
    ],
)
def test_a_sender_that_lacks_something_is_at_fault(wrong: dict[str, Any]) -> None:
    outcome, ledger = send(TwilioChannel(), answer(201, QUEUED), config=CONFIG | wrong)
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"
    assert ledger == []


# Answers


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 21211), (400, 21610), (401, 20003), (404, 20404), (429, 20429)],
)
def test_a_failure_has_twilios_code_and_words(status: int, code: int) -> None:
    assert refused(code, status) == Failed(str(code), "because")


def test_twilios_own_fault_is_uncertain_since_sending_is_not_idempotent() -> None:
    assert refused(20500, 500) == Uncertain("20500: because")


def test_a_message_that_failed_at_once_failed() -> None:
    said = QUEUED | {"status": "failed", "error_code": 30007, "error_message": "spam"}
    outcome, _ = send(TwilioChannel(), answer(201, said), config=CONFIG)
    assert outcome == Failed("30007", "spam")


def test_a_message_with_a_sid_was_taken_whatever_its_status_looks_like() -> None:
    outcome, _ = send(
        TwilioChannel(), answer(201, QUEUED | {"status": ["?"]}), config=CONFIG
    )
    assert outcome == Sent(QUEUED["sid"])


# Probes


def test_an_active_account_is_up() -> None:
    health, [taken] = probe(answer(200, {"status": "active"}))
    assert health == Up()
    assert (taken.method, taken.target) == ("GET", "/2010-04-01/Accounts/AC123.json")


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_any_other_account_is_down(status: str) -> None:
    health, _ = probe(answer(200, {"status": status}))
    assert health == Down(f"the account is {status}")


def test_a_login_that_is_refused_is_down() -> None:
    health, _ = probe(answer(401, {"code": 20003}))
    assert isinstance(health, Down)


@pytest.mark.parametrize("step", [answer(500), answer(200, "?"), answer(200, {})])
def test_an_unclear_answer_tells_nothing_of_the_account(step: Step) -> None:
    health, _ = probe(step)
    assert isinstance(health, Unknown)


# Reconciliation


def test_a_message_in_the_list_was_sent() -> None:
    found, [taken] = reconcile(listed(one(), EARLIER))
    assert found == Sent("SM1")
    assert taken.path == "/2010-04-01/Accounts/AC123/Messages.json"
    assert taken.query == {
        "To": "+60110000007",
        "From": "+15005550006",
        "PageSize": str(PAGE),
    }


def test_of_a_messaging_service_all_numbers_are_listed() -> None:
    _, [taken] = reconcile(listed(), {"messaging_service_sid": "MG1"})
    assert taken.query == {"To": "+60110000007", "PageSize": str(PAGE)}


@pytest.mark.parametrize("status", ["failed", "undelivered", "canceled"])
def test_a_message_in_the_list_that_failed_has_its_code(status: str) -> None:
    lost = one(status=status, error_code=30003, error_message="unreachable")
    assert reconcile(listed(lost))[0] == Failed("30003", "unreachable")


def test_a_message_that_failed_without_a_code_has_its_status() -> None:
    found, _ = reconcile(listed(one(status="canceled", error_code=None)))
    assert found == Failed("status_canceled", "")


@pytest.mark.parametrize(
    "others",
    [
        [],
        [EARLIER],
        [one(direction="inbound"), EARLIER],
        [one(sid="KNOWN"), EARLIER],
        [one(NOW + timedelta(hours=2), sid="SM2"), EARLIER],
    ],
)
def test_a_message_that_is_not_in_the_list_was_not_sent(others: list[object]) -> None:
    found, _ = reconcile(listed(*others), known_ids=["KNOWN"])
    assert found == NotSent()


@pytest.mark.parametrize(
    "others",
    [
        [one(body="Hi Zoe")],
        [one(body="Sent from your trial account - Hi Zoë 👋"), EARLIER],
        [one(date_created="yesterday")],
        [one(date_created=None)],
        [{}],
        ["?"],
        [one(sid=None)],
        [one(direction=None, body="Hi Zoe")],
        [one(NOW + timedelta(hours=2), sid=f"SM{n}") for n in range(PAGE)],
    ],
)
def test_a_list_that_leaves_doubt_leaves_the_send_uncertain(
    others: list[object],
) -> None:
    found, _ = reconcile(listed(*others))
    assert isinstance(found, Uncertain)


def test_a_text_nobody_remembers_is_doubt() -> None:
    found, _ = reconcile(listed(one()), body=None)
    assert isinstance(found, Uncertain)


@pytest.mark.parametrize("step", [answer(401), answer(500), answer(200, "?")])
def test_an_unclear_answer_leaves_a_send_uncertain(step: Step) -> None:
    found, _ = reconcile(step)
    assert isinstance(found, Uncertain)


def test_a_send_of_an_unknown_time_is_not_asked_about() -> None:
    found, ledger = reconcile(listed(one()), begun_at=None)
    assert found == Uncertain("nobody knows when it was sent")
    assert ledger == []
