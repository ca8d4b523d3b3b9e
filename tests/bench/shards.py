"""What a step costs a shard alone and beside others; what the router adds: the
figures of docs/scale-out.md.

CPU is that of the server's processes, all of them where steps are measured, by /proc;
WAL and sizes are the server's own numbers, with full pages as in production. Turns of
one shard and of three alternate; medians of them are compared.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from databases import Databases
from pgdrip.postgres import Server, find_binaries
from sharding import Cluster, bucket_of, cluster, phone
from stage import Db, every, one

SHARDS = 3
TURNS = 5
STEPS = 10_000  # of each shard in a turn
BATCH = 200
SENDERS = 200
CALLS = 2000
BATCHES, PEOPLE = 10, 1000
# What is planned with: messages a second, those of one shard and of one contact, the
# seconds that a gateway takes, and the messages a runner has on the wire.
RATES = (67, 1000, 10_000, 100_000, 1_000_000)
A_SHARD, OF_A_PERSON, LATENCY, SLOTS = 5000, 4, 0.5, 100
HERTZ = os.sysconf("SC_CLK_TCK")
SETTINGS = {
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "5min",
    "track_functions": "none",
}
WORK = """
create procedure public.work(p_batch integer) language plpgsql as $$
declare
  v_ids bigint[];
  v_tokens bigint[];
begin
  loop
    select array_agg(enrollment_id), array_agg(token) into v_ids, v_tokens
      from pgdrip.claim('bench', p_batch);
    commit;
    exit when v_ids is null;
    perform pgdrip.begin_send(v_ids, v_tokens);
    commit;
    perform pgdrip.report(v_ids, v_tokens,
      array_fill('sent'::text, array[cardinality(v_ids)]));
    commit;
  end loop;
end $$
"""
TABLES = "enrollments due deliveries contacts contact_triggers".split()


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step: microseconds of CPU, bytes of WAL."""

    cpu: float
    wal: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that stay: of a contact with one enrollment, of an event in the history."""

    contact: float
    event: float


@dataclass(frozen=True, slots=True)
class Call:
    """Microseconds of CPU for a call: on its shard, and by the router on both."""

    name: str
    direct: float
    shard: float
    router: float


def cpu(pids: Iterable[int], *, children: bool = False) -> float:
    """Microseconds that processes have used; with those that have ended under them."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += sum(map(int, fields[11 : 15 if children else 13]))
    return 1e6 * total / HERTZ


def server_cpu(db: Db) -> float:
    """All that the server has used."""
    pids = [row["pid"] for row in every(db, "select pid from pg_stat_activity")]
    status = Path(f"/proc/{db.info.backend_pid}/status").read_text()
    parent = int(re.findall(r"PPid:\s+(\d+)", status)[0])
    return cpu(pids) + cpu([parent], children=True)


def define(found: Cluster) -> None:
    """Senders whose limits are counted and never reached; two steps, one right away."""
    sequence = {
        **{"name": "WARM", "trigger": "WARM", "channel": "log", "status": "active"},
        "steps": [
            {
                "day": 1,
                "body": "Hi {{name|there}}, thanks for asking about {{city|it}}.",
            },
            {"day": 3, "body": "Still interested, {{name|friend}}?"},
        ],
    }
    for number, db in found.shards.items():
        db.execute(WORK)
        for sender in range(SENDERS):
            definition = {
                **{"name": f"device-{number}-{sender}", "channel": "log"},
                **{"rate_per_hour": 1_000_000, "burst": 1000},
            }
            db.execute("select pgdrip.apply_sender(%s)", [Jsonb(definition)])
        db.execute("select pgdrip.apply_sequence(%s)", [Jsonb(sequence)])


def fill(db: Db, count: int) -> None:
    """So many people who are due at once."""
    db.execute(
        "with added as ("
        "  insert into pgdrip.contacts (phone, name, attributes, bucket)"
        "  select '+60' || (1000000000 + (select count(*) from pgdrip.contacts) + n),"
        "         'Aisyah', '{\"city\": \"Ipoh\"}', 1"
        "    from generate_series(1, %s) as n returning contact_id)"
        " insert into pgdrip.contact_triggers (contact_id, trigger)"
        " select contact_id, 'WARM' from added",
        [count],
    )
    while one(db, "select pgdrip.enroll_waiting(10000) as n")["n"]:
        pass
    db.execute("vacuum analyze")


def turn(found: Cluster, shards: Iterable[int]) -> Cost:
    """Send what is due in some shards at the same time."""
    dbs = [found.shards[number] for number in shards]
    for db in dbs:
        fill(db, STEPS)
    watch = found.router
    watch.execute("checkpoint")
    lsn = "select pg_current_wal_lsn() - '0/0' as bytes"
    cpu_before, wal_before = server_cpu(watch), one(watch, lsn)["bytes"]
    with ThreadPoolExecutor(len(dbs)) as threads:
        list(threads.map(lambda db: db.execute("call public.work(%s)", [BATCH]), dbs))
    steps = STEPS * len(dbs)
    wal = int(one(watch, lsn)["bytes"]) - int(wal_before)
    return Cost((server_cpu(watch) - cpu_before) / steps, wal / steps)


def sizes(db: Db) -> Sizes:
    query = (
        "select sum(pg_total_relation_size(c.oid)) as bytes from pg_class as c"
        " where c.relnamespace = 'pgdrip'::regnamespace and c.relkind = 'r'"
        "   and c.relname ~ %s"
    )
    people = one(db, "select count(*) as n from pgdrip.contacts")["n"]
    events = one(db, "select count(*) as n from pgdrip.deliveries")["n"]
    state = "^(" + "|".join(name for name in TABLES if name != "deliveries") + ")$"
    return Sizes(
        float(one(db, query, [state])["bytes"]) / people,
        float(one(db, query, ["^deliveries"])["bytes"]) / events,
    )


def calls(found: Cluster) -> list[Call]:
    """The same calls straight to a shard, then through the router."""
    shard, dsn = found.shards[1], found.dsns[1]
    rows = every(found.router, "select bucket from pgdrip.buckets where shard = 1")
    buckets = {row["bucket"] for row in rows}
    phones = (phone(number) for number in range(100_000, 200_000))
    own = [one for one in phones if bucket_of(one) in buckets]
    known = [
        int(found.ask("select pgdrip.upsert_contact(%s)", [number]))
        for number in own[:CALLS]
    ]
    found.ask("select pgdrip.find_contact(%s)", [own[0]])
    asked: dict[str, Callable[[int], tuple[str, list[object]]]] = {
        "upsert_contact, new": lambda n: (
            "select pgdrip.upsert_contact(%s)",
            [own[CALLS + n]],
        ),
        "upsert_contact, known": lambda n: (
            "select pgdrip.upsert_contact(%s)",
            [own[n]],
        ),
        "enroll": lambda n: ("select pgdrip.enroll('WARM', %s)", [known[n]]),
        "explain_contact": lambda n: (
            "select pgdrip.explain_contact(%s)",
            [known[n]],
        ),
        "record_reply": lambda n: (
            "select pgdrip.record_reply('log', %s, 'yes')",
            [own[n]],
        ),
    }
    half = CALLS // 2
    results = []
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as direct:
        for name, call in asked.items():
            alone = spent(direct, [direct.info.backend_pid], call, range(half))
            other = [
                row["pid"]
                for row in every(
                    shard,
                    "select pid from pg_stat_activity where pid <> all (%s)"
                    "   and datname = current_database() and application_name = ''",
                    [[direct.info.backend_pid, shard.info.backend_pid]],
                )
            ]
            before = cpu(other)
            router = spent(
                found.router, [found.router.info.backend_pid], call, range(half, CALLS)
            )
            results.append(Call(name, alone, (cpu(other) - before) / half, router))
    return results


def batches(found: Cluster) -> tuple[float, float]:
    """A contact imported in batches, and then enrolled by the sweep: what the router
    and the shards spend on it together."""
    watch, people = found.router, BATCHES * PEOPLE
    before = server_cpu(watch)
    for batch in range(BATCHES):
        first = 500_000 + batch * PEOPLE
        items = [
            {"phone": phone(number), "name": "Aisyah", "triggers": ["WARM"]}
            for number in range(first, first + PEOPLE)
        ]
        found.ask(
            "select count(*) from pgdrip.import_contacts(%s)", [json.dumps(items)]
        )
    between = server_cpu(watch)
    while found.ask("select pgdrip.enroll_waiting(10000)"):
        pass
    return (between - before) / people, (server_cpu(watch) - between) / people


def spent(
    db: Db,
    pids: Iterable[int],
    call: Callable[[int], tuple[str, list[object]]],
    numbers: range,
) -> float:
    before = cpu(pids)
    for number in numbers:
        query, parameters = call(number)
        db.execute(query.encode(), parameters)
    return (cpu(pids) - before) / len(numbers)


def plan(step: Cost, event: float, person: float) -> Iterator[str]:
    """The rows of the table of docs/scale-out.md: what so many messages a second take.

    `event` in bytes, `person` in microseconds for a contact that comes in.
    """
    for rate in RATES:
        a_day = rate * 86_400
        shards = math.ceil(rate / A_SHARD)
        runners = math.ceil(rate * LATENCY / SLOTS)
        cores = rate * (step.cpu + person / OF_A_PERSON) / 1e6
        digits = 1 if cores > 1 else 2
        yield (
            f"| {rate:,} | {a_day / 1e6:,.0f} M | {shards} | {cores:,.{digits}f}"
            f" | {rate * step.wal / 1e6:,.1f} MB/s, {a_day * step.wal / 1e9:,.0f} GB"
            f" | {a_day * event / 1e9:,.0f} GB | {runners:,}"
            f" | {2 * math.ceil(runners / shards)} |"
        )


def main() -> None:
    binaries = find_binaries("local")
    assert binaries, "apt-get install postgresql"
    with ExitStack() as stack:
        server = stack.enter_context(Server(binaries, settings=SETTINGS))
        databases = Databases(server.dsn)
        stack.callback(databases.close)
        found = stack.enter_context(cluster(databases, shards=SHARDS, real=True))
        define(found)
        for number in found.shards:
            turn(found, [number])  # what is planned once is planned
        pairs = [
            (turn(found, [1 + k % SHARDS]), turn(found, found.shards))
            for k in range(TURNS)
        ]
        size = sizes(found.shards[1])
        passed = calls(found)
        imported, enrolled = batches(found)
    alone, beside = (
        Cost(median(c.cpu for c in column), median(c.wal for c in column))
        for column in zip(*pairs, strict=True)
    )
    print(f"one shard:    {alone.cpu:.0f} µs of CPU, {alone.wal:.0f} B of WAL a step")
    print(f"three shards: {beside.cpu:.0f} µs of CPU, {beside.wal:.0f} B of WAL a step")
    print(f"ratio: {beside.cpu / alone.cpu:.2f} (at most 1.10)")
    print(f"a contact: {size.contact:.0f} B, an event: {size.event:.0f} B")
    print(
        f"imported by {PEOPLE}: {imported:.0f} µs a contact; enrolled: {enrolled:.0f}"
    )
    print(*plan(beside, size.event, imported + enrolled), sep="\n")
    for one_call in passed:
        print(
            f"{one_call.name}: {one_call.direct:.0f} µs straight;"
            f" {one_call.shard:.0f} + {one_call.router:.0f} µs (shard + router)"
        )


if __name__ == "__main__":
    main()
