"""What a claim takes behind a thousand paused senders with 300 due rows each, against
the same claim without them: medians of turns that alternate, in one run."""

import os
import time
from contextlib import ExitStack
from statistics import median

import psycopg
from psycopg.rows import dict_row

import fleet
import stage
from databases import Databases, choose
from stage import Db
from test_claim_plan import PAUSED, ROWS, TAKEN, backlog

CLAIMS = 90  # as many as the burst lets out


def main() -> None:
    with ExitStack() as stack:
        server = Databases(stack.enter_context(choose(os.environ).start()))
        stack.callback(server.close)
        alone, crowded = (
            stack.enter_context(
                psycopg.connect(
                    stack.enter_context(server.clone()),
                    autocommit=True,
                    row_factory=dict_row,
                )
            )
            for _ in range(2)
        )
        for db in (alone, crowded):
            stage.sequence(db)
        backlog(crowded)
        for db in (alone, crowded):
            stage.sender(db, "active", rate_per_hour=100_000, burst=1000)
            fleet.work(db, {"active": TAKEN * (CLAIMS + 1)}, ["WARM"])
            db.execute("vacuum analyze")
            seconds(db)  # drains the wakes
        pairs = [(seconds(alone), seconds(crowded)) for _ in range(CLAIMS)]
    one, other = (1000 * median(column) for column in zip(*pairs, strict=True))
    print(
        f"claim of {TAKEN}: {one:.2f} ms alone, {other:.2f} ms behind {PAUSED} paused"
    )
    print(f"senders with {ROWS} due rows each: {other / one:.2f} x (at most 2)")


def seconds(db: Db) -> float:
    began_at = time.perf_counter()
    messages = stage.claim(db, TAKEN)
    took = time.perf_counter() - began_at
    assert len(messages) == TAKEN
    stage.begin(db, messages)
    stage.report(db, messages)
    return took


if __name__ == "__main__":
    main()
