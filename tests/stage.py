"""What tests of the engine do: define, enroll, and call as a runner does."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

Db = psycopg.Connection[DictRow]
Row = dict[str, Any]
T = TypeVar("T")

TWO_STEPS = (
    {"day": 1, "body": "One"},
    {"day": 3, "body": "Three", "delay": "12 hours"},
)


def sender(db: Db, name: str = "device-0001", **options: Any) -> None:
    definition = {"name": name, "channel": "webhook"} | options
    db.execute("select pgdrip.apply_sender(%s)", [Jsonb(definition)])


def sequence(
    db: Db,
    name: str = "WARM Sequence",
    *,
    steps: Sequence[dict[str, Any]] = TWO_STEPS,
    **options: Any,
) -> None:
    definition: dict[str, Any] = {"name": name, "trigger": "WARM", "channel": "webhook"}
    definition |= {"status": "active", "steps": list(steps)} | options
    db.execute("select * from pgdrip.apply_sequence(%s)", [Jsonb(definition)])


def lead(db: Db, number: int = 1, trigger: str | None = "WARM", **fields: Any) -> int:
    """One contact, with its trigger; its id."""
    columns = {"p_phone": f"+6011{number:07}"} | fields
    named = ", ".join(f"{key} => %({key})s" for key in columns)
    row = one(db, f"select pgdrip.upsert_contact({named}) as id", columns)
    if trigger:
        db.execute("select pgdrip.add_trigger(%s, %s)", [row["id"], trigger])
    contact: int = row["id"]
    return contact


def leads(db: Db, count: int, trigger: str = "WARM") -> list[int]:
    return [lead(db, number, trigger) for number in range(1, count + 1)]


def one(db: Db, query: str, parameters: Any = None) -> Row:
    row = db.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row


def every(db: Db, query: str, parameters: Any = None) -> list[Row]:
    return db.execute(query.encode(), parameters).fetchall()


def contents(db: Db) -> dict[str, str]:
    """What every table of pgdrip holds, in short."""
    tables = every(
        db,
        "select tablename from pg_catalog.pg_tables where schemaname = 'pgdrip'",
    )
    return {
        row["tablename"]: one(
            db,
            "select count(*) || md5(coalesce(string_agg(t::text, '' order by t::text),"
            f" '')) as hash from pgdrip.{row['tablename']} as t",
        )["hash"]
        for row in tables
    }


@contextmanager
def unchanged(db: Db) -> Iterator[None]:
    """Whatever happens in the block must leave every table of pgdrip as it was."""
    before = contents(db)
    yield
    assert contents(db) == before


def claim(db: Db, limit: int = 100, runner: str = "runner-1") -> list[Row]:
    return every(db, "select * from pgdrip.claim(%s, %s)", [runner, limit])


def _ids(messages: Sequence[Row]) -> tuple[list[int], list[int]]:
    return [m["enrollment_id"] for m in messages], [m["token"] for m in messages]


def begin(db: Db, messages: Sequence[Row]) -> list[int]:
    """The tokens that may go out."""
    query = "select pgdrip.begin_send(%s::bigint[], %s::bigint[]) as token"
    return [row["token"] for row in every(db, query, _ids(messages))]


def report(
    db: Db, messages: Sequence[Row], outcome: str = "sent", code: str | None = None
) -> list[str]:
    """The verdicts."""
    count = len(messages)
    rows = every(
        db,
        "select verdict from pgdrip.report(%s::bigint[], %s::bigint[], %s, null, %s)",
        [*_ids(messages), [outcome] * count, [code] * count],
    )
    return [row["verdict"] for row in rows]


def deliver(db: Db, limit: int = 100, runner: str = "runner-1") -> list[Row]:
    """Claim, begin and confirm; what went out."""
    messages = claim(db, limit, runner)
    granted = set(begin(db, messages))
    sent = [message for message in messages if message["token"] in granted]
    report(db, sent)
    return sent


def live(db: Db) -> list[Row]:
    return every(db, "select * from pgdrip.due order by enrollment_id")


def violations(db: Db) -> list[Row]:
    return every(db, "select * from pgdrip.check()")


def never_waits(db: Db) -> Db:
    """Any wait for a row lock on this connection is an error from now on."""
    db.execute("set lock_timeout = '1ms'")
    return db


def waits(watcher: Db, waiting: Db, *, seconds: float = 10) -> None:
    """Return once `waiting` waits for a lock."""
    deadline = time.monotonic() + seconds
    query = "select wait_event_type from pg_stat_activity where pid = %s"
    while one(watcher, query, [waiting.info.backend_pid])["wait_event_type"] != "Lock":
        assert time.monotonic() < deadline, "it does not wait for a lock"


@contextmanager
def meanwhile(call: Callable[..., T], *arguments: Any) -> Iterator["Future[T]"]:
    """`call` in a thread of its own; its result after the block."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, *arguments)
