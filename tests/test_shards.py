"""Several databases behind one router: calls find their shard, and nobody else's fails."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from commands import told
from databases import Databases
from sharding import Cluster, cluster, phone
from stage import every, one

DEFINITIONS = """\
kind: sender
name: everywhere
channel: log
---
kind: sender
name: device-1
channel: webhook
rate_per_hour: 80
---
kind: sender
name: device-2
channel: webhook
rate_per_hour: 80
---
kind: sender
name: device-3
channel: webhook
rate_per_hour: 80
---
kind: sequence
name: WARM
trigger: WARM
channel: log
status: active
steps:
  - {day: 1, body: One}
  - {day: 3, delay: 12 hours, body: Three}
"""


@pytest.fixture
def three(server: Databases, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(server) as found:
        file = tmp_path / "all.yaml"
        file.write_text(DEFINITIONS)
        done = found.pgdrip("shard", "apply", file)
        assert done.exit_code == 0, done.output
        yield found


def test_every_shard_gets_as_many_buckets(three: Cluster) -> None:
    rows = every(
        three.router,
        "select shard, count(*) as n from pgdrip.buckets group by 1 order by 1",
    )
    assert [row["n"] for row in rows] == [342, 341, 341]


def test_a_contact_lives_in_the_shard_of_its_bucket_and_its_id_says_so(
    three: Cluster,
) -> None:
    ids = [three.lead(number) for number in range(30)]
    assert {id >> 40 for id in ids} == {1, 2, 3}
    assert [three.where(id) for id in ids] == [id >> 40 for id in ids]
    assert [three.lead(number) for number in range(30)] == ids
