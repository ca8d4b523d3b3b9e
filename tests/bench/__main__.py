"""The program: starts a cluster, measures, shows.

make bench [QUICK=1] [ONLY="batch import"]
make bench-large
"""

import argparse
import os
import time
from pathlib import Path

import psycopg
from rich.console import Console

from bench import (
    end_to_end,
    enroll,
    imports,
    latency,
    limits,
    operate,
    pages,
    rates,
    scaling,
    table,
    wal,
)
from bench.cluster import Cluster, started
from bench.figure import ENTRIES, Entry, Figure, Found
from bench.plan import QUICK, USUAL, Bench

FAMILIES = (
    rates,
    scaling,
    limits,
    wal,
    latency,
    enroll,
    operate,
    end_to_end,
    imports,
    pages,
)
"""Each enters its experiments by being imported; they run in this order."""
BUILD = Path(__file__).parents[2] / "build" / "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--large", action="store_true", help="the large tables only")
    parser.add_argument("only", nargs="*", help="experiments with one of these words")
    asked = parser.parse_args()
    entries = [one for one in in_order() if is_wanted(one, asked.only, asked.large)]
    if not entries:
        names = ", ".join(entry.name for entry in in_order())
        raise SystemExit(f"no such experiment; there are: {names}")
    scale = QUICK if asked.quick else USUAL
    began, busy = time.monotonic(), os.getloadavg()[0]
    with started() as cluster:
        about = [machine(cluster, busy), settings(cluster)]
        found = measure(Bench(cluster, scale), entries)
    about.append(
        f"{time.monotonic() - began:.0f} s, {scale.rounds} rounds of"
        f" {scale.seconds:g} s, {scale.enrollments:,} enrollments"
    )
    table.show(found, about)
    table.write(BUILD, found, about)


def in_order() -> list[Entry]:
    return [
        one
        for family in FAMILIES
        for one in ENTRIES
        if one.run.__module__ == family.__name__
    ]


def is_wanted(entry: Entry, words: list[str], large: bool) -> bool:
    is_named = not words or any(word in entry.name for word in words)
    return is_named and entry.is_large == large


def measure(bench: Bench, entries: list[Entry]) -> list[Found]:
    """What every experiment finds; each figure is printed as it comes, too."""
    progress = Console(stderr=True)
    found: list[Found] = []
    for entry in entries:
        began = time.monotonic()
        for one in entry.run(bench):
            found.append(one)
            if isinstance(one, Figure):
                progress.print(f"{one.name}: {one.measured()}", highlight=False)
        took = time.monotonic() - began
        progress.print(f"  {entry.name} took {took:.0f} s", highlight=False)
    return found


def machine(cluster: Cluster, busy: float) -> str:
    with psycopg.connect(cluster.dsn) as db:
        version = db.info.parameter_status("server_version")
    return (
        f"PostgreSQL {version}, {os.cpu_count()} cores,"
        f" load of the machine before the run {busy:.1f}"
    )


def settings(cluster: Cluster) -> str:
    """What differs from a fresh PostgreSQL, and what makes it durable."""
    with psycopg.connect(cluster.dsn) as db:
        rows = db.execute(
            "select name || ' = ' || current_setting(name) from pg_settings"
            " where source = 'command line' and context <> 'internal'"
            "   and name not in ('data_directory', 'listen_addresses', 'port',"
            "                    'unix_socket_directories')"
            "    or name in ('fsync', 'synchronous_commit', 'full_page_writes')"
            " order by 1"
        ).fetchall()
    return ", ".join(str(row[0]) for row in rows)


if __name__ == "__main__":
    main()
