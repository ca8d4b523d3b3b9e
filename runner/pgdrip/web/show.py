"""How values look: times in the viewer's zone, addresses masked, numbers for people."""

from datetime import datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import jinja2
from markupsafe import Markup

from pgdrip import __version__, logs
from pgdrip.console import printable, span
from pgdrip.web import charts

TEMPLATES = Path(__file__).parent / "templates"
UTC = ZoneInfo("UTC")
NONE = "\N{EN DASH}"


@cache
def environment() -> jinja2.Environment:
    """Every text is escaped, and a name that a template misspells is an error."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "time": time,
        "ago": ago,
        "number": number,
        "masked": masked,
        "mask": logs.mask,
        "said": said,
        "words": words,
    }
    env.globals |= {"share": charts.share, "version": __version__}
    return env


def zone_named(name: str) -> ZoneInfo:
    """The IANA zone of that name; UTC for any other."""
    return ZoneInfo(name) if name in _zones() else UTC


@cache
def _zones() -> frozenset[str]:
    """All there are; finding them reads hundreds of files."""
    return frozenset(available_timezones())


@jinja2.pass_context
def time(context: jinja2.runtime.Context, at: datetime | str | None) -> Markup:
    """`5 Jan 09:00:00`, with the year where it is another one than now."""
    if at is None:
        return Markup('<span class="none">{}</span>').format(NONE)
    at = instant(at).astimezone(context["zone"])
    now = context["now"].astimezone(context["zone"])
    year = f" {at:%Y}" if at.year != now.year else ""
    text = f"{at.day} {at:%b}{year} {at:%H:%M:%S}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), f"{at:%A, %Y-%m-%d %H:%M:%S %Z}", text
    )


@jinja2.pass_context
def ago(context: jinja2.runtime.Context, at: datetime | str | None) -> Markup:
    """`3 min ago`, `in 12 h`."""
    if at is None:
        return Markup('<span class="none">{}</span>').format(NONE)
    at, now = instant(at), context["now"]
    length = span(abs(now - at)).split(" ")
    text = " ".join(length[:2])
    local = at.astimezone(context["zone"])
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        local.isoformat(),
        f"{local:%A, %Y-%m-%d %H:%M:%S %Z}",
        "now" if text == "0 s" else f"in {text}" if at > now else f"{text} ago",
    )


def instant(at: datetime | str) -> datetime:
    """A time, also as counts hold it."""
    return at if isinstance(at, datetime) else datetime.fromisoformat(at)


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:,}"


def masked(address: str | None) -> str:
    """An address that nobody can write to: `+60…89`, `j…@example.com`."""
    if not address:
        return NONE
    text = logs.mask(address)
    return text if text != address else f"{address[:3]}…"


def said(text: str | None) -> Markup:
    """A text of strangers: what cannot be seen is spelt out, and its direction kept."""
    return Markup("<bdi>{}</bdi>").format(printable(text or ""))


def words(name: str) -> str:
    """A column's name for people."""
    return name.replace("_", " ")
