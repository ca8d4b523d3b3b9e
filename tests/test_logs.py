"""Logs: one shape for all, and no address or password in them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import hostile
from pgdrip import logs

PASSWORD = "hunter2"
LOGIN, MASKED_LOGIN = f"user:{PASSWORD}", "user:…"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged_json(stream: io.StringIO) -> Any:
    [line] = stream.getvalue().splitlines()
    return json.loads(line)


def test_not_on_a_terminal_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("pgdrip.runner").info("connected", extra={"runner": "r1"})
    event = logged_json(stream)
    at = event.pop("at")
    assert at.endswith("Z")
    assert event == {
        "event": "connected",
        "level": "info",
        "logger": "pgdrip.runner",
        "runner": "r1",
    }


def test_on_a_terminal_a_line_is_for_people() -> None:
    stream = Terminal()
    logs.configure(stream=stream)
    logging.getLogger("pgdrip").info("connected", extra={"runner": "r1"})
    [line] = stream.getvalue().splitlines()
    assert "connected" in line
    assert "\x1b[" in line
    assert not line.startswith("{")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_text_is_no_line_of_its_own_and_moves_no_cursor(as_json: bool) -> None:
    stream = Terminal()
    logs.configure(stream=stream, as_json=as_json)
    texts = hostile.SHORT
    for text in texts.values():
        logging.getLogger("pgdrip").warning(text, extra={"detail": text, "all": [text]})
    lines = stream.getvalue().split("\n")
    assert len(lines) == len(texts) + 1
    assert all(hostile.is_quiet(line) for line in lines)
    if as_json:
        found = [json.loads(line) for line in lines[:-1]]
        assert [one["detail"] for one in found] == list(map(logs.mask, texts.values()))


def test_a_traceback_has_its_lines_and_no_text_of_others_in_them() -> None:
    stream = Terminal()
    logs.configure(stream=stream)
    try:
        raise ValueError(hostile.TEXTS["terminal"])
    except ValueError:
        logging.getLogger("pgdrip").exception("failed")
    assert len(stream.getvalue().splitlines()) > 3
    assert hostile.is_quiet(stream.getvalue())


def test_json_can_be_asked_for_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure(stream=stream, as_json=True)
    logging.getLogger("pgdrip").info("connected")
    assert logged_json(stream)["event"] == "connected"


def test_the_level_hides_what_is_below_it() -> None:
    stream = io.StringIO()
    logs.configure("WARNING", stream=stream)
    logging.getLogger("pgdrip").info("hidden")
    assert stream.getvalue() == ""


def test_other_libraries_log_in_the_same_shape_and_masked() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("aiohttp.client").warning("no route to %s", "jane@example.com")
    assert logged_json(stream)["event"] == "no route to j…@example.com"


def test_fields_are_masked_also_inside_others() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("pgdrip").info(
        "sent",
        extra={
            "recipient": "+60123456789",
            "email": "nobody",
            "token": 1099511627777,
            "inner": {"phone": "0123", "all": ["to +60123456789", 5]},
        },
    )
    event = logged_json(stream)
    assert event["recipient"] == "+60…89"
    assert event["email"] == "nob…"
    assert event["token"] == 1099511627777
    assert event["inner"] == {"phone": "012…", "all": ["to +60…89", 5]}


def test_tracebacks_are_masked() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        raise ValueError("cannot send to +60123456789")
    except ValueError:
        logging.getLogger("pgdrip").exception("channel raised")
    event = logged_json(stream)
    assert "ValueError: cannot send to +60…89" in event["exception"]
    assert "123456" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("+60123456789", "+60…89"),
        ("+60 12-345 6789", "+60…89"),
        ("call +1 (415) 555-0100 now", "call +1 …00 now"),
        ("60123456789", "601…89"),
        ("012-345 6789", "012…89"),
        ("0123456789", "012…89"),
        ("whatsapp:+60123456789", "whatsapp:+60…89"),
        ("60123456789@s.whatsapp.net", "6…@s.whatsapp.net"),
        ("jane.doe+x@mail.example.co.uk", "j…@mail.example.co.uk"),
        ("<jane@example.com>", "<j…@example.com>"),
        ("host=db password=hunter2 user=x", "host=db password=… user=x"),
        (
            f"postgresql://{LOGIN}@db.example/x",
            f"postgresql://{MASKED_LOGIN}@db.example/x",
        ),
    ],
)
def test_addresses_and_passwords_are_masked(text: str, masked: str) -> None:
    assert logs.mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T09:00:00.123456+00:00",
        "2026-01-05 09:00:00+00",
        "05-01-2026 at 09:00:00",
        "step 12 of 1742 after 0.02 s",
        "http_503 from 127.0.0.1:50432",
        "7:3",
        "device-0001",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
    ],
)
def test_times_counts_and_names_are_left_alone(text: str) -> None:
    assert logs.mask(text) == text


def test_a_megabyte_from_a_gateway_is_cut_before_it_is_searched() -> None:
    masked = logs.mask("x" * 1_000_000 + " jane@example.com")
    assert masked == "x" * logs.TEXT_LIMIT + "…"
