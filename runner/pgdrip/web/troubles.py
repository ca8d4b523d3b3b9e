"""What somebody has to decide on: uncertain sends, and failures."""

from collections import Counter

from starlette.responses import Response

from pgdrip.query import view
from pgdrip.web.visit import Visit

LISTED = 100
SCANNED = 200
FILTERS = ("sequence", "sender", "class")


async def uncertain(visit: Visit) -> Response:
    now, [found] = await visit.ask(
        view("uncertain_deliveries", order="enrollment_id", limit=LISTED)
    )
    tallies = await visit.tallied("queue")
    total = tallies["queue"].content[0]["uncertain"] if "queue" in tallies else 0
    total = total if len(found) == LISTED else len(found)
    return visit.show("uncertain.html", now=now, found=found, total=total)


async def failed(visit: Visit) -> Response:
    """The latest failures; those that can be tried again have a box to tick."""
    now, [failures] = await visit.ask(
        view("failure_details", order="at desc", limit=SCANNED)
    )
    chosen = {name: visit.parameter(name) for name in FILTERS}
    found = [
        row
        for row in failures
        if all(row[name] == value for name, value in chosen.items() if value)
    ]
    return visit.show(
        "failures.html",
        now=now,
        found=found[:LISTED],
        scanned=len(failures),
        chosen=chosen,
        options={name: _options(failures, name) for name in FILTERS},
    )


def _options(rows: list[dict[str, object]], name: str) -> list[str]:
    """What there is to choose from, the most frequent first."""
    counts = Counter(str(row[name]) for row in rows if row[name] is not None)
    return [value for value, _ in counts.most_common(50)]
