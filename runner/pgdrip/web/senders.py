"""The senders: all of them at a glance, as a list, and the day of one."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.responses import Response

from pgdrip.query import view
from pgdrip.web.charts import Bar, Chart
from pgdrip.web.visit import Row, Visit

COLUMNS = (
    "sender",
    "pool",
    "channel",
    "status",
    "health",
    "limit_hour",
    "used_hour",
    "limit_day",
    "used_day",
    "backlog",
    "oldest_due_at",
    "in_flight",
    "ready_at",
    "last_error",
)
NOTHING = dict.fromkeys(COLUMNS)  # a count leaves out what is NULL
SCANNED = 200  # of the latest failures
ROWS = 100  # of the list on one page
LEVELS = 5  # of load
HOUR = timedelta(hours=1)
FILTERS = ("name", "pool", "channel", "state")
CALM = ("active", "retiring", "retired")  # states that nobody needs to mind
SORTS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row["sender"],
    "load": lambda row: (-row["load"], row["sender"]),
    "backlog": lambda row: (-row["backlog"], row["sender"]),
    "oldest": lambda row: (row["oldest_due_at"] or "9999", row["sender"]),
    "trouble": lambda row: (row["state"] in CALM, row["sender"]),
}
MARKS = {
    "active": "",
    "down": "!",
    "blocked": "\N{MULTIPLICATION SIGN}",
    "paused": "\N{DOUBLE VERTICAL LINE}",
    "retiring": "\N{EN DASH}",
    "retired": "\N{EN DASH}",
}


async def show_all(visit: Visit) -> Response:
    tallies = await visit.tallied("senders")
    now, _ = await visit.ask()
    tally = tallies.get("senders")
    everyone = [judged(row) for row in tally.content] if tally else []
    chosen = {name: visit.parameter(name) for name in FILTERS}
    sort = visit.parameter("sort")
    sort = sort if sort in SORTS else "name"
    found = sorted(filtered(everyone, chosen), key=SORTS[sort])
    number = visit.parameter("page")
    first = ROWS * (int(number) if number.isdecimal() and len(number) < 6 else 0)
    query = {name: value for name, value in chosen.items() if value} | {"sort": sort}
    return visit.show(
        "senders.html",
        now=now,
        chosen=chosen,
        sort=sort,
        sorts=list(SORTS),
        options={name: options(everyone, name) for name in FILTERS[1:]},
        found=found,
        listed=found[first : first + ROWS],
        first=first,
        rows=ROWS,
        total=len(everyone),
        link=lambda page: f"/senders?{urlencode(query | {'page': page})}",
        counted_at=tally.counted_at if tally else None,
    )


async def show_one(visit: Visit) -> Response:
    name = visit.parameter("name")
    now, [found, hours, failures] = await visit.ask(
        view("sender_load", columns=COLUMNS, where={"sender": name}),
        view("sender_day", where={"sender": name}, order="hour_at"),
        view("failures", order="at desc", limit=SCANNED),
    )
    if not found:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such sender.")
    sender = judged(found[0])
    return visit.show(
        "sender.html",
        now=now,
        sender=sender,
        day=day(hours, sender["limit_hour"], now, visit.zone),
        failures=[row for row in failures if row["sender"] == name][:20],
    )


def judged(row: Row) -> Row:
    """With its state, its load (0 to 1 of the tighter limit) and the level of that."""
    row = NOTHING | row
    load = max(
        (
            row[f"used_{span}"] / row[f"limit_{span}"] if row[f"limit_{span}"] else 0.0
            for span in ("hour", "day")
        ),
        default=0.0,
    )
    state = row["status"]
    if state == "active" and row["health"] != "healthy":
        state = row["health"]
    is_limited = row["limit_hour"] is not None or row["limit_day"] is not None
    level = min(LEVELS, -int(-load * LEVELS // 1)) if is_limited else None
    if not is_limited and row["used_hour"]:
        level = 1
    return row | {
        "load": load,
        "state": state,
        "level": level or 0,
        "mark": MARKS[state],
    }


def filtered(senders: Iterable[Row], chosen: dict[str, str]) -> Iterable[Row]:
    for row in senders:
        equal = all(
            row[name] == chosen[name]
            for name in ("pool", "channel", "state")
            if chosen[name]
        )
        if equal and chosen["name"].lower() in row["sender"].lower():
            yield row


def options(senders: Iterable[Row], name: str) -> list[str]:
    return sorted({row[name] for row in senders})


def day(
    hours: Iterable[Row], limit: int | None, now: datetime, zone: ZoneInfo
) -> dict[str, Any]:
    """What one sender did in each of the last 24 hours, against what it may."""
    counts = {row["hour_at"]: row for row in hours}
    last = now.replace(minute=0, second=0, microsecond=0)
    bars, table, sent = [], [], 0
    for back in range(23, -1, -1):
        at = last - back * HOUR
        row = counts.get(at, {"sent": 0, "failed": 0})
        local = at.astimezone(zone)
        parts = [("sent", row["sent"]), ("failed", row["failed"])]
        told = f"from {local:%H:%M}: {row['sent']:,} sent, {row['failed']:,} failed"
        bars.append(Bar(parts, told, f"{local:%H:%M}" if back % 6 == 5 else ""))
        sent += row["sent"]
        if row["sent"] or row["failed"]:
            table.append((at, row["sent"], row["failed"]))
    label = f"Each hour of the last 24: {sent:,} sent"
    if limit is not None:
        label += f", at most {limit:,} in an hour"
    chart = Chart(label, bars, limit)
    return {"drawn": chart, "rows": table[::-1], "sent": sent}
