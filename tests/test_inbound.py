"""What comes in by webhook or unsubscribe link, and what the database then holds."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import hooks
import stage
from conftest import Clock, Connect
from databases import Databases
from hooks import Served
from pgdrip.channels import Reference
from pgdrip.errors import ConfigurationError, SchemaMismatch
from pgdrip.inbound import engines as engines_module
from pgdrip.inbound.app import create_app
from pgdrip.inbound.server import listen, run
from pgdrip.unsubscribe import sign_unsubscribe
from stage import Db

PHONE = "+60110000001"
PROVIDERS = ("gowa", "whatsapp_cloud", "twilio", "webhook")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hooks.SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def served(dsn: str) -> Iterator[Served]:
    with hooks.served(create_app(hooks.settings(dsn))) as found:
        yield found


def receipt(channel: str, message: str, status: str) -> hooks.Request:
    """What the provider of that channel sends of a message it calls `message`."""
    match channel:
        case "gowa":
            payload = {"ids": [message], "receipt_type": status}
            return hooks.gowa({"event": "message.ack", "payload": payload})
        case "whatsapp_cloud":
            return hooks.meta({"statuses": [{"id": message, "status": status}]})
        case "twilio":
            return hooks.twilio({"MessageSid": message, "MessageStatus": status})
        case _:
            event = {"type": status, "provider_id": message}
            return hooks.webhook(event, f"{message}-{status}")


def reply(channel: str, text: str, phone: str = PHONE) -> hooks.Request:
    """What the provider of that channel sends of an answer to it."""
    digits = phone[1:]
    match channel:
        case "gowa":
            jid = f"{digits}@s.whatsapp.net"
            payload = {"id": "A", "from": jid, "chat_id": jid, "body": text}
            return hooks.gowa({"event": "message", "payload": payload})
        case "whatsapp_cloud":
            message = {"from": digits, "type": "text", "text": {"body": text}}
            return hooks.meta({"messages": [message]})
        case "twilio":
            return hooks.twilio({"MessageSid": "SM1", "From": phone, "Body": text})
        case _:
            event = {"type": "reply", "address": phone, "text": text}
            return hooks.webhook(event, f"reply-{text}")


def enroll(db: Db, channel: str, people: int = 1, **sender: Any) -> None:
    """People in a sequence of two steps on that channel."""
    stage.sender(db, channel=channel, **sender)
    stage.sequence(db, channel=channel)
    stage.leads(db, people)


def send(db: Db) -> list[str]:
    """The ids under which the provider took what was due."""
    messages = stage.claim(db, 1000)
    stage.begin(db, messages)
    ids = [f"id-{message['enrollment_id']}" for message in messages]
    db.execute(
        "select * from pgdrip.report(%s::bigint[], %s::bigint[], %s, %s)",
        [*stage._ids(messages), ["sent"] * len(ids), ids],
    )
    return ids


def receipts(db: Db) -> list[str | None]:
    rows = stage.every(db, "select receipt from pgdrip.provider_refs order by 1")
    return [row["receipt"] for row in rows]


def is_suppressed(db: Db, address: str = PHONE) -> bool:
    query = "select true from pgdrip.suppressions where address = %s"
    return bool(stage.every(db, query, [address]))


def ends(db: Db) -> list[str | None]:
    query = "select end_reason from pgdrip.enrollments order by enrollment_id"
    return [row["end_reason"] for row in stage.every(db, query)]


# What the database learns


@pytest.mark.parametrize("channel", PROVIDERS)
def test_a_delivery_receipt_confirms_the_step_that_waits_for_it(
    served: Served, db: Db, channel: str
) -> None:
    enroll(db, channel, advance_on="delivered", confirm_within="1 day")
    [message] = send(db)
    assert [row["step"] for row in stage.live(db)] == [1]
    assert served.post(receipt(channel, message, "delivered")).status == 200
    assert [row["step"] for row in stage.live(db)] == [3]
    assert stage.violations(db) == []


@pytest.mark.parametrize("channel", PROVIDERS)
def test_a_reply_ends_the_sequence(served: Served, db: Db, channel: str) -> None:
    enroll(db, channel, people=2)
    send(db)
    assert served.post(reply(channel, "Tell me more")).status == 200
    assert ends(db) == ["replied", None]
    assert not is_suppressed(db)


@pytest.mark.parametrize("channel", PROVIDERS)
def test_stop_suppresses_the_address(served: Served, db: Db, channel: str) -> None:
    enroll(db, channel, people=2)
    assert served.post(reply(channel, "stop")).status == 200
    assert is_suppressed(db)
    assert [row["enrollment_id"] for row in stage.live(db)] == [2]


@pytest.mark.parametrize("channel", ["whatsapp_cloud", "twilio", "webhook"])
def test_a_failure_ends_the_step_that_waits_for_its_delivery(
    served: Served, db: Db, channel: str
) -> None:
    enroll(db, channel, advance_on="delivered", confirm_within="1 day")
    [message] = send(db)
    assert served.post(receipt(channel, message, "failed")).status == 200
    assert ends(db) == ["not_delivered"]


def test_receipts_in_any_order_and_number_only_move_up(served: Served, db: Db) -> None:
    enroll(db, "webhook")
    [message] = send(db)
    for status in ("delivered", "sent", "read", "failed", "read", "delivered"):
        assert served.post(receipt("webhook", message, status)).status == 200
    assert receipts(db) == ["read"]


def test_a_receipt_that_overtakes_the_report_is_kept_for_it(
    served: Served, db: Db
) -> None:
    enroll(db, "gowa")
    assert served.post(receipt("gowa", "id-1", "read")).status == 200
    assert send(db) == ["id-1"]
    assert receipts(db) == ["read"]


def test_an_unknown_message_is_answered_like_a_known_one(
    served: Served, db: Db
) -> None:
    enroll(db, "webhook")
    [message] = send(db)
    known, unknown = (
        served.post(receipt("webhook", one, "read")) for one in (message, "stranger")
    )
    assert (known.status, known.body) == (unknown.status, unknown.body)


def test_of_many_events_the_good_ones_are_applied(served: Served, db: Db) -> None:
    enroll(db, "webhook", people=250)
    good = [{"type": "read", "provider_id": one} for one in send(db)]
    bad: list[Any] = [
        {"type": "read", "provider_id": ""},
        {"type": "read", "provider_id": "x" * 600},
        {"type": "reply", "address": "nobody", "text": "Hi"},
        {"type": "stop", "address": "12345"},
        17,
    ] * 50
    mixed = [event for pair in zip(good, bad, strict=True) for event in pair]
    answer = served.post(hooks.webhook({"events": mixed}))
    assert answer.status == 200
    assert answer.json() == {"accepted": 250, "rejected": 250, "ignored": 0}
    assert receipts(db) == ["read"] * 250


def test_more_than_1000_events_are_too_many(served: Served, db: Db) -> None:
    event = {"type": "read", "provider_id": "a"}
    assert served.post(hooks.webhook({"events": [event] * 1001})).status == 413
    assert not stage.every(db, "select from pgdrip.receipts")


@pytest.mark.parametrize("text", ["Hi\0there", "Hi \ud800", "a" * 100_000, ""])
def test_whatever_a_person_writes_is_a_reply(served: Served, db: Db, text: str) -> None:
    enroll(db, "gowa")
    send(db)
    assert served.post(reply("gowa", text)).json()["accepted"] == 1
    assert ends(db) == ["replied"]


@pytest.mark.parametrize(
    "reason", ["r" * 3000, "\u20ac" * 1500, "a\0", "\0", " \u200b"]
)
def test_who_opts_out_for_an_odd_reason_has_opted_out(
    served: Served, db: Db, reason: str
) -> None:
    event = {"type": "stop", "address": PHONE, "reason": reason}
    assert served.post(hooks.webhook(event)).json()["accepted"] == 1
    assert is_suppressed(db)


@pytest.mark.parametrize("timestamp", ["0", "1", "9999999999"])
def test_a_reply_of_no_time_that_can_be_is_of_now(
    served: Served, db: Db, timestamp: str
) -> None:
    enroll(db, "whatsapp_cloud")
    message = {"from": PHONE[1:], "timestamp": timestamp, "text": {"body": "Stop"}}
    answer = served.post(hooks.meta({"messages": [message | {"type": "text"}]}))
    assert answer.json()["accepted"] == 1
    assert is_suppressed(db)
    assert ends(db) == ["replied"]


def test_a_reply_from_before_the_enrollment_ends_nothing(
    served: Served, db: Db, clock: Clock
) -> None:
    event = {"type": "reply", "address": PHONE, "text": "Hello?"}
    event["at"] = (clock.now() - timedelta(hours=1)).isoformat()
    enroll(db, "webhook")
    assert served.post(hooks.webhook(event)).status == 200
    assert ends(db) == [None]


def test_an_answer_within_the_second_of_the_enrollment_counts(
    served: Served, db: Db, clock: Clock
) -> None:
    second = clock.now()
    clock.set(second + timedelta(milliseconds=700))
    enroll(db, "whatsapp_cloud")
    message = {"from": PHONE[1:], "timestamp": str(int(second.timestamp()))}
    assert served.post(hooks.meta({"messages": [message]})).status == 200
    assert ends(db) == ["replied"]


@pytest.mark.parametrize("title", ["a\0b", "a\ud800b"])
def test_a_failure_told_in_odd_words_resolves_a_send(
    served: Served, db: Db, title: str
) -> None:
    enroll(db, "whatsapp_cloud")
    [one] = messages = stage.claim(db)
    stage.begin(db, messages)
    stage.report(db, messages, "uncertain")
    told: dict[str, Any] = {"id": "wamid.1", "status": "failed"}
    told |= {"errors": [{"code": "contact", "title": title}]}
    told["biz_opaque_callback_data"] = str(
        Reference(one["enrollment_id"], one["step"], one["token"])
    )
    assert served.post(hooks.meta({"statuses": [told]})).json()["accepted"] == 1
    assert stage.live(db) == []


@pytest.mark.parametrize(("status", "left"), [("delivered", [3]), ("failed", [])])
@pytest.mark.parametrize("channel", ["whatsapp_cloud", "twilio"])
def test_a_reference_resolves_a_send_whose_outcome_was_lost(
    served: Served, db: Db, channel: str, status: str, left: list[int]
) -> None:
    enroll(db, channel)
    messages = stage.claim(db)
    stage.begin(db, messages)
    assert stage.report(db, messages, "uncertain") == ["parked"]
    [one] = messages
    reference = str(Reference(one["enrollment_id"], one["step"], one["token"]))
    if channel == "twilio":
        form = {"MessageSid": "SM1", "MessageStatus": status, "ErrorCode": "contact"}
        answer = served.post(hooks.twilio(form, f"?reference={reference}"))
    else:
        told = {"id": "wamid.1", "status": status, "errors": [{"code": "contact"}]}
        told["biz_opaque_callback_data"] = reference
        answer = served.post(hooks.meta({"statuses": [told]}))
    assert answer.status == 200
    assert [row["step"] for row in stage.live(db)] == left
    assert receipts(db) == (["delivered"] if status == "delivered" else receipts(db))


# Who is believed


def another_secret(request: hooks.Request) -> hooks.Request:
    signed = hooks.hub("gowa", request.body, "another-secret-of-somebody")
    return replace(request, headers=request.headers | signed.headers)


def a_field_more(request: hooks.Request) -> hooks.Request:
    body = request.body
    more = b"&a=b" if b"MessageSid" in body else b" "
    return replace(request, body=body + more)


def reserialised(request: hooks.Request) -> hooks.Request:
    body = json.dumps(json.loads(request.body), indent=1).encode()
    return replace(request, body=body)


MUTATIONS: dict[str, Callable[[hooks.Request], hooks.Request]] = {
    "not signed": lambda one: replace(
        one, headers={"Content-Type": one.headers["Content-Type"]}
    ),
    "by another secret": another_secret,
    "cut off": lambda one: replace(one, body=one.body[:-2]),
    "with more in it": a_field_more,
    "changed": lambda one: replace(one, body=one.body.swapcase()),
    "serialised again": reserialised,
    "at another path": lambda one: replace(one, path=f"{one.path}?a=b"),
}
# Twilio signs the URL and what a form says, GoWA and Meta sign like another_secret.
HARMLESS = {
    *((name, "at another path") for name in PROVIDERS if name != "twilio"),
    ("twilio", "serialised again"),
    ("twilio", "by another secret"),
    ("webhook", "by another secret"),
}


@pytest.mark.parametrize(
    ("channel", "mutation"),
    [
        (channel, mutation)
        for channel in PROVIDERS
        for mutation in MUTATIONS
        if (channel, mutation) not in HARMLESS
    ],
)
def test_a_forged_request_is_refused_and_nothing_stored(
    served: Served, db: Db, channel: str, mutation: str
) -> None:
    enroll(db, channel)
    [message] = send(db)
    with stage.unchanged(db):
        for request in (reply(channel, "STOP"), receipt(channel, message, "read")):
            assert served.post(MUTATIONS[mutation](request)).status == 401


def test_a_request_older_than_five_minutes_is_refused(served: Served, db: Db) -> None:
    event = {"type": "stop", "address": PHONE}
    with stage.unchanged(db):
        assert served.post(hooks.webhook(event, age=360)).status == 401
        assert served.post(hooks.webhook(event, age=-360)).status == 401


@pytest.mark.parametrize("channel", PROVIDERS)
def test_a_replayed_request_gets_the_same_answer_and_has_no_effect(
    served: Served, db: Db, channel: str
) -> None:
    first = served.post(reply(channel, "STOP"))
    db.execute("select pgdrip.unsuppress(%s, 'asked to be let in again')", [PHONE])
    second = served.post(reply(channel, "STOP"))
    assert (first.status, first.body) == (second.status, second.body)
    assert not is_suppressed(db)


def test_an_old_secret_is_believed_beside_the_new_one(
    dsn: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEW", "gowa-new-2f38d1b4e7a9c0f5")
    settings = hooks.settings(dsn, gowa_secrets=("NEW", "GOWA_SECRET"))
    body = {"event": "message.ack", "payload": {"ids": [], "receipt_type": "read"}}
    with hooks.served(create_app(settings)) as served:
        assert served.post(hooks.gowa(body)).status == 200
        signed = hooks.hub("gowa", body, "gowa-new-2f38d1b4e7a9c0f5")
        assert served.post(signed).status == 200


def test_two_who_sign_may_give_their_webhooks_the_same_id(
    dsn: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "OTHER", other := "whsec_" + b64encode(b"o" * 12 + b"k" * 12).decode()
    )
    settings = hooks.settings(dsn, webhook_secrets=("HOOK_SECRET", "OTHER"))
    stop = {"type": "stop", "address": PHONE}
    with hooks.served(create_app(settings)) as served:
        assert served.post(hooks.webhook({"type": "none"}, "1")).status == 200
        assert served.post(hooks.webhook(stop, "1", secret=other)).status == 200
    assert is_suppressed(db)


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ({}, 200, b"1158201444"),
        ({"hub.verify_token": "token-1a2b3c4d5e6f7a8c"}, 403, b""),
        ({"hub.verify_token": ""}, 403, b""),
        ({"hub.mode": "unsubscribe"}, 403, b""),
        ({"hub.challenge": "<script>alert(1)</script>"}, 400, b""),
    ],
)
def test_meta_is_answered_its_challenge_for_the_verify_token(
    served: Served, asked: dict[str, str], status: int, body: bytes
) -> None:
    query = {
        "hub.mode": "subscribe",
        "hub.verify_token": hooks.SECRETS["META_TOKEN"],
        "hub.challenge": "1158201444",
    } | asked
    path = f"/hooks/whatsapp_cloud?{urlencode(query)}"
    answer = served.ask("GET", path)
    assert (answer.status, answer.body) == (status, body)
    assert not answer.body or answer.headers["content-type"].startswith("text/plain")


def test_twilio_gets_an_answer_that_sends_no_message(served: Served) -> None:
    answer = served.post(reply("twilio", "Hello"))
    assert answer.headers["content-type"].startswith("text/xml")
    assert answer.body.endswith(b"<Response></Response>")


@pytest.mark.parametrize("path", ["/hooks/gowa", "/hooks/twilio", "/hooks/webhook"])
def test_nobody_else_is_answered_a_get(served: Served, path: str) -> None:
    assert served.ask("GET", path).status == 405


def test_a_path_with_a_slash_too_many_is_not_redirected(served: Served) -> None:
    signed = reply("gowa", "Hello")
    assert served.post(replace(signed, path=f"{signed.path}/")).status == 404


# Unsubscribe links


def link(address: str, secret: str = "LINK_SECRET") -> str:
    base = "/unsubscribe"
    return sign_unsubscribe(address, hooks.SECRETS[secret], base_url=base)


def test_a_post_to_the_link_of_a_mail_unsubscribes_at_once(
    served: Served, db: Db
) -> None:
    path = link("Jane@Example.com")
    one_click = b"List-Unsubscribe=One-Click"
    for body in (one_click, b""):
        answer = served.ask("POST", path, body, {"Content-Type": hooks.FORM})
        assert answer.status == 200
        assert "location" not in answer.headers
        assert "set-cookie" not in answer.headers
    assert is_suppressed(db, "jane@example.com")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_scanner_that_follows_the_link_unsubscribes_nobody(
    served: Served, db: Db, method: str
) -> None:
    answer = served.ask(method, link("jane@example.com"))
    assert answer.status == 200
    assert (b'<form method="post">' in answer.body) == (method == "GET")
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not is_suppressed(db, "jane@example.com")


@pytest.mark.parametrize(
    "path",
    [
        link("jane@example.com", "GOWA_SECRET"),
        link("jane@example.com")[:-1],
        link("jane@example.com").replace("/unsubscribe/", "/unsubscribe/A"),
        "/unsubscribe/" + b64encode(b"jane@example.com").decode(),
        "/unsubscribe/%00",
        "/unsubscribe/<script>",
    ],
)
def test_a_forged_link_unsubscribes_nobody(served: Served, db: Db, path: str) -> None:
    with stage.unchanged(db):
        for method in ("GET", "POST"):
            answer = served.ask(method, path)
            assert answer.status == 403
            assert b"script" not in answer.body


# When the database is not there


def test_a_lost_connection_is_replaced_without_anybody_noticing(
    served: Served, db: Db
) -> None:
    assert served.post(reply("gowa", "Hello")).status == 200
    db.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = 'pgdrip serve' and datname = current_database()"
    )
    assert served.post(reply("gowa", "STOP")).status == 200
    assert is_suppressed(db)


def test_without_the_database_everybody_is_asked_to_come_again(
    served: Served, db: Db, server: Databases, dsn: str
) -> None:
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    allow = sql.SQL("alter database {} allow_connections {}")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(allow.format(name, sql.Literal(False)))
        try:
            answers = [
                served.post(reply("gowa", "STOP")),
                served.ask("POST", link("jane@example.com")),
                served.ask("GET", "/readyz"),
            ]
            assert served.ask("GET", "/livez").status == 200
        finally:
            admin.execute(allow.format(name, sql.Literal(True)))
    assert [answer.status for answer in answers] == [503] * 3
    assert {answer.headers["retry-after"] for answer in answers} == {"5"}
    assert served.ask("GET", "/readyz").status == 200
    assert served.post(reply("gowa", "STOP")).status == 200
    assert is_suppressed(db)


def test_an_answer_does_not_wait_for_a_lock_for_ever(
    served: Served, db: Db, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(db, "gowa")
    monkeypatch.setattr(engines_module, "WAIT", 0.5)
    holder = connect()
    with holder.transaction():
        holder.execute("select from pgdrip.contacts for update")
        assert served.post(reply("gowa", "Hello")).status == 503
    assert served.post(reply("gowa", "Hello")).status == 200
    assert ends(db) == ["replied"]


def test_a_schema_it_does_not_know_ends_the_server(empty: str) -> None:
    app = create_app(hooks.settings(empty))
    with listen("127.0.0.1", 0) as listener, pytest.raises(SchemaMismatch):
        asyncio.run(run(app, listener))


# Starting


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not set"),
        ("", "not set"),
        ("secret", "everybody knows"),
        ("your-webhook-secret", "everybody knows"),
        ("x" * 40, "everybody knows"),
        ("15-characters!!", "less than 16"),
        ("short" + " " * 20, "less than 16"),
    ],
)
@pytest.mark.parametrize(
    "name", ["GOWA_SECRET", "META_SECRET", "META_TOKEN", "TWILIO_SECRET", "LINK_SECRET"]
)
def test_a_secret_that_strangers_can_guess_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, reason: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=reason) as refused:
        create_app(hooks.settings(""))
    assert name in refused.value.message
    assert not value or len(value) < 7 or value not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "no base64: ü!"],
)
def test_the_key_of_signed_webhooks_is_base64_nobody_has_published(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOOK_SECRET", value)
    with pytest.raises(ConfigurationError, match="HOOK_SECRET"):
        create_app(hooks.settings(""))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"public_url": None}, "no usable public URL: twilio"),
        ({"public_url": "hooks.example.com"}, "no usable public URL"),
        ({"public_url": "https://user:word@hooks.example.com"}, "no usable public URL"),
        ({"public_url": "https://hooks.example.com/?a=b"}, "no usable public URL"),
        ({"public_url": "https://hooks.example.com:99999"}, "no usable public URL"),
        ({"public_url": "https://[::1"}, "no usable public URL"),
        ({"whatsapp_verify_token": None}, "needs a verify token"),
    ],
)
def test_half_a_configuration_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        create_app(hooks.settings("", **changed))


def test_what_has_no_secret_is_not_served(dsn: str) -> None:
    names = ("gowa", "whatsapp", "twilio", "webhook", "unsubscribe")
    none: dict[str, Any] = {f"{name}_secrets": () for name in names}
    with pytest.raises(ConfigurationError, match="nothing to serve"):
        create_app(hooks.settings(dsn, **none))
    only_gowa = hooks.settings(dsn, **none | {"gowa_secrets": ("GOWA_SECRET",)})
    with hooks.served(create_app(only_gowa)) as served:
        assert served.post(reply("gowa", "Hello")).status == 200
        assert served.post(reply("twilio", "Hello")).status == 404
        assert served.ask("POST", link("jane@example.com")).status == 404


def test_other_routes_are_served_beside_the_webhooks(dsn: str) -> None:
    async def page(request: Request) -> PlainTextResponse:
        version = await request.app.state.engines.run(lambda one: one.schema_version())
        return PlainTextResponse(version)

    app = create_app(hooks.settings(dsn), routes=[Route("/page", page)])
    with hooks.served(app) as served:
        assert served.ask("GET", "/page").body
        assert served.post(reply("gowa", "Hello")).status == 200


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("--address 8080", 2, "not host:port"),
        ("--address localhost:70000", 2, "not host:port"),
        ("--address [::1]:", 2, "not host:port"),
        ("--rate 0", 2, "not in the range"),
        ("--connections 0", 2, "not in the range"),
        ("--twilio-secret TWILIO_SECRET", 3, "no usable public URL"),
        ("--public-url ftp://x --twilio-secret TWILIO_SECRET", 3, "no usable public"),
        ("--whatsapp-secret META_SECRET", 3, "needs a verify token"),
        ("--webhook-secret META_SECRET", 3, "is not the base64"),
        ("--gowa-secret /nowhere/secret", 3, "No such file"),
        ("", 3, "nothing to serve"),
    ],
)
def test_serve_does_not_start_with_options_that_cannot_be(
    options: str, code: int, reason: str
) -> None:
    command = [sys.executable, "-m", "pgdrip", "--dsn", "dbname=none", "serve"]
    command += ["--address", "127.0.0.1:0", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, reason in done.stderr) == (code, True)


def test_serve_says_which_extra_it_needs() -> None:
    without = "import sys; sys.modules['uvicorn'] = None; from pgdrip.cli import main;"
    command = [sys.executable, "-c", f"{without} main(['serve'])"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "uvicorn is not installed (pip install 'pgdrip[serve]')" in done.stderr


def test_serve_answers_until_sigterm_and_logs_no_address(dsn: str, db: Db) -> None:
    command = [sys.executable, "-m", "pgdrip", "--dsn", dsn, "serve"]
    command += ["--address", "127.0.0.1:0", "--unsubscribe-secret", "LINK_SECRET"]
    several = {"PGDRIP_SERVE_GOWA_SECRETS": "META_SECRET GOWA_SECRET"}
    env = os.environ | hooks.SECRETS | several
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    try:
        started = json.loads(process.stderr.readline())
        served = Served(int(re.sub(r".*:", "", started["listens"])))
        path = link("jane@example.com")
        assert served.ask("POST", path).status == 200
        assert served.post(reply("gowa", "Hello")).status == 200
        forged = replace(reply("gowa", "STOP"), body=b"{}")
        assert served.post(forged).status == 401
    finally:
        process.send_signal(signal.SIGTERM)
        logged = process.stderr.read()
        process.stderr.close()
    assert process.wait(20) == 0
    assert is_suppressed(db, "jane@example.com")
    assert "forged webhook" in logged
    for word in ("jane@example.com", path.split("/")[2], PHONE[1:]):
        assert word not in logged
