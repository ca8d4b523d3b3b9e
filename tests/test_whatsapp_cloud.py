"""The channel to Meta's WhatsApp Cloud API, against a gateway that answers like it."""

import asyncio
from typing import Any

import pytest

from gateway import Step, Taken, answer, gateway, send
from pgdrip.channels import (
    Down,
    Failed,
    Health,
    Reconciling,
    Reference,
    Sent,
    Uncertain,
    Unknown,
    Up,
)
from pgdrip.channels.whatsapp_cloud import WhatsappCloudChannel
from pgdrip.engine import KnownSender

CONFIG = {"secret": "CLOUD_TOKEN", "phone_number_id": "106540352242922"}
ACCEPTED = {
    "messaging_product": "whatsapp",
    "contacts": [{"input": "60110000007", "wa_id": "60110000007"}],
    "messages": [{"id": "wamid.HBgL", "message_status": "accepted"}],
}
LINK = "https://example.com/x"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", "EAAJB")


def sent(config: dict[str, Any] | None = None, **fields: Any) -> Taken:
    """The request that the channel makes of a message with these fields."""
    outcome, [taken] = send(
        WhatsappCloudChannel(),
        answer(200, ACCEPTED),
        config=CONFIG | (config or {}),
        **fields,
    )
    assert outcome == Sent("wamid.HBgL")
    return taken


def refused(code: int, *, status: int = 400, attempt: int = 1) -> object:
    error = {
        "message": f"(#{code}) Title",
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": "in detail"},
    }
    outcome, _ = send(
        WhatsappCloudChannel(),
        answer(status, {"error": error}),
        config=CONFIG,
        attempt=attempt,
    )
    return outcome


def probe(step: Step, config: dict[str, Any] = CONFIG) -> tuple[Health, list[Taken]]:
    async def main() -> tuple[Health, list[Taken]]:
        async with gateway(step) as made:
            channel = WhatsappCloudChannel()
            told = {"url": made.url, **config}
            known = KnownSender("d", "whatsapp_cloud", told, "healthy")
            health = await channel.probe(known)
            await channel.close()
            return health, made.ledger

    return asyncio.run(main())


# Requests


def test_a_text_goes_to_the_numbers_messages_with_a_reference_of_ours() -> None:
    taken = sent()
    assert taken.method == "POST"
    assert taken.target == "/v23.0/106540352242922/messages"
    assert taken.headers["authorization"] == "Bearer EAAJB"
    assert taken.json() == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "60110000007",
        "type": "text",
        "text": {"body": "Hi Zoë 👋", "preview_url": False},
        "biz_opaque_callback_data": "7:3/1099511627777",
    }
    echoed = Reference.parse(taken.json()["biz_opaque_callback_data"])
    assert echoed == Reference(enrollment_id=7, step=3, token=1099511627777)


def test_the_version_and_the_number_are_the_senders() -> None:
    taken = sent({"version": "v99.0", "phone_number_id": 17})
    assert taken.target == "/v99.0/17/messages"


@pytest.mark.parametrize(
    ("media", "body", "kind", "link"),
    [
        ({"type": "image", "url": LINK}, "Look", "image", {"caption": "Look"}),
        ({"type": "video", "url": LINK}, None, "video", {}),
        ({"type": "audio", "url": LINK}, None, "audio", {}),
        (
            {"type": "document", "url": LINK, "filename": "a.pdf"},
            "Read",
            "document",
            {"caption": "Read", "filename": "a.pdf"},
        ),
    ],
)
def test_media_go_by_their_link(
    media: dict[str, str], body: str | None, kind: str, link: dict[str, str]
) -> None:
    asked = sent(content={"media": media}, body=body).json()
    assert asked["type"] == kind
    assert asked[kind] == {"link": LINK, **link}


def test_a_template_is_sent_in_the_place_of_the_text() -> None:
    template = {
        "name": "seat_reminder",
        "language": "en_US",
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "Zoë"}]}
        ],
    }
    asked = sent(content={"template": template}).json()
    assert asked["type"] == "template"
    assert asked["template"] == {**template, "language": {"code": "en_US"}}
    assert "text" not in asked


@pytest.mark.parametrize(
    "template",
    ["seat", {}, {"name": "seat"}, {"language": "en"}, {"name": "", "language": "en"}],
)
def test_a_template_without_a_name_or_language_is_refused(template: object) -> None:
    outcome, ledger = send(
        WhatsappCloudChannel(),
        answer(200, ACCEPTED),
        config=CONFIG,
        content={"template": template},
    )
    assert isinstance(outcome, Failed)
    assert outcome.code == "content"
    assert ledger == []


@pytest.mark.parametrize("lacking", ["secret", "phone_number_id"])
def test_a_sender_that_lacks_something_is_at_fault(lacking: str) -> None:
    config = {key: value for key, value in CONFIG.items() if key != lacking}
    outcome, ledger = send(WhatsappCloudChannel(), answer(200, ACCEPTED), config=config)
    assert isinstance(outcome, Failed)
    assert outcome.code == "sender"
    assert ledger == []


# Answers


@pytest.mark.parametrize("code", [0, 4, 100, 190, 131047, 131056, 200])
def test_a_failure_has_metas_code_whatever_the_status(code: int) -> None:
    for status in (400, 401, 403, 429, 500):
        said = Failed(str(code), f"(#{code}) Title: in detail")
        assert refused(code, status=status) == said


@pytest.mark.parametrize(
    ("attempt", "code"), [(1, "131026"), (2, "131026"), (3, "131026_again")]
)
def test_an_undeliverable_number_is_believed_the_third_time(
    attempt: int, code: str
) -> None:
    assert refused(131026, attempt=attempt) == Failed(
        code, "(#131026) Title: in detail"
    )


@pytest.mark.parametrize("messages", [None, [], [{}], [{"id": ""}], ["x"], "x"])
def test_an_acceptance_without_an_id_is_uncertain(messages: object) -> None:
    outcome, _ = send(
        WhatsappCloudChannel(), answer(200, {"messages": messages}), config=CONFIG
    )
    assert outcome == Uncertain("accepted without a message id")


# Probes


@pytest.mark.parametrize("said", [{"status": "CONNECTED"}, {"status": "FLAGGED"}, {}])
def test_a_connected_number_is_up(said: dict[str, str]) -> None:
    health, [taken] = probe(answer(200, {"id": "1", **said}))
    assert health == Up()
    assert taken.method == "GET"
    assert taken.path == "/v23.0/106540352242922"
    assert taken.query == {"fields": "status,quality_rating"}


def test_a_banned_number_is_down() -> None:
    health, _ = probe(answer(200, {"status": "BANNED"}))
    assert health == Down("the number is BANNED")


@pytest.mark.parametrize("code", [0, 190, 200, 368, 131031])
def test_a_number_that_may_not_be_used_is_down(code: int) -> None:
    health, _ = probe(answer(400, {"error": {"code": code, "message": "no"}}))
    assert health == Down("no")


@pytest.mark.parametrize(
    "step",
    [
        answer(500),
        answer(400, {"error": {"code": 2}}),
        answer(400, {"error": {"code": [190]}}),
        answer(400, {"error": {"code": False}}),
    ],
)
def test_an_unclear_answer_tells_nothing_of_the_number(step: Step) -> None:
    health, _ = probe(step)
    assert isinstance(health, Unknown)


def test_a_sender_without_a_token_is_down() -> None:
    health, ledger = probe(answer(200, {}), {"phone_number_id": "1"})
    assert health == Down("the sender has no secret: the access token")
    assert ledger == []


def test_the_api_cannot_be_asked_what_became_of_a_message() -> None:
    assert not isinstance(WhatsappCloudChannel(), Reconciling)
