"""The first page: what the system is doing now."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import Response

from pgdrip.query import rows_of, view
from pgdrip.web.charts import Bar, Chart
from pgdrip.web.visit import Row, Visit

EVENTS = ("sent", "failed", "uncertain")
MINUTE, QUARTER, HOUR = timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=1)
DAY = timedelta(days=1)
Buckets = dict[datetime, Counter[str]]


async def show(visit: Visit) -> Response:
    now, [minutes, runners] = await visit.ask(
        rows_of("minute_tally"),
        view("runner_health", order="is_alive desc, runner", limit=100),
    )
    tallies = await visit.tallied("queue", "check", "history")
    hour = buckets(minutes, since=now - HOUR, width=MINUTE, now=now)
    day = buckets(minutes, since=now - DAY, width=QUARTER, now=now)
    queue = tallies.get("queue")
    return visit.show(
        "now.html",
        now=now,
        queue=queue.content[0] if queue else None,
        counted_at=queue.counted_at if queue else None,
        check=tallies.get("check"),
        history_at=tallies["history"].counted_at if "history" in tallies else None,
        rate=rate(hour, now),
        charts=[
            chart("Each minute of the last hour", hour, visit.zone, every=MINUTE * 15),
            chart(
                "Each quarter of an hour of the last day",
                day,
                visit.zone,
                every=HOUR * 6,
            ),
        ],
        classes=failures(minutes, now),
        runners=[row for row in runners if row["runner"]],
        maintained_at=runners[0]["maintained_at"],
    )


def buckets(
    minutes: Iterable[Row], *, since: datetime, width: timedelta, now: datetime
) -> Buckets:
    """How many of each of EVENTS in every span of `width`, empty ones included."""
    found: Buckets = {}
    at = floor(since, width) + width
    while at <= now:
        found[at] = Counter()
        at += width
    for row in minutes:
        at = floor(row["minute_at"], width)
        if at in found:
            found[at][row["event"]] += row["count"]
    return found


def floor(at: datetime, width: timedelta) -> datetime:
    since_midnight = timedelta(hours=at.hour, minutes=at.minute, seconds=at.second)
    whole = since_midnight // width * width
    return at.replace(hour=0, minute=0, second=0, microsecond=0) + whole


def rate(hour: Buckets, now: datetime) -> int:
    """Messages sent in the last minute that is over."""
    return hour.get(floor(now, MINUTE) - MINUTE, Counter())["sent"]


def chart(
    title: str, found: Buckets, zone: ZoneInfo, *, every: timedelta
) -> dict[str, Any]:
    """A chart with the table of its numbers; a mark on the axis after every span."""
    bars, rows = [], []
    for at, counts in found.items():
        local = at.astimezone(zone)
        parts = [(event, counts[event]) for event in EVENTS]
        told = ", ".join(f"{number:,} {event}" for event, number in parts if number)
        is_marked = floor(local.replace(tzinfo=None), every) == local.replace(
            tzinfo=None
        )
        bars.append(
            Bar(
                parts,
                f"{local:%H:%M}: {told or 'nothing'}",
                f"{local:%H:%M}" if is_marked else "",
            )
        )
        rows.append((at, counts))
    total: Counter[str] = sum(found.values(), Counter())
    told = ", ".join(f"{total[event]:,} {event}" for event in EVENTS)
    return {
        "title": title,
        "total": total,
        "drawn": Chart(f"{title}: {told}", bars),
        "rows": [row for row in reversed(rows) if row[1]],
    }


def failures(minutes: Iterable[Row], now: datetime) -> list[tuple[str, int, int]]:
    """Class, how many in the last hour, and in the last day; the most first."""
    hour: Counter[str] = Counter()
    day: defaultdict[str, int] = defaultdict(int)
    for row in minutes:
        if row["event"] == "failed" and row["minute_at"] > now - DAY:
            day[row["class"]] += row["count"]
            hour[row["class"]] += row["count"] * (row["minute_at"] > now - HOUR)
    return sorted(
        ((name, hour[name], number) for name, number in day.items()),
        key=lambda row: -row[2],
    )
