"""The channel to GoWA: its requests fit GoWA's own OpenAPI document, and what it makes
of GoWA's answers."""

import asyncio
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest

from gateway import MESSAGE, NOW, UNCERTAIN, Step, Taken, answer, gateway, hang, send
from pgdrip.channels import Answer, Down, Failed, Health, Sent, Uncertain, Unknown, Up
from pgdrip.channels.gowa import GowaChannel
from pgdrip.engine import KnownSender

CONFIG = {"secret": "GOWA_AUTH", "device": "628 1/x@s.whatsapp.net"}
SUCCESS = {"code": "SUCCESS", "message": "ok", "results": {"message_id": "3EB0"}}
MEDIA = {"type": "image", "url": "https://example.com/x.jpg"}
JID = "60110000007@s.whatsapp.net"


def strict() -> OpenAPI:
    """The document, in which no field of a send is optional to know: it would let any
    other pass."""
    path = Path(__file__).with_name("gowa.openapi.yaml")
    document = yaml.safe_load(path.read_text())
    for name, item in document["paths"].items():
        if name.startswith("/send/"):
            [content] = item["post"]["requestBody"]["content"].values()
            content["schema"]["additionalProperties"] = False
            content["schema"]["required"] = ["phone"]
    return OpenAPI.from_dict(document)


OPENAPI = strict()


def validate(taken: Taken) -> None:
    OPENAPI.validate_request(
        MockRequest(
            "http://gateway",
            taken.method.lower(),
            taken.path,
            args=taken.query,
            headers=taken.headers,
            data=taken.body or None,
            content_type=taken.headers.get("content-type", ""),
        )
    )


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOWA_AUTH", "jane:s3cret")


def sent(**fields: Any) -> Taken:
    """The request that the channel makes of a message with these fields."""
    outcome, [taken] = send(
        GowaChannel(), answer(200, SUCCESS), config=CONFIG, **fields
    )
    assert outcome == Sent("3EB0")
    return taken


def probe(*script: Step, config: dict[str, Any]) -> tuple[Health, list[Taken]]:
    async def main() -> tuple[Health, list[Taken]]:
        async with gateway(*script) as made:
            channel = GowaChannel()
            told = {"url": made.url, **config}
            health = await channel.probe(KnownSender("d", "gowa", told, "healthy"))
            await channel.close()
            return health, made.ledger

    return asyncio.run(main())


def reconcile(*script: Step, **fields: Any) -> tuple[Answer, list[Taken]]:
    async def main() -> tuple[Answer, list[Taken]]:
        async with gateway(*script) as made:
            channel = GowaChannel()
            told = {"url": made.url, **CONFIG}
            message = replace(UNCERTAIN, sender_config=told, **fields)
            found = await channel.reconcile(message)
            await channel.close()
            return found, made.ledger

    return asyncio.run(main())


def chat(*messages: dict[str, Any]) -> Step:
    return answer(200, {"code": "SUCCESS", "results": {"data": list(messages)}})


def kept(**fields: Any) -> dict[str, Any]:
    return {"id": "3EB0", "content": MESSAGE.body, "is_from_me": True} | fields


# Requests


def test_a_text_is_what_the_document_asks_for() -> None:
    taken = sent()
    validate(taken)
    assert (taken.method, taken.path) == ("POST", "/send/message")
    assert taken.json() == {"phone": JID, "message": "Hi Zoë 👋"}


@pytest.mark.parametrize(
    ("kind", "path"),
    [("image", "image"), ("video", "video"), ("document", "file"), ("audio", "audio")],
)
def test_media_are_what_the_document_asks_for(kind: str, path: str) -> None:
    caption = None if kind == "audio" else "Look ≈ here"
    taken = sent(content={"media": {**MEDIA, "type": kind}}, body=caption)
    validate(taken)
    assert taken.path == f"/send/{path}"
    text = taken.body.decode()
    assert f'name="{path}_url"' in text
    assert MEDIA["url"] in text
    assert JID in text
    assert (caption or "caption") in text or kind == "audio"


def test_the_document_would_notice_a_wrong_request() -> None:
    taken = sent()
    for wrong in (
        replace(taken, body=b'{"phone": "1", "text": "x"}'),
        replace(taken, body=b'{"message": "x"}'),
        replace(taken, target="/send/msg"),
        replace(taken, method="PUT"),
        replace(taken, headers={"content-type": "application/json"}),
    ):
        with pytest.raises(OpenAPIError):
            validate(wrong)


def test_sound_with_a_text_is_refused_since_one_of_them_would_be_lost() -> None:
    outcome, ledger = send(
        GowaChannel(),
        answer(200, SUCCESS),
        config=CONFIG,
        content={"media": {**MEDIA, "type": "audio"}},
    )
    assert isinstance(outcome, Failed)
    assert outcome.code == "content"
    assert ledger == []


def test_the_device_and_the_login_go_along() -> None:
    taken = sent()
    assert taken.headers["x-device-id"] == "628%201%2Fx@s.whatsapp.net"
    login = b64encode(b"jane:s3cret").decode()
    assert taken.headers["authorization"] == f"Basic {login}"


def test_a_server_without_login_and_with_one_device_needs_neither() -> None:
    _, [taken] = send(GowaChannel(), answer(200, SUCCESS), config={})
    assert not {"x-device-id", "authorization"} & taken.headers.keys()


def test_a_secret_that_is_no_login_is_the_senders_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOWA_AUTH", "just-a-password")
    outcome, _ = send(GowaChannel(), answer(200, SUCCESS), config=CONFIG)
    assert outcome == Failed("sender", "the secret must be user:password")


@pytest.mark.parametrize("device", ["", "a\r\nX-Evil: 1", None, ["x"]])
def test_a_device_that_is_no_name_is_the_senders_fault(device: object) -> None:
    outcome, ledger = send(
        GowaChannel(), answer(200, SUCCESS), config={"device": device}
    )
    assert outcome == Failed("sender", "the sender's config has no device")
    assert ledger == []


def test_the_server_may_live_under_a_path() -> None:
    async def main() -> list[str]:
        async with gateway(answer(200, SUCCESS)) as made:
            channel = GowaChannel()
            for base in (f"{made.url}/wa", f"{made.url}/wa/"):
                await channel.send(replace(MESSAGE, sender_config={"url": base}))
            await channel.close()
            return [taken.target for taken in made.ledger]

    assert asyncio.run(main()) == ["/wa/send/message"] * 2


# Answers


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "VALIDATION_ERROR"),
        (400, "INVALID_JID"),
        (400, "DEVICE_ID_REQUIRED"),
        (404, "DEVICE_NOT_FOUND"),
        (401, "AUTHENTICATION_ERROR"),
        (429, "WA_REACHOUT_TIMELOCK"),
        (500, "UPLOAD_MEDIA_ERROR"),
        (500, "INVALID_WA_CLI"),
        (503, "DEVICE_MANAGER_UNAVAILABLE"),
        (418, "SOMETHING_NEW"),
    ],
)
def test_a_failure_has_gowas_code_and_words(status: int, code: str) -> None:
    said = {"code": code, "message": "because", "results": None}
    outcome, _ = send(GowaChannel(), answer(status, said), config=CONFIG)
    assert outcome == Failed(code, "because")


def test_a_number_in_the_place_of_the_code_is_the_status() -> None:
    said = {"code": "401", "message": "Unauthorized"}
    outcome, _ = send(GowaChannel(), answer(401, said), config=CONFIG)
    assert outcome == Failed("http_401", "Unauthorized")


@pytest.mark.parametrize(
    ("status", "code"), [(504, "GATEWAY_TIMEOUT"), (500, "INTERNAL_SERVER_ERROR")]
)
def test_what_gowa_does_not_know_itself_is_uncertain(status: int, code: str) -> None:
    said = {"code": code, "message": "who knows"}
    outcome, _ = send(GowaChannel(), answer(status, said), config=CONFIG)
    assert outcome == Uncertain(f"{code}: who knows")


@pytest.mark.parametrize(
    ("attempt", "code"),
    [(1, "INVALID_JID"), (2, "INVALID_JID"), (3, "INVALID_JID_AGAIN")],
)
def test_a_number_without_whatsapp_is_believed_the_third_time(
    attempt: int, code: str
) -> None:
    said = {"code": "INVALID_JID", "message": "not on whatsapp"}
    outcome, _ = send(GowaChannel(), answer(400, said), config=CONFIG, attempt=attempt)
    assert outcome == Failed(code, "not on whatsapp")


def test_the_channel_waits_longer_than_gowa_does() -> None:
    assert 45 < GowaChannel.total < 60


# Probes


def state(**fields: bool) -> Step:
    return answer(200, {"code": "SUCCESS", "results": fields})


def test_a_probe_asks_for_the_device() -> None:
    health, [taken] = probe(state(is_connected=True, is_logged_in=True), config=CONFIG)
    assert health == Up()
    assert taken.target == "/devices/628%201%2Fx@s.whatsapp.net/status"
    validate(replace(taken, target="/devices/628/status"))


def test_a_probe_without_a_device_asks_for_the_only_one() -> None:
    health, [taken] = probe(state(is_connected=True, is_logged_in=True), config={})
    assert health == Up()
    validate(replace(taken, headers={**taken.headers, "authorization": "Basic eDp5"}))
    assert taken.target == "/app/status"


@pytest.mark.parametrize(
    ("connected", "logged_in"), [(False, True), (True, False), (False, False)]
)
def test_a_device_that_is_not_logged_in_is_down(
    connected: bool, logged_in: bool
) -> None:
    health, _ = probe(
        state(is_connected=connected, is_logged_in=logged_in), config=CONFIG
    )
    assert isinstance(health, Down)


@pytest.mark.parametrize("status", [401, 404])
def test_a_device_the_server_refuses_is_down(status: int) -> None:
    health, _ = probe(answer(status, "no"), config=CONFIG)
    assert health == Down(f"http {status}: no")


@pytest.mark.parametrize("step", [answer(500), answer(200, "?"), answer(200, {})])
def test_an_unclear_answer_tells_nothing_of_the_device(step: Step) -> None:
    health, _ = probe(step, config=CONFIG)
    assert isinstance(health, Unknown)


def test_a_server_out_of_reach_is_down() -> None:
    health, _ = probe(hang, config={**CONFIG, "url": "http://127.0.0.1:1/"})
    assert health == Down("no connection: ClientConnectorError")


# Reconciliation


def test_a_message_in_the_chat_was_sent() -> None:
    found, [taken] = reconcile(chat(kept()))
    assert found == Sent("3EB0")
    validate(taken)
    assert taken.path == f"/chat/{JID}/messages"
    assert taken.query == {
        "limit": "100",
        "start_time": (NOW - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": (NOW + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "is_from_me": "true",
    }


@pytest.mark.parametrize(
    "other",
    [
        kept(content="Hi Zoë"),
        kept(is_from_me=False),
        kept(id="KNOWN"),
        kept(media_type="image"),
        kept(id=""),
    ],
)
def test_another_message_in_the_chat_proves_nothing(other: dict[str, Any]) -> None:
    found, _ = reconcile(chat(other), known_ids=["KNOWN"])
    assert isinstance(found, Uncertain)


def test_a_picture_is_found_by_its_caption() -> None:
    media = {"media": MEDIA}
    found, _ = reconcile(chat(kept(media_type="image")), content=media)
    assert found == Sent("3EB0")


def test_a_text_nobody_remembers_is_not_looked_for_among_empty_ones() -> None:
    found, _ = reconcile(chat(kept(content="")), body=None)
    assert isinstance(found, Uncertain)


@pytest.mark.parametrize(
    "step",
    [answer(404, "no chat"), answer(500), answer(200, "?"), chat(), answer(200, {})],
)
def test_an_unclear_answer_leaves_a_send_uncertain(step: Step) -> None:
    found, _ = reconcile(step)
    assert isinstance(found, Uncertain)


def test_a_send_of_an_unknown_time_is_not_asked_about() -> None:
    found, ledger = reconcile(chat(kept()), begun_at=None)
    assert found == Uncertain("nobody knows when it was sent")
    assert ledger == []
