"""No text of anybody becomes SQL, a template, a header, a line of a log or a page."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import hostile
import stage
from databases import Databases
from stage import Db
from test_fuzz import API, harm, signatures

SENDER = {
    "name": "device-0002",
    "channel": "webhook",
    "pool": "default",
    "secret": "HOOK_SECRET",
    "hours": {"from": "09:00", "to": "21:00", "zone": "UTC"},
    "config": {"url": "https://example.com"},
}
SEQUENCE = {
    "name": "NEW",
    "trigger": "NEW",
    "channel": "webhook",
    "pool": "default",
    "goal": "bought",
    "exit_when": {"status": "customer"},
    "on_complete": {"add_trigger": "HOT"},
    "steps": [
        {
            "day": 1,
            "body": "Hi {{name|there}}",
            "only_if": {"city": "Ipoh"},
            "wait_for": {"event": "clicked", "timeout": "1 day"},
        },
        {
            "day": 3,
            "variants": [{"weight": 1, "body": "a"}, {"weight": 1, "body": "b"}],
        },
    ],
}
PERSON = {
    "phone": "+60119999999",
    "email": "new@example.com",
    "name": "New",
    "timezone": "UTC",
    "sender": "device-0001",
    "attributes": {"city": "Ipoh"},
    "triggers": ["WARM"],
}
# What a call takes where it is not the argument that is tried.
GIVEN: dict[str, Any] = {
    "p_action": "looked",
    "p_address": "+60110000002",
    "p_attributes": {"city": "Ipoh"},
    "p_channel": "webhook",
    "p_channels": ["webhook"],
    "p_codes": ["transient"],
    "p_contact": 2,
    "p_contacts": [PERSON],
    "p_definition": SEQUENCE,
    "p_details": ["busy"],
    "p_email": None,
    "p_enrollment": 2,
    "p_enrollments": "<enrollments>",
    "p_event": "clicked",
    "p_is_up": True,
    "p_keep": "400 days",
    "p_lease": "1 minute",
    "p_limit": 10,
    "p_name": None,
    "p_object": "something",
    "p_outcome": "sent",
    "p_outcomes": ["failed"],
    "p_payload": {"page": "prices"},
    "p_phone": "+60110000002",
    "p_pool": "default",
    "p_provider_id": "wamid.1",
    "p_provider_ids": ["wamid.1"],
    "p_reason": "asked to",
    "p_runner": "runner-1",
    "p_sender": "device-0001",
    "p_sequence": "WARM Sequence",
    "p_start": "2026-01-05 09:00Z",
    "p_status": "delivered",
    "p_text": "Yes",
    "p_timezone": None,
    "p_token": "<token>",
    "p_tokens": "<tokens>",
    "p_trigger": "WARM",
    "p_version": "1.6",
}
GROUP = {"name": "account-1", "rate": 80, "per": "1 second"}
OF_ONE: dict[str, dict[str, Any]] = {
    "apply_sender": {"p_definition": SENDER},
    "apply_group": {"p_definition": GROUP},
    "forecast": {"p_contacts": 5},
}
TEXTUAL = {"text", "text[]", "jsonb"}


@pytest.fixture(scope="module")
def world(server: Databases) -> Iterator[tuple[Db, dict[str, Any]]]:
    """A database with work in every state, and what calls can be given of it."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        hostile.canary(db)
        stage.sender(db)
        stage.sequence(db)
        stage.leads(db, 4)
        messages = stage.claim(db, 3)
        stage.begin(db, messages)
        stage.report(db, messages[:1], "uncertain")
        yield (
            db,
            GIVEN
            | {
                "p_enrollments": [messages[1]["enrollment_id"]],
                "p_tokens": [messages[1]["token"]],
                "p_token": messages[0]["token"],
            },
        )


def planted(value: Any, text: str) -> Iterator[Any]:
    """The value with the text in the place of one of its texts, or of its keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            rest = {one: value[one] for one in value if one != key}
            yield rest | {text: inner}
            for changed in planted(inner, text):
                yield value | {key: changed}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for changed in planted(inner, text):
                yield [*value[:place], changed, *value[place + 1 :]]
    elif value is None or isinstance(value, str):
        yield text


def arguments(db: Db, name: str) -> list[str]:
    row = stage.one(
        db,
        "select coalesce(proargnames[1:pronargs], '{}') as names"
        "  from pg_catalog.pg_proc"
        " where pronamespace = 'pgdrip'::regnamespace and proname = %s",
        [name],
    )
    names: list[str] = row["names"]
    return names


@pytest.mark.parametrize("name", API)
def test_no_text_given_to_a_function_is_taken_for_anything_else(
    world: tuple[Db, dict[str, Any]], name: str
) -> None:
    db, given = world
    types = signatures(db)[name]
    names = arguments(db, name)
    call = f"select * from pgdrip.{name}({', '.join(f'%s::{one}' for one in types)})"
    values = [(given | OF_ONE.get(name, {})).get(one) for one in names]
    before = hostile.schema(db)
    for place, kind in enumerate(types):
        if kind not in TEXTUAL:
            continue
        for what, text in hostile.TEXTS.items():
            if what == "surrogate" and kind != "jsonb":
                continue  # which no client can write
            for changed in planted(values[place], text):
                used: list[Any] = [*values[:place], changed, *values[place + 1 :]]
                used = [
                    Jsonb(one) if of == "jsonb" and one is not None else one
                    for one, of in zip(used, types, strict=True)
                ]
                with db.transaction(force_rollback=True):
                    db.execute("set local role pgdrip_operator")
                    assert harm(db, call, tuple(used)) is None, (names[place], what)
                    assert hostile.schema(db) == before, (names[place], what)
    assert stage.one(db, "select state from public.canary") == {"state": "alive"}
