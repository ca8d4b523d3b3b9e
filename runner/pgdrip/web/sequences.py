"""The sequences: a list of them, and one with its funnel, versions and forecast."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.responses import Response

from pgdrip.engine import Tally
from pgdrip.query import view
from pgdrip.web.charts import Bar, Chart
from pgdrip.web.visit import Row, Visit

HOURS = 24
FUNNEL = ("sent", "delivered", "read", "skipped", "failed", "count", "parked")
COUNTED = ("enrollments", "live", "forecast", "receipts")
STATUSES = ("active", "completed", "exited", "failed")


async def show_all(visit: Visit) -> Response:
    now, [sequences] = await visit.ask(view("sequence_overview", order="sequence"))
    tallies = await visit.tallied(*COUNTED)
    people = enrolled(rows(tallies, "enrollments"))
    for sequence in sequences:
        sequence["people"] = people[sequence["sequence"]]
    return visit.show(
        "sequences.html",
        now=now,
        sequences=sequences,
        forecast=forecast(rows(tallies, "forecast"), tallies, now, visit.zone),
        counted_at=oldest(tallies),
    )


async def show_one(visit: Visit) -> Response:
    name = visit.parameter("name")
    now, [found, steps] = await visit.ask(
        view("sequence_overview", where={"sequence": name}),
        view("step_tally", where={"sequence": name}),
    )
    if not found:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such sequence.")
    tallies = await visit.tallied(*COUNTED, "history")
    history = tallies.pop("history", None)
    own = {
        tally: [row for row in rows(tallies, tally) if row["sequence"] == name]
        for tally in COUNTED
    }
    people = enrolled(own["enrollments"])[name]
    return visit.show(
        "sequence.html",
        now=now,
        sequence=found[0],
        people=people,
        statuses=STATUSES,
        funnel=funnel(found[0]["steps"], steps, own["live"], own["receipts"]),
        whole=max(sum(people.values()), 1),
        versions=versions(own["live"]),
        forecast=forecast(own["forecast"], tallies, now, visit.zone),
        counted_at=oldest(tallies),
        history_at=history.counted_at if history else None,
    )


def rows(tallies: Mapping[str, Tally], name: str) -> list[Row]:
    return tallies[name].content if name in tallies else []


def oldest(tallies: Mapping[str, Tally]) -> datetime | None:
    return min((tally.counted_at for tally in tallies.values()), default=None)


def enrolled(counts: Iterable[Row]) -> defaultdict[str, Counter[str]]:
    """How many enrollments of each status, by sequence."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in counts:
        found[row["sequence"]][row["status"]] = row["count"]
    return found


def funnel(
    numbers: Iterable[int],
    steps: Iterable[Row],
    live: Iterable[Row],
    receipts: Iterable[Row],
) -> list[dict[str, int]]:
    """Each step of any version with what became of it, and who stands there now."""
    current = set(numbers)
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    found.update((number, Counter()) for number in current)
    for row in (*steps, *receipts, *live):
        found[row["step"]].update({key: row.get(key, 0) for key in FUNNEL})
    return [
        {"step": number, "is_current": number in current}
        | {key: found[number][key] for key in FUNNEL}
        for number in sorted(found)
    ]


def versions(live: Iterable[Row]) -> list[tuple[int, int]]:
    """Versions with people in flight, the newest first, and how many."""
    found: Counter[int] = Counter()
    for row in live:
        found[row["version"]] += row["count"]
    return sorted(found.items(), reverse=True)


def forecast(
    counts: Iterable[Row], tallies: Mapping[str, Tally], now: datetime, zone: ZoneInfo
) -> dict[str, Any]:
    """What is due in each of the next hours; what is overdue counts for the first."""
    due: Counter[int] = Counter()
    for row in counts:
        due[row["hour"]] += row["count"]
    start = tallies["forecast"].counted_at if "forecast" in tallies else now
    bars, table = [], []
    for hour in range(HOURS):
        at = start + timedelta(hours=hour)
        local = at.astimezone(zone)
        told = f"from {local:%H:%M}: {due[hour]:,} due"
        mark = f"{local:%H:%M}" if hour % 6 == 0 else ""
        bars.append(Bar([("due", due[hour])], told, mark))
        if due[hour]:
            table.append((at, due[hour]))
    total = sum(due.values())
    label = f"Due within {HOURS} hours, by the hour: {total:,} messages"
    return {"drawn": Chart(label, bars), "rows": table, "total": total}
