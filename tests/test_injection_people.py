"""What people write and are called goes out as they wrote it and does nothing else."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.types.json import Jsonb

import hooks
import hostile
import stage
from commands import invoke
from hooks import Served
from pgdrip.engine import Metric
from pgdrip.inbound.app import create_app
from pgdrip.inbound.metrics import exposition
from pgdrip.inbound.settings import Settings
from pgdrip.web.access import Access
from pgdrip.web.app import page_routes
from pgdrip.web.tallying import Tallying
from stage import Db
from test_inbound import PROVIDERS, ends, enroll, receipt, reply
from test_mail import read

TEXTS = hostile.SHORT


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hooks.SECRETS.items():
        monkeypatch.setenv(name, value)


def one_line(text: str) -> str:
    """A name as it is stored."""
    return re.sub("[\x01-\x1f]+", " ", text).strip()


def visible(text: str) -> str:
    """A value as it is rendered: without what nobody sees."""
    return re.sub("[\x01-\x1f\x7f-\x9f\u200b\u202e\u2066]+", " ", text).strip()


@pytest.fixture
def message(db: Db) -> Any:
    """What is claimed of somebody of that name who has the text as an attribute too."""
    steps = [
        {
            "day": 1,
            "subject": "{{name}}, {{note}}",
            "body": "Hi {{name}}\n{{note}}",
            "html": "<p>Hi {{name}}</p>{{note}}",
            "media": {"type": "image", "url": "https://example.com/{{note}}"},
        }
    ]
    stage.sender(
        db, channel="smtp", config={"host": "localhost", "from": "a@b.example"}
    )
    stage.sequence(db, channel="smtp", steps=steps)

    def of(number: int, text: str) -> Any:
        email, note = f"odd{number}@example.com", Jsonb({"note": text})
        stage.lead(db, number, p_email=email, p_name=text, p_attributes=note)
        [found] = stage.claim(db)
        return found

    return of


Claim = Callable[[int, str], Any]


def test_a_text_is_rendered_as_text_and_escaped_where_it_is_html(
    message: Claim, db: Db
) -> None:
    hostile.canary(db)
    before = hostile.schema(db)
    for number, (what, text) in enumerate(TEXTS.items()):
        found = message(number, text)
        name, note = visible(one_line(text)), visible(text)
        assert found["subject"] == f"{name}, {note}", what
        assert found["body"] == f"Hi {name}\n{note}", what
        content = found["content"]
        assert unescape(content["html"]) == f"<p>Hi {name}</p>{note}", what
        assert "<script" not in content["html"]
        media = {"type": "image", "url": f"https://example.com/{note}"}
        assert content["media"] == media, what
    assert hostile.schema(db) == before


def test_a_text_makes_no_header_of_a_mail(message: Claim) -> None:
    plain = set(read(content={"html": "x"}).keys())
    for number, (what, text) in enumerate(TEXTS.items()):
        found = message(number, text)
        mail = read(
            subject=found["subject"],
            body=found["body"],
            content={"html": found["content"]["html"]},
        )
        assert set(mail.keys()) == plain, what
        assert mail["Subject"] == found["subject"], what


def test_a_text_is_no_html_of_the_page(dsn: str, db: Db, message: Claim) -> None:
    for number, text in enumerate(TEXTS.values()):
        stage.report(db, [message(number, text)], "failed", "content")
    routes = page_routes(Access(), Tallying(dsn))
    with hooks.served(create_app(Settings(dsn=dsn), routes=routes)) as served:
        for number in range(1, len(TEXTS) + 1):
            for path in ("/failures", f"/contact?id={number}&simulate=WARM%20Sequence"):
                answer = served.ask("GET", path, headers={"Host": "localhost"})
                assert answer.status == 200, path
                page = answer.body.decode()
                assert hostile.is_quiet(page.replace("\r", "")), path
                assert "alert(1)</script>" not in page
                assert "<img src=x" not in page


def test_a_text_is_one_cell_of_an_export_and_no_formula(
    dsn: str, message: Claim
) -> None:
    for number, text in enumerate(TEXTS.values()):
        message(number, text)
    done = invoke("export", "contacts", PGDRIP_DSN=dsn)
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    names = [row["name"].removeprefix("'") for row in rows]
    assert names == [one_line(text).removeprefix("'") for text in TEXTS.values()]
    cells = [cell for row in rows for key, cell in row.items() if key != "phone"]
    assert not [cell for cell in cells if re.match(r"[=+@\t\r-]", cell)]


def test_a_text_is_one_label_of_one_metric() -> None:
    told = list(TEXTS.values())
    samples = [Metric("x", one, "gauge", {"of": one}, Decimal(1)) for one in told]
    [family] = text_string_to_metric_families(exposition(samples))
    assert [sample.labels["of"] for sample in family.samples] == told


# Webhooks


@pytest.fixture
def served(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that waits half a second for a body."""
    with hooks.served(create_app(hooks.settings(dsn, body_seconds=0.5))) as found:
        yield found


@pytest.mark.parametrize("channel", PROVIDERS)
def test_whatever_somebody_answers_is_an_answer(
    served: Served, db: Db, channel: str
) -> None:
    hostile.canary(db)
    before = hostile.schema(db)
    enroll(db, channel, len(TEXTS))
    for number, (what, text) in enumerate(TEXTS.items(), start=1):
        phone = f"+6011{number:07}"
        request = reply(channel, text, phone)
        if channel == "webhook":
            request = hooks.webhook(request.body, f"msg_{number}")
        answer = served.post(request)
        assert answer.status == 200, what
        assert [one == "replied" for one in ends(db)].count(True) == number, what
    assert hostile.schema(db) == before


@pytest.mark.parametrize("channel", PROVIDERS)
def test_whatever_a_gateway_calls_a_message_is_a_name(
    served: Served, db: Db, channel: str
) -> None:
    hostile.canary(db)
    before = hostile.schema(db)
    for number, (what, text) in enumerate(hostile.TEXTS.items()):
        if what == "surrogate":
            continue  # which no form and no UTF-8 has
        if channel == "webhook":
            event = {"type": "read", "provider_id": text}
            answer = served.post(hooks.webhook(event, f"msg_{number}"))
        else:
            answer = served.post(receipt(channel, text, "read"))
        assert answer.status in {200, 400}, what
        assert b"canary" not in answer.body
    assert hostile.schema(db) == before
    assert stage.violations(db) == []


@pytest.mark.parametrize("channel", PROVIDERS)
def test_every_provider_is_held_to_size_and_time(
    served: Served, db: Db, channel: str
) -> None:
    request = reply(channel, "STOP")
    large = served.ask("POST", request.path, bytes(2 * 1024 * 1024), request.headers)
    assert large.status == 413
    lines = [f"{key}: {value}" for key, value in request.headers.items()]
    lines += ["Host: localhost", f"Content-Length: {len(request.body)}", "", ""]
    with served.wire() as wire:
        head = "\r\n".join([f"POST {request.path} HTTP/1.1", *lines])
        wire.sendall(head.encode() + request.body[:-1])
        assert wire.recv(100).startswith(b"HTTP/1.1 408")
    assert stage.every(db, "select from pgdrip.suppressions") == []
