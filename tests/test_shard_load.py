"""Six runners on three shards, one of which goes away and comes back, while buckets
move and people are enrolled: every message goes out once."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from databases import Databases
from running import pgdrip_run
from sharding import Cluster, cluster, phone
from stage import every, meanwhile, one

PEOPLE = 3500
STEPS = 3
LATE = 1000  # of them come while buckets move
BATCH, FEW = 500, 20
RUNNERS_OF_A_SHARD = 2
MOVED = "0-24"  # a third of these live in each shard

DEFINITIONS = """\
kind: sender
name: everywhere
channel: log
config: {{file: {file}}}
---
kind: sequence
name: WARM
trigger: WARM
channel: log
status: active
steps:
  - {{day: 1, body: One}}
  - {{day: 2, delay: 0 seconds, body: Two}}
  - {{day: 3, delay: 0 seconds, body: Three}}
"""


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """Where every message goes; whoever runs the tests, and the runners, may write."""
    return tmp_path / "sent.jsonl"


@pytest.fixture
def three(server: Databases, sent: Path, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(server, real=True) as found:
        file = tmp_path / "all.yaml"
        file.write_text(DEFINITIONS.format(file=json.dumps(str(sent))))
        done = found.pgdrip("shard", "apply", file)
        assert done.exit_code == 0, done.output
        yield found


def keys(sent: Path) -> list[str]:
    lines = sent.read_text().splitlines() if sent.exists() else []
    return [json.loads(line)["idempotency_key"] for line in lines]


def until(holds: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ten_thousand_messages_go_out_once_each_whatever_happens(
    three: Cluster, sent: Path
) -> None:
    with ExitStack() as stack:
        for number, dsn in three.dsns.items():
            for runner in range(RUNNERS_OF_A_SHARD):
                options = ["--name", f"runner-{number}-{runner}", "--lease", "6"]
                options += ["--timeout", "2", "--per-sender", "1000"]
                stack.enter_context(pgdrip_run(dsn, *options))
        # One that finds no database when it starts ends.
        runners = RUNNERS_OF_A_SHARD * len(three.dsns)
        until(lambda: three.sums("select count(*) from pgdrip.runners") == runners)
        for first in range(0, PEOPLE - LATE, BATCH):
            three.enroll([phone(n) for n in range(first, first + BATCH)])
        assert live(three) > 0
        with three.down(2):
            before = health(three, shard=2)
            until(lambda: health(three, shard=1) + health(three, shard=3) > 0)
            missing = "select missing_shards from pgdrip.queue_health"
            assert one(three.router, missing)["missing_shards"] == [2]
            assert health(three, shard=2) == before
        assert live(three) > 0
        with meanwhile(insist, three, range(PEOPLE - LATE, PEOPLE)) as enrolled:
            done = three.pgdrip("shard", "move", MOVED, "--to", "3")
            assert done.exit_code == 0, done.output
        enrolled.result()
        until(lambda: settle(three, sent) == 0)

    counts = Counter(keys(sent))
    assert len(counts) == PEOPLE * STEPS
    assert set(counts.values()) == {1}
    assert three.violations() == []
    told = "select count(*) from pgdrip.deliveries where event in ('sent', 'resolved')"
    assert three.sums(told) == PEOPLE * STEPS
    completed = "select count(*) from pgdrip.enrollments where status = 'completed'"
    assert three.sums(completed) == PEOPLE
    funnel = every(three.router, "select sent from pgdrip.sequence_funnel")
    assert [row["sent"] for row in funnel] == [PEOPLE] * STEPS
    owners = "select shard from pgdrip.buckets where bucket < 25 group by 1"
    assert every(three.router, owners) == [{"shard": 3}]


def live(three: Cluster) -> int:
    return three.sums("select count(*) from pgdrip.due")


def insist(three: Cluster, numbers: Sequence[int]) -> None:
    """Enroll people, a few at a time, each call as often as it takes."""
    with psycopg.connect(three.dsn, autocommit=True) as db:
        for first in range(0, len(numbers), FEW):
            people = [
                {"phone": phone(n), "triggers": ["WARM"]}
                for n in numbers[first : first + FEW]
            ]
            done = False
            while not done:
                with suppress(psycopg.errors.LockNotAvailable):
                    db.execute("select pgdrip.import_contacts(%s)", [Jsonb(people)])
                    done = True
        db.execute("select pgdrip.enroll_waiting(10000)")


def health(three: Cluster, *, shard: int) -> int:
    """What a shard has sent."""
    query = "select count(*) as n from pgdrip.deliveries where event = 'sent'"
    return int(one(three.shards[shard], query)["n"])


def settle(three: Cluster, sent: Path) -> int:
    """Say of what is uncertain whether it went out; how many live steps are left."""
    uncertain = "select token, enrollment_id, step from pgdrip.uncertain_deliveries"
    for number, rows in three.everywhere(uncertain).items():
        gone = set(keys(sent)) if rows else set()
        for row in rows:
            key = f"{row['enrollment_id']}:{row['step']}"
            outcome = "sent" if key in gone else "not_sent"
            resolve(three.shards[number], row["token"], outcome)
    return live(three)


def resolve(
    db: psycopg.Connection[dict[str, object]], token: int, outcome: str
) -> None:
    db.execute("select pgdrip.resolve_uncertain(%s, %s)", [token, outcome])
