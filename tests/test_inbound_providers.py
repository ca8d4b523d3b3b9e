"""Whose requests are believed, and what they say: by the providers' own documentation,
examples and libraries."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as StandardWebhook

import hooks
from pgdrip.channels import Reference
from pgdrip.inbound.events import Event, Ignored, Malformed, OptOut, Receipt, Reply
from pgdrip.inbound.gowa import Gowa
from pgdrip.inbound.provider import Post, Provider
from pgdrip.inbound.signature import hub_signature
from pgdrip.inbound.twilio import Twilio, twilio_signature
from pgdrip.inbound.webhook import Webhook
from pgdrip.inbound.whatsapp_cloud import WhatsappCloud

KEY = b"a key of 24 random bytes"
PROVIDERS: dict[str, Provider] = {
    "gowa": Gowa([hooks.SECRETS["GOWA_SECRET"].encode()]),
    "whatsapp_cloud": WhatsappCloud([hooks.SECRETS["META_SECRET"].encode()], b""),
    "twilio": Twilio([hooks.SECRETS["TWILIO_SECRET"].encode()]),
    "webhook": Webhook([KEY]),
}


def arrived(request: hooks.Request) -> Post:
    headers = {name.lower(): value for name, value in request.headers.items()}
    url = hooks.PUBLIC + request.path
    return Post(url=url, headers=headers, body=request.body, content=request.body)


def said(request: hooks.Request) -> list[Event]:
    """The events of a request whose signature is right."""
    provider = PROVIDERS[request.path.split("/")[2].partition("?")[0]]
    post = arrived(request)
    assert provider.identify(post)
    return provider.read(post)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Signatures


def test_the_hub_signature_is_the_documented_one() -> None:
    # docs.github.com, "Validating webhook deliveries": the same scheme.
    documented = (
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )
    keys = [b"another key", b"It's a Secret to Everybody"]
    assert hub_signature(keys, b"Hello, World!", documented) == documented
    assert hub_signature(keys, b"Hello, World", documented) is None
    assert hub_signature(keys[:1], b"Hello, World!", documented) is None
    assert hub_signature(keys, b"Hello, World!", "") is None
    assert hub_signature(keys, b"Hello, World!", documented.upper()) is None
    assert hub_signature(keys, b"Hello, World!", "sha256=ü") is None


def test_the_twilio_signature_is_the_documented_one() -> None:
    # twilio.com/docs/usage/security, "Explore the algorithm yourself".
    form = [
        ("Digits", "1234"),
        ("To", "+18005551212"),
        ("From", "+14158675309"),
        ("Caller", "+14158675309"),
        ("CallSid", "CA1234567890ABCDE"),
    ]
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    documented = b"RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert documented in twilio_signature(b"12345", url, form)
    with_port = url.replace(".com", ".com:443")
    assert documented in twilio_signature(b"12345", with_port, form)
    assert documented in twilio_signature(b"12345", url, [*form, form[0]])
    assert documented not in twilio_signature(b"12345", url, [*form, ("To", "1")])
    assert documented not in twilio_signature(b"12346", url, form)


@given(st.text(), st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_what_the_standard_webhooks_library_signs_is_believed(
    body: str, message: str
) -> None:
    raw = body.encode(errors="replace")
    signed = hooks.webhook(raw, message)
    found = Webhook([b"x" * 24, KEY]).identify(arrived(signed))
    assert found == Webhook([KEY]).identify(arrived(signed))
    assert found is not None
    assert found.endswith(f" {message}")
    StandardWebhook(KEY).verify(raw, signed.headers, json_parse=False)
    assert Webhook([b"x" * 24]).identify(arrived(signed)) is None


@pytest.mark.parametrize(
    ("age", "is_fresh"), [(290, 1), (-290, 1), (360, 0), (-360, 0)]
)
def test_a_signed_time_may_be_five_minutes_off(age: float, is_fresh: int) -> None:
    signed = hooks.webhook({"type": "sent"}, age=age)
    assert bool(PROVIDERS["webhook"].identify(arrived(signed))) == is_fresh


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", ""),
        ("webhook-id", "msg_2"),
        ("webhook-id", "m" * 300),
        ("webhook-timestamp", ""),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "9" * 400),
        ("webhook-timestamp", "NOW.0"),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1a,ü v1"),
    ],
)
def test_each_header_of_a_signed_webhook_counts(header: str, value: str) -> None:
    signed = hooks.webhook({"type": "sent"})
    signed.headers[header] = value.replace("NOW", f"{time.time():.0f}")
    assert PROVIDERS["webhook"].identify(arrived(signed)) is None


def test_one_good_signature_among_several_is_enough() -> None:
    signed = hooks.webhook({"type": "sent"})
    signed.headers["webhook-signature"] += " v1,b3RoZXI= v2,later"
    assert PROVIDERS["webhook"].identify(arrived(signed)) is not None


# GoWA: docs/webhook-payload.md


def gowa_event(event: str, **payload: Any) -> hooks.Request:
    return hooks.gowa(
        {
            "event": event,
            "device_id": "628987654321@s.whatsapp.net",
            "timestamp": "2025-07-18T22:44:20Z",
            "payload": payload,
        }
    )


def gowa_message(**changed: Any) -> hooks.Request:
    payload = {
        "id": "3EB0C127D7BACC83D6A1",
        "chat_id": "628123456789@s.whatsapp.net",
        "from": "628123456789@s.whatsapp.net",
        "from_lid": "251556368777322@lid",
        "from_name": "John Doe",
        "timestamp": "2023-10-15T10:30:00Z",
        "is_from_me": False,
        "body": "Hello, how are you?",
    }
    return gowa_event("message", **payload | changed)


@pytest.mark.parametrize(
    ("told", "status"),
    [("delivered", "delivered"), ("read", "read"), ("played", "read")],
)
def test_gowa_acknowledges_several_messages_at_once(told: str, status: str) -> None:
    ack = gowa_event("message.ack", ids=["3EB00106E8", "3EB00107E9"], receipt_type=told)
    moment = at("2025-07-18T22:44:20Z")
    assert said(ack) == [
        Receipt("gowa", "3EB00106E8", status, moment),
        Receipt("gowa", "3EB00107E9", status, moment),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"from": "628123456789:12@s.whatsapp.net"},
        {"from": "628123456789.1:2@s.whatsapp.net"},
        {"from": "251556368777322@lid"},  # the chat tells
        {"chat_id": "251556368777322@lid"},  # the sender tells
    ],
)
def test_a_message_to_gowa_is_a_reply(changed: dict[str, Any]) -> None:
    moment = at("2023-10-15T10:30:00Z")
    reply = Reply("gowa", "+628123456789", "Hello, how are you?", moment)
    assert said(gowa_message(**changed)) == [reply]


@pytest.mark.parametrize(
    "request_",
    [
        gowa_message(is_from_me=True),
        gowa_message(chat_id="120363402106@g.us"),
        gowa_message(chat_id="status@broadcast"),
        gowa_event("message.ack", ids=["3EB001"], receipt_type="read-self"),
        gowa_event("message.reaction", reaction="👍"),
        gowa_event("group.participants", type="join"),
        gowa_event("something.new"),
    ],
)
def test_gowa_tells_much_that_is_no_reply(request_: hooks.Request) -> None:
    assert said(request_) == [Ignored()]


@pytest.mark.parametrize(
    "changed",
    [
        {"from": "251556368777322@lid", "chat_id": "251556368777322@lid"},
        # The number of the device itself is nobody's reply.
        {"from": "251556368777322@lid", "chat_id": "628987654321@s.whatsapp.net"},
        {"from": None},
        {"from": "1@s.whatsapp.net"},
        {"from": "٦٢٨١٢٣٤٥٦٧٨٩@s.whatsapp.net", "chat_id": "9@lid"},
    ],
)
def test_a_reply_of_somebody_without_a_number_is_told_as_bad(
    changed: dict[str, Any],
) -> None:
    changed = {"chat_id": "251556368777322@lid"} | changed
    assert isinstance(said(gowa_message(**changed))[0], Malformed)


# WhatsApp Cloud API


def status(**changed: Any) -> hooks.Request:
    told = {"id": "wamid.HBgL", "status": "delivered", "timestamp": "1750857384"}
    return hooks.meta({"statuses": [told | {"recipient_id": "16505551234"} | changed]})


@pytest.mark.parametrize("word", ["sent", "delivered", "read", "failed"])
def test_meta_tells_the_status_of_a_message(word: str) -> None:
    moment = datetime.fromtimestamp(1750857384, UTC)
    receipt = Receipt("whatsapp_cloud", "wamid.HBgL", word, moment)
    assert said(status(status=word)) == [receipt]


def test_meta_tells_why_a_message_failed_and_repeats_our_reference() -> None:
    error = {
        "code": 131026,
        "title": "Message undeliverable",
        "error_data": {"details": "Message Undeliverable."},
    }
    mark = str(Reference(enrollment_id=7, step=3, token=1 << 40))
    [receipt] = said(
        status(status="failed", errors=[error], biz_opaque_callback_data=mark)
    )
    assert isinstance(receipt, Receipt)
    assert (receipt.code, receipt.detail) == ("131026", "Message Undeliverable.")
    assert receipt.reference == Reference(enrollment_id=7, step=3, token=1 << 40)


def test_who_stopped_marketing_messages_at_meta_has_opted_out() -> None:
    stopped = OptOut("+16505551234", "stopped marketing messages")
    refused = status(status="failed", errors=[{"code": 131050}])
    assert said(refused)[1:] == [stopped]
    preference = {"wa_id": "16505551234", "category": "marketing_messages"}
    for value, events in (("stop", [stopped]), ("resume", [Ignored()])):
        told = {"user_preferences": [preference | {"value": value}]}
        assert said(hooks.meta(told, "user_preferences")) == events


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"type": "text", "text": {"body": "Does it come in blue?"}},
            "Does it come in blue?",
        ),
        ({"type": "button", "button": {"text": "Stop", "payload": "x"}}, "Stop"),
        (
            {"type": "interactive", "interactive": {"button_reply": {"title": "Yes"}}},
            "Yes",
        ),
        ({"type": "image", "image": {"caption": "Like this"}}, "Like this"),
        ({"type": "audio", "audio": {"id": "1"}}, ""),
        ({"type": "unsupported"}, ""),
    ],
)
def test_a_message_to_meta_is_a_reply(content: dict[str, Any], words: str) -> None:
    message = {"from": "16505551234", "id": "wamid.A", "timestamp": "1749416383"}
    moment = datetime.fromtimestamp(1749416383, UTC)
    reply = Reply("whatsapp_cloud", "+16505551234", words, moment)
    assert said(hooks.meta({"messages": [message | content]})) == [reply]


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"from": "16505551234", "type": "reaction"}]},
        {"messages": [{"from": "16505551234", "type": "text", "group_id": "g"}]},
        {"statuses": [{"id": "wamid.A", "status": "warning"}]},
        {"event": "APPROVED", "message_template_id": 1},
    ],
)
def test_meta_tells_much_that_is_no_event(value: dict[str, Any]) -> None:
    assert said(hooks.meta(value)) == [Ignored()]


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"type": "text"}]},
        {"messages": [17]},
        {"statuses": [{"status": "read"}]},
        {"statuses": [None]},
        {"user_preferences": [{"value": "stop"}]},
    ],
)
def test_a_bad_event_of_meta_is_told_as_bad(value: dict[str, Any]) -> None:
    assert [type(event) for event in said(hooks.meta(value))] == [Malformed]


KEYS = """entry changes value messages statuses errors from id status text payload event
ids events type at address channel timestamp""".split()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
        max_leaves=30,
    )
)
def test_no_json_however_odd_breaks_a_provider(body: Any) -> None:
    raw = json.dumps(
        {"event": "message", "entry": body, "events": body, "payload": body}
    )
    for name in ("gowa", "whatsapp_cloud", "webhook"):
        post = Post(url="", headers={}, body=b"", content=raw.encode())
        assert all(isinstance(one, Event) for one in PROVIDERS[name].read(post))


# Twilio

CALLBACK = {
    "AccountSid": "AC00000000000000000000000000000001",
    "From": "+15017122661",
    "MessageSid": "SM00000000000000000000000000000001",
    "MessageStatus": "delivered",
    "SmsSid": "SM00000000000000000000000000000001",
    "SmsStatus": "delivered",
    "To": "+15558675310",
}
INCOMING = {
    "Body": "Ahoy & welcome = ü+1",
    "From": "+14017122661",
    "MessageSid": "SM00000000000000000000000000000002",
    "NumMedia": "0",
    "SmsStatus": "received",
    "To": "+15558675310",
}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "read"),
        ("undelivered", "failed"),
        ("failed", "failed"),
        ("canceled", "failed"),
    ],
)
def test_twilio_calls_back_with_the_status(word: str, told: str) -> None:
    receipt = Receipt("twilio", CALLBACK["MessageSid"], told)
    assert said(hooks.twilio(CALLBACK | {"MessageStatus": word})) == [receipt]


@pytest.mark.parametrize("word", ["queued", "sending", "accepted", "scheduled", "new"])
def test_a_message_on_its_way_through_twilio_is_no_event(word: str) -> None:
    assert said(hooks.twilio(CALLBACK | {"MessageStatus": word})) == [Ignored()]


def test_twilio_repeats_our_reference_and_tells_the_error() -> None:
    form = CALLBACK | {"MessageStatus": "undelivered", "ErrorCode": "30005"}
    [receipt] = said(hooks.twilio(form, "?reference=7:3/99"))
    assert isinstance(receipt, Receipt)
    assert receipt.reference == Reference(enrollment_id=7, step=3, token=99)
    assert receipt.code == "30005"


@pytest.mark.parametrize("sender", ["+14017122661", "whatsapp:+14017122661"])
def test_an_incoming_message_of_twilio_is_a_reply(sender: str) -> None:
    reply = Reply("twilio", "+14017122661", INCOMING["Body"])
    assert said(hooks.twilio(INCOMING | {"From": sender})) == [reply]


def test_who_opted_out_at_twilio_has_opted_out() -> None:
    answer = INCOMING | {"Body": "Stopp", "OptOutType": "STOP"}
    assert said(hooks.twilio(answer))[1] == OptOut(
        "+14017122661", "opted out at Twilio"
    )
    refused = CALLBACK | {"MessageStatus": "failed", "ErrorCode": "21610"}
    assert said(hooks.twilio(refused))[1] == OptOut(
        "+15558675310", "opted out at Twilio"
    )


@pytest.mark.parametrize("body", [b"&".join([b"a=1"] * 201), b"a=%ff", b"\xff=1"])
def test_a_form_that_cannot_be_read_is_not_twilios(body: bytes) -> None:
    post = Post(url=hooks.PUBLIC, headers={}, body=body, content=body)
    assert PROVIDERS["twilio"].identify(post) is None


# The webhook of anybody


def test_a_signed_webhook_tells_one_event_or_many() -> None:
    events = [
        {"type": "delivered", "provider_id": "a", "at": "2026-01-05T17:00:00+08:00"},
        {"type": "failed", "provider_id": "b", "code": "550", "channel": "smtp"},
        {"type": "reply", "address": "+60123456789", "text": "Yes please"},
        {"type": "stop", "address": "jane@example.com", "reason": "complaint"},
    ]
    expected = [
        Receipt("webhook", "a", "delivered", at("2026-01-05T09:00:00Z")),
        Receipt("smtp", "b", "failed", code="550"),
        Reply("webhook", "+60123456789", "Yes please"),
        OptOut("jane@example.com", "complaint"),
    ]
    assert said(hooks.webhook({"events": events})) == expected
    assert [said(hooks.webhook(event))[0] for event in events] == expected


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "delivered"},
        {"type": "delivered", "provider_id": 5},
        {"type": "opened", "provider_id": "a"},
        {"type": ["reply"], "address": "+60123456789"},
        {"type": "reply", "text": "Hi"},
        {"type": "stop"},
        {"type": "read", "provider_id": "a", "at": "yesterday"},
        {"type": "read", "provider_id": "a", "at": "2026-01-05T09:00:00"},
        {"type": "read", "provider_id": "a", "at": 10**30},
    ],
)
def test_a_bad_event_of_a_signed_webhook_is_told_as_bad(event: dict[str, Any]) -> None:
    [found] = said(hooks.webhook({"events": [event]}))
    assert isinstance(found, Malformed)
