"""What arguments and options take, beside what click has."""

import re
from datetime import datetime, timedelta
from typing import Any

import click

from pgdrip.query import Call

ID = click.IntRange(min=1, max=2**63 - 1)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Contact(click.ParamType[int | Call]):
    """The id of a contact, or the call that finds it by its phone or e-mail."""

    name = "contact"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Call:
        if isinstance(value, Call):
            return value
        if str(value).startswith("+") or "@" in str(value):
            return Call("find_contact", {"address": value})
        return ID.convert(value, param, ctx)


class _Instant(click.ParamType[datetime]):
    """A date, or a date and a time; local where no zone is given."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time such as 2026-12-24 18:30", param, ctx)


class _Span(click.ParamType[timedelta]):
    """A time span: 90s, 15 minutes, 2h, 30 days."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6}) ?([smhdw])[a-z]*", value)
        if not found:
            self.fail(f"{value!r} is no time span such as 15 minutes or 2h", param, ctx)
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


class _Address(click.ParamType[tuple[str, int]]):
    """host:port; an IPv6 host in brackets."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(?:\[(.+)\]|(.+)):([0-9]{1,5})", value)
        if not found or int(found[3]) > 65535:
            self.fail(f"{value!r} is not host:port such as 127.0.0.1:80", param, ctx)
        return found[1] or found[2], int(found[3])


ADDRESS = _Address()
CONTACT = _Contact()
INSTANT = _Instant()
SPAN = _Span()
