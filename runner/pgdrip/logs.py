"""Logs: one line per event on stderr, for people on a terminal, as JSON otherwise.

Modules write `logger.info("constant words", extra={"field": value})` to the standard
library's loggers; structlog formats them. Phone numbers, e-mail addresses and passwords
are masked wherever they stand, in text of other libraries and in tracebacks too.
"""

import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

from pgdrip.console import Screen, printable, printable_json

ADDRESS_FIELDS = frozenset({"recipient", "phone", "email", "address"})

TEXT_LIMIT = 10_000  # characters of one text in a log line

# Bounded: what a gateway answers may be a megabyte of letters.
_EMAIL = re.compile(r"([\w.+-])[\w.+-]{0,63}@([\w-]{1,63}(?:\.[\w-]{1,63})+)")
_PHONE = re.compile(
    r"""
      \+\d[\d\ ().-]{5,20}\d                    # +60 12-345 6789
    | (?<![\w.:-])0\d{1,3}[ -]?\d{3,4}[ -]?\d{3,4}(?![\w-])   # 012-345 6789
    | (?<![\w.-])\d{9,15}(?![\w.-])             # 60123456789
    """,
    re.VERBOSE,
)
_JSON = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
_PASSWORD = re.compile(r"(password=)\S+|(://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE)


def configure(
    level: int | str = logging.INFO,
    *,
    as_json: bool | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send every logger of the process to `stream` (stderr) in one shape."""
    stream = stream or sys.stderr
    if stream is None:  # closed before the process began
        return
    plain = as_json if as_json is not None else not stream.isatty()
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
        mask_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    console = structlog.dev.ConsoleRenderer(timestamp_key="at", colors=stream.isatty())
    renderers: list[Processor] = [_as_json] if plain else [_printable, console]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _as_json(logger: Any, method: str, event: EventDict) -> str:
    return printable_json(str(_JSON(logger, method, event)))


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """No text makes a line of its own or moves a cursor; a traceback has its lines."""
    return {
        key: (Screen.shown if key == "exception" else printable)(value)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def mask(text: str) -> str:
    """The text with phone numbers, e-mail addresses and passwords made unreadable.

    >>> mask("to +60123456789 or jane@example.com")
    'to +60…89 or j…@example.com'
    """
    if len(text) > TEXT_LIMIT:
        text = f"{text[:TEXT_LIMIT]}…"
    text = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}…", text)
    text = _EMAIL.sub(r"\1…@\2", text)
    return _PHONE.sub(lambda found: f"{found[0][:3]}…{found[0][-2:]}", text)


def mask_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Masks every text of an event; a field that is an address, whatever its form."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: object) -> object:
    if isinstance(value, str):
        masked = mask(value)
        if key in ADDRESS_FIELDS and masked == value:
            return f"{value[:3]}…"
        return masked
    if isinstance(value, dict):
        return {inner: _masked(inner, item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(key, item) for item in value]
    return value
