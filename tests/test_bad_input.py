"""What the database refuses: each case with its SQLSTATE, and nothing written.

What the command line, files, webhooks and media refuse stands in their own tests.
"""

import json
import re
from typing import Any

import psycopg
import pytest
from psycopg import sql

import stage
from stage import Db

PHONE = "+60110000001"
SEQUENCE: dict[str, Any] = {
    "name": "NEW",
    "trigger": "NEW",
    "channel": "webhook",
    "steps": [{"day": 1, "body": "Hi {{name|there}}"}],
}


def definition(**changes: Any) -> str:
    return quoted("apply_sequence", SEQUENCE | changes)


def step(**changes: Any) -> str:
    return definition(steps=[SEQUENCE["steps"][0] | changes])


def sender(**changes: Any) -> str:
    base = {"name": "new", "channel": "webhook"}
    return quoted("apply_sender", base | changes)


def quoted(function: str, content: object) -> str:
    literal = sql.Literal(json.dumps(content)).as_string()
    return f"select pgdrip.{function}({literal}::jsonb)"


REPORT = "select pgdrip.report(array[<claimed>], array[<token>], "
CASES: dict[str, tuple[str, str]] = {
    # Calls of a runner
    "a token that is no number": (
        "select pgdrip.report('{1}', '{abc}', '{sent}')",
        "22P02",
    ),
    "no tokens": ("select pgdrip.report('{1}', null, '{sent}')", "22004"),
    "no enrollments": ("select pgdrip.report(null, '{1}', '{sent}')", "22004"),
    "a token that is NULL": (
        "select pgdrip.report('{1,1}', '{1,null}', '{sent,sent}')",
        "22004",
    ),
    "fewer tokens": ("select pgdrip.report('{1,2}', '{1}', '{sent}')", "22023"),
    "more outcomes": (REPORT + "'{sent,sent}')", "22023"),
    "fewer codes": (REPORT + "'{sent}', null, '{}')", "22023"),
    "an outcome in capitals": (REPORT + "'{SENT}')", "22023"),
    "an empty outcome": (REPORT + "array[''])", "22023"),
    "an outcome of NULL": (REPORT + "array[null::text])", "22004"),
    "claim nothing": ("select pgdrip.claim('r', 0)", "22023"),
    "claim less than nothing": ("select pgdrip.claim('r', -1)", "22023"),
    "claim too many": ("select pgdrip.claim('r', 1001)", "22023"),
    "claim NULL": ("select pgdrip.claim('r', null)", "22004"),
    "claim a bigint": ("select pgdrip.claim('r', 2147483648)", "42883"),
    "a negative lease": ("select pgdrip.claim('r', 1, '-1 s')", "22023"),
    "a lease of nothing": ("select pgdrip.claim('r', 1, '0')", "22023"),
    "a lease of NULL": ("select pgdrip.claim('r', 1, null)", "22004"),
    "a lease of soon": ("select pgdrip.claim('r', 1, 'soon')", "22007"),
    "a lease over an hour": ("select pgdrip.claim('r', 1, '61 min')", "22023"),
    "an endless lease": ("select pgdrip.claim('r', 1, '170000 years')", "22023"),
    "a runner of NULL": ("select pgdrip.claim(null)", "22004"),
    "a runner without a name": ("select pgdrip.claim('')", "22023"),
    "a runner with a long name": ("select pgdrip.claim(repeat('r', 1000))", "22023"),
    "a channel with a long name": (
        "select pgdrip.claim('r', 1, '1 min', array[repeat('c', 64)])",
        "22023",
    ),
    "a heartbeat of NULL": ("select pgdrip.heartbeat(null, null)", "22004"),
    "a release of NULL": ("select pgdrip.release('{1}', '{null}')", "22004"),
    # Enrollment
    "enroll nobody": ("select pgdrip.enroll('WARM Sequence', 987654)", "MD001"),
    "enroll into nothing": ("select pgdrip.enroll('NONE', <contact>)", "MD001"),
    "enroll into a draft": ("select pgdrip.enroll('DRAFT', <contact>)", "MD002"),
    "enroll into an archive": ("select pgdrip.enroll('OLD', <contact>)", "MD002"),
    "enroll NULL": ("select pgdrip.enroll('WARM Sequence', null)", "22004"),
    "enroll into NULL": ("select pgdrip.enroll(null, <contact>)", "22004"),
    "enroll once more": ("select pgdrip.enroll('DONE', <done>)", "MD003"),
    "enroll the suppressed": (
        "select pgdrip.enroll('WARM Sequence', <suppressed>)",
        "MD004",
    ),
    "start at no time": (
        "select pgdrip.enroll('WARM Sequence', <contact>, 'infinity')",
        "22023",
    ),
    "start before all time": (
        "select pgdrip.enroll('WARM Sequence', <contact>, '-infinity')",
        "22023",
    ),
    "start after all time": (
        "select pgdrip.enroll('WARM Sequence', <contact>,"
        " now() + interval '300000 years')",
        "22008",
    ),
    "a blank word": ("select pgdrip.add_trigger(<contact>, '  ')", "22023"),
    "a hard space": ("select pgdrip.add_trigger(<contact>, U&'\\00a0')", "22023"),
    "a word nobody sees": ("select pgdrip.add_trigger(<contact>, U&'\\200b')", "22023"),
    "two words": ("select pgdrip.add_trigger(<contact>, 'A,B')", "22023"),
    # Operators
    "settle what is certain": (
        "select pgdrip.resolve_uncertain(<token>, 'sent')",
        "MD003",
    ),
    "settle what is unknown": ("select pgdrip.resolve_uncertain(1, 'sent')", "MD001"),
    "settle it as lost": ("select pgdrip.resolve_uncertain(<token>, 'lost')", "22023"),
    "pause without a reason": ("select pgdrip.pause_all(null)", "22004"),
    "pause for a blank reason": ("select pgdrip.pause_all(' ')", "22023"),
    # Contacts
    "no phone": ("select pgdrip.upsert_contact('')", "22023"),
    "no number": ("select pgdrip.upsert_contact('abc')", "22023"),
    "16 digits": ("select pgdrip.upsert_contact('+1234567890123456')", "22023"),
    "a newline": ("select pgdrip.upsert_contact(E'+60123456789\\n')", "22023"),
    "Arabic digits": ("select pgdrip.upsert_contact('+٦٠١٢٣٤٥٦٧٨٩')", "22023"),
    "a spreadsheet's number": ("select pgdrip.upsert_contact('6.01E+10')", "22023"),
    "phone and email of two": (
        "select pgdrip.upsert_contact('<phone>', 'two@example.com')",
        "MD003",
    ),
    "attributes of a list": (
        "select pgdrip.upsert_contact('<phone>', p_attributes => '[1]')",
        "23514",
    ),
    "attributes too deep": (
        "select pgdrip.upsert_contact('<phone>', p_attributes =>"
        " (repeat('{\"a\":', 9) || '1' || repeat('}', 9))::jsonb)",
        "23514",
    ),
    "attributes of 20 kB": (
        "select pgdrip.upsert_contact('<phone>', p_attributes =>"
        " jsonb_build_object('a', repeat('x', 20000)))",
        "23514",
    ),
    "a NUL in JSON": (
        "select pgdrip.upsert_contact('<phone>',"
        ' p_attributes => \'{"a": "\\u0000"}\')',
        "22P05",
    ),
    "half a character in JSON": (
        "select pgdrip.upsert_contact('<phone>',"
        ' p_attributes => \'{"a": "\\ud800"}\')',
        "22P02",
    ),
    "no JSON": (
        "select pgdrip.upsert_contact('<phone>', p_attributes => '{a: 1}')",
        "22P02",
    ),
    "a planet's zone": (
        "select pgdrip.upsert_contact('<phone>', p_timezone => 'Mars/Base')",
        "22023",
    ),
    "an unknown sender": (
        "select pgdrip.upsert_contact('<phone>', p_sender => 'none')",
        "MD001",
    ),
    # Definitions
    "a negative delay": (step(delay="-1 hour"), "MD008"),
    "a delay of months": (step(delay="1 mon -29 days"), "MD008"),
    "an endless delay": (step(delay="infinity"), "MD008"),
    "day 0": (step(day=0), "MD008"),
    "day -1": (step(day=-1), "MD008"),
    "day 40000": (step(day=40000), "MD008"),
    "a day twice": (definition(steps=SEQUENCE["steps"] * 2), "MD008"),
    "no steps": (definition(steps=[]), "MD008"),
    "an empty trigger": (definition(trigger=""), "MD008"),
    "a blank trigger": (definition(trigger="\u00a0"), "MD008"),
    "an unknown key": (definition(tigger="x"), "MD008"),
    "an unknown channel": (definition(channel="pigeon"), "MD008"),
    "25 o'clock": (definition(window={"from": "25:00", "to": "26:00"}), "MD008"),
    "a zone of no place": (
        definition(window={"from": "09:00", "to": "12:00", "zone": "Mars/Base"}),
        "MD008",
    ),
    "a mistyped variable": (step(body="Hi {{nmae}}"), "MD008"),
    "an open variable": (step(body="Hi {{name"), "MD008"),
    "a body of 1 MB": (step(body="x" * 1_000_000), "MD008"),
    "10,000 variables": (step(body="{{name|x}}" * 10_000), "MD008"),
    "a subject of two lines": (step(subject="Hi\r\nBcc: x"), "MD008"),
    "a definition that is a list": ("select pgdrip.apply_sequence('[]')", "MD008"),
    "a definition of NULL": ("select pgdrip.apply_sequence(null)", "22004"),
    "a rate below nothing": (sender(rate_per_hour=-1), "MD008"),
    "gaps the wrong way": (sender(gap_min="5 min", gap_max="1 min"), "MD008"),
    "a ramp that falls": (
        sender(rate_per_hour=80, ramp={"1": 50, "7": 20}),
        "MD008",
    ),
    "a secret in the config": (sender(config={"password": "x"}), "MD008"),
    # Other tables' keys
    "a sender with work": ("select pgdrip.delete_sender('device-0001')", "MD003"),
    "a step in use": ("delete from pgdrip.steps", "23503"),
    "a contact in use": ("delete from pgdrip.contacts", "23503"),
    "a due time without end": ("update pgdrip.due set due_at = 'infinity'", "23514"),
}


@pytest.fixture
def world(db: Db) -> dict[str, int | str]:
    """Somebody in every state a case needs."""
    stage.sender(db)
    stage.sequence(db)
    stage.sequence(db, "DRAFT", trigger="DRAFT", status="draft")
    stage.sequence(db, "OLD", trigger="OLD")
    db.execute("select pgdrip.archive_sequence('OLD')")
    stage.sequence(db, "DONE", trigger="DONE", steps=[{"day": 1, "body": "One"}])
    done = stage.lead(db, 4, "DONE")
    stage.deliver(db)
    contact = stage.lead(db, 1)
    stage.lead(db, 2, None, p_email="two@example.com")
    suppressed = stage.lead(db, 3, None)
    db.execute("select pgdrip.suppress('+60110000003', 'asked to')")
    [message] = stage.claim(db)
    stage.begin(db, [message])
    return {
        "phone": PHONE,
        "contact": contact,
        "suppressed": suppressed,
        "done": done,
        "claimed": message["enrollment_id"],
        "token": message["token"],
    }


def test_what_is_refused_has_its_code_and_a_hint_and_writes_nothing(
    db: Db, world: dict[str, int | str]
) -> None:
    before = stage.contents(db)
    for name, (statement, code) in CASES.items():
        text = re.sub("<([a-z]+)>", lambda found: str(world[found[1]]), statement)
        with pytest.raises(psycopg.Error) as caught:
            db.execute(text.encode())
        assert caught.value.sqlstate == code, (name, str(caught.value))
        if code.startswith("MD") or code in {"22004", "22023"}:
            assert caught.value.diag.message_hint, name
        assert stage.contents(db) == before, name


@pytest.mark.parametrize("name", ['"; DROP TABLE x', "%I", "%s", "$$", "'", "{{name}}"])
def test_a_name_is_data_wherever_it_goes(db: Db, name: str) -> None:
    stage.sender(db, name, config={"url": "https://example.com"})
    stage.sequence(
        db, name, trigger=name, steps=[{"day": 1, "body": "Hi {{name}}"}], pool=name
    )
    stage.sender(db, f"{name} too", pool=name)
    contact = stage.lead(db, 1, None, p_name=name, p_pool=name)
    db.execute("select pgdrip.add_trigger(%s, %s)", [contact, name])
    [message] = stage.claim(db)
    assert message["body"] == f"Hi {name}"
    assert message["sequence"] == name
    assert stage.violations(db) == []
