"""What the operator page costs: database time of each of its pages.

A fleet in the middle of its work, ten deliveries to an enrollment; everything is
counted as the page's server would, and each page asked for as a browser does. What
counts is the time of the processor that the database's process used.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench.daemon import Db
from bench.figure import Figure, Found, experiment
from bench.plan import Bench
from hooks import Served, served
from pgdrip.inbound.app import create_app
from pgdrip.inbound.settings import Settings
from pgdrip.web.access import Access
from pgdrip.web.app import page_routes
from pgdrip.web.tallying import COUNTS, Tallying

SEED = Path(__file__).with_name("page_seed.sql")
PAGES = (
    "/",
    "/sequences",
    "/sequence?name=COLD%20leads",
    "/senders",
    "/senders?sort=trouble&state=down",
    "/sender?name=device-0003",
    "/contact?id=4711",
    "/contact?id=4711&simulate=COLD%20leads",
    "/uncertain",
    "/failures",
    "/failures?class=contact",
)


@experiment("pages")
def pages(bench: Bench) -> Iterator[Found]:
    yield from measured(bench, people=bench.scale.enrollments // 10)


@experiment("pages of a large fleet", is_large=True)
def pages_of_a_large_fleet(bench: Bench) -> Iterator[Found]:
    yield from measured(bench, people=1_000_000)


def measured(bench: Bench, people: int) -> Iterator[Found]:
    dsn = bench.cluster.create("pages")
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("select pgdrip.maintain()")
        values = {"people": people, "senders": 3000}
        psycopg.ClientCursor(db).execute(SEED.read_bytes(), values)
        db.execute("vacuum analyze")
        count_everything(db)
        found = ask(db, dsn, bench.scale.rounds)
    bench.cluster.drop("pages")
    costliest = max(found, key=lambda page: statistics.median(found[page]))
    yield Figure(
        f"database CPU of the costliest page, {people:,} people",
        found[costliest],
        "ms",
        at_most=50,
        notes=[f"{page} {statistics.median(found[page]):.1f}" for page in PAGES],
    )


def ask(db: Db, dsn: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the database's process, for each page and round."""
    found: dict[str, list[float]] = {page: [] for page in PAGES}
    settings = Settings(dsn=dsn, connections=1)
    app = create_app(settings, routes=page_routes(Access(), Tallying(dsn)))
    with served(app) as server:
        visit(server, "/")
        process = backend(db)
        for _ in range(rounds):
            for page in PAGES:
                before = processor(process)
                visit(server, page)
                found[page].append(processor(process) - before)
    return found


def count_everything(db: Db) -> None:
    """As the server does beside; `check` is a figure of its own."""
    for count in COUNTS:
        if count.name == "check":
            continue
        while count.name == "history" and db.execute(
            "select pgdrip.tally('history')"
        ).fetchone() == (True,):
            pass
        db.execute("select pgdrip.tally(%s)", [count.name])


def backend(db: Db) -> int:
    """The process of the database that works for the page."""
    row = db.execute(
        "select pid from pg_stat_activity where application_name = 'pgdrip serve'"
        " order by backend_start desc limit 1"
    ).fetchone()
    assert row
    return int(str(row[0]))


def processor(process: int) -> float:
    """How long it has run, in ms; Linux."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e6


def visit(server: Served, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 200, (path, answer.status)
