"""The limit: the least that any such engine must do for a step, by pgbench.

A lease, an advance and a line of a journal, set-based over a batch of neighbouring
rows, in two transactions; no limits, no rendering, no look at anything else.
"""

import os
import random
import re
import subprocess
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.cluster import Cluster

SETUP = Path(__file__).with_name("limit.sql")
SCRIPT = Path(__file__).with_name("limit.pgb")


def set_up(dsn: str, steps: int) -> None:
    """The tables of the limit, in the database of what is held against it."""
    with psycopg.connect(dsn, autocommit=True) as db:
        psycopg.ClientCursor(db).execute(SETUP.read_bytes(), {"steps": steps})


def rate(
    cluster: Cluster, dsn: str, *, clients: int, batch: int, seconds: float, rows: int
) -> tuple[float, int]:
    """Steps a second, and how many they were, over so many rows of the limit."""
    return _run(
        cluster, dsn, clients=clients, batch=batch, rows=rows, until=f"-T{seconds:g}"
    )


def steps(
    cluster: Cluster, dsn: str, *, clients: int, batch: int, count: int, rows: int
) -> tuple[float, int]:
    """The same, up to so many steps."""
    turns = max(1, count // (clients * batch))
    return _run(
        cluster, dsn, clients=clients, batch=batch, rows=rows, until=f"-t{turns}"
    )


def _run(
    cluster: Cluster, dsn: str, *, clients: int, batch: int, rows: int, until: str
) -> tuple[float, int]:
    span = rows // clients // batch * batch
    where = conninfo_to_dict(dsn)
    command = [
        str(cluster.binaries / "pgbench"),
        *("-n", "-M", "prepared", "-f", str(SCRIPT), until),
        *("-c", str(clients), "-j", str(min(clients, os.cpu_count() or 1))),
        *("-D", f"batch={batch}", "-D", f"span={span}"),
        *("-D", f"turn={random.randrange(span // batch)}"),
        *(f"--host={where['host']}", f"--port={where['port']}"),
        *(f"--username={where['user']}", str(where["dbname"])),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    turns = re.search(r"actually processed: (\d+)", done.stdout)
    found = re.search(r"tps = ([\d.]+) \(without", done.stdout)
    if done.returncode or not turns or not found:
        raise SystemExit(f"pgbench: {done.stdout}{done.stderr}")
    return float(found[1]) * batch, int(turns[1]) * batch
