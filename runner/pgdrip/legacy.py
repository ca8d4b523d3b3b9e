"""The tables of a legacy system, read into tables of the session.

SQL outside engine.py and query.py, since only the command line says which schema and
only the catalog which columns. Columns that an installation lacks are NULL; so are
numbers and times that are none, and times outside the years 2010 to 2200.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString, TypeVar

from psycopg.sql import SQL, Composable, Identifier
from psycopg.sql import Literal as Value

from pgdrip.engine import Engine
from pgdrip.errors import UsageError
from pgdrip.query import Query, value_of

TABLES: Mapping[str, Mapping[str, str]] = {
    "user_devices": {
        "text": "user_id device_name phone jid status",
        "number": "min_delay_seconds max_delay_seconds",
    },
    "sequences": {
        "text": "user_id device_id name target_status status trigger start_trigger"
        " end_trigger schedule_time",
        "flag": "is_active",
        "time": "created_at",
    },
    "sequence_steps": {
        "text": "sequence_id trigger next_trigger message_type content message_text"
        " caption media_url time_schedule",
        "number": "day_number trigger_delay_hours",
        "flag": "is_entry_point",
    },
    "leads": {
        "text": "user_id device_id name phone email address status niche trigger",
        "time": "created_at updated_at",
    },
    "sequence_contacts": {
        "text": "sequence_id contact_phone contact_name status processing_device_id"
        " user_id assigned_device_id sequence_stepid",
        "number": "current_step",
        "time": "completed_at next_trigger_time",
    },
    "broadcast_messages": {
        "text": "user_id device_id sequence_id sequence_stepid recipient_phone"
        " recipient_name content media_url status",
        "time": "scheduled_at sent_at created_at",
    },
}
"""What adoption reads of each table beside `id`, and as what."""

PHONES: LiteralString = """
    select phone from pg_temp.legacy_leads where phone is not null
    union select contact_phone from pg_temp.legacy_sequence_contacts
           where contact_phone is not null
    union select recipient_phone from pg_temp.legacy_broadcast_messages
           where recipient_phone is not null
"""
DEVICES: LiteralString = """
    select d.id, u.pool, d.device_name, d.phone, d.jid, d.status, d.min_delay_seconds,
           d.max_delay_seconds
      from pg_temp.legacy_user_devices as d
      left join pg_temp.legacy_users as u using (user_id)
     where not exists (select from pgdrip.adoptions as a
                        where a.legacy_table = 'user_devices' and a.legacy_id = d.id
                          and a.outcome <> 'refused')
     order by d.id
"""
SEQUENCES: LiteralString = """
    select s.id, u.pool, s.name, s.status, s.is_active, s.trigger, s.start_trigger,
           s.end_trigger, s.schedule_time,
           exists (select from pgdrip.adoptions as a
                    where a.legacy_table = 'sequences' and a.legacy_id = s.id
                      and a.outcome <> 'refused') as is_done,
           exists (select from pg_temp.legacy_sequence_contacts as e
                    where e.sequence_id = s.id) as is_used
      from pg_temp.legacy_sequences as s
      left join pg_temp.legacy_users as u using (user_id)
     order by s.created_at, s.id
"""
STEPS: LiteralString = """
    select s.id, s.sequence_id, s.day_number, s.trigger, s.next_trigger,
           s.trigger_delay_hours, s.is_entry_point, s.message_type, s.content,
           s.message_text, s.caption, s.media_url, s.time_schedule,
           exists (select from pgdrip.adoptions as a
                    where a.legacy_table = 'sequence_steps' and a.legacy_id = s.id
                      and (a.outcome <> 'refused' or q.outcome <> 'refused')) as is_done
      from pg_temp.legacy_sequence_steps as s
      left join pgdrip.adoptions as q
             on q.legacy_table = 'sequences' and q.legacy_id = s.sequence_id
     order by s.day_number, s.id
"""
CHUNK = 20_000  # phones in one call, rows of an account in one answer

T = TypeVar("T")

Types = Mapping[str, Mapping[str, str]]
Phone = tuple[str | None, str | None, str | None]
"""E.164, how it was found, what is wrong with it."""


@dataclass(slots=True)
class Entry:
    """What became of one row; `number` is what it is now: an id, or a step's number."""

    id: str
    outcome: str = "adopted"
    notes: list[str] = field(default_factory=list)
    number: int | None = None

    def repaired(self, note: str) -> None:
        self.outcome = "repaired"
        self.notes.append(note)

    def refused(self, reason: str) -> "Entry":
        self.outcome, self.number, self.notes = "refused", None, [reason]
        return self


async def types_of(engine: Engine, schema: str) -> Types:
    """Return the type of each column of each table of a schema.

    Raises UsageError where that is no legacy system.
    """
    found = await _rows(
        engine,
        "select c.relname, a.attname, pg_catalog.format_type(a.atttypid, null)"
        "  from pg_catalog.pg_class as c"
        "  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        "  join pg_catalog.pg_attribute as a on a.attrelid = c.oid"
        " where n.nspname = {} and c.relkind in ('r', 'p', 'v', 'm', 'f')"
        "   and a.attnum > 0 and not a.attisdropped",
        Value(schema),
    )
    types: dict[str, dict[str, str]] = {name: {} for name in TABLES}
    for table, column, kind in found:
        if table in types:
            types[table][column] = kind
    missing = [name for name in TABLES if "id" not in types[name]]
    if missing:
        raise UsageError(
            f"schema {schema!r} has no table {', '.join(missing)} with an id",
            hint="--from-schema names the schema of the legacy system's tables",
        )
    return types


async def make_months(engine: Engine, schema: str, types: Types, zone: str) -> None:
    """Make the history partitions that the messages once sent will need."""
    columns = types["broadcast_messages"]
    times = [
        _read(name, "time", columns.get(name), zone)
        for name in TABLES["broadcast_messages"]["time"].split()
    ]
    [[first]] = await _rows(
        engine,
        "select min(least({})) from {}.broadcast_messages",
        SQL(", ").join(times),
        Identifier(schema),
    )
    if first is not None:
        await engine.ask(value_of("adopt_months", **{"from": first}))


async def stage(engine: Engine, schema: str, types: Types, zone: str) -> None:
    """Copy every row into the tables of the session.

    Needs a transaction with one snapshot: all is read as of one moment.
    """
    await engine.ask(value_of("stage_adoption"))
    for table, kinds in TABLES.items():
        columns = {name: kind for kind in kinds for name in kinds[kind].split()}
        await _rows(
            engine,
            "with copied as (insert into pg_temp.{} (id, {}) select id::text, {}"
            " from {}.{} returning 1) select count(*) from copied",
            Identifier(f"legacy_{table}"),
            SQL(", ").join(map(Identifier, columns)),
            SQL(", ").join(
                _read(name, kind, types[table].get(name), zone)
                for name, kind in columns.items()
            ),
            Identifier(schema),
            Identifier(table),
        )
    await engine.ask(value_of("name_legacy_pools"))


def _read(column: str, kind: str, found: str | None, zone: str) -> Composable:
    """Put together how a column of the type `found` is read as text or another kind."""
    text = SQL("{}::text").format(Identifier(column))
    if found is None or (
        kind == "time" and not found.startswith(("timestamp", "date"))
    ):
        return SQL("null")
    if kind == "number":
        return SQL(
            "case when {0} ~ '^ *-?[0-9]{{1,8}}([.]0*)? *$'"
            " then {0}::numeric::integer end"
        ).format(text)
    if kind == "flag":
        return SQL("lower({}) in ('t', 'true', 'y', 'yes', '1')").format(text)
    if kind == "text":
        return SQL("nullif({}, '')").format(text)
    instant: Composable = Identifier(column)
    if found != "timestamp with time zone":
        instant = SQL("({}::timestamp at time zone {})").format(instant, Value(zone))
    return SQL(
        "case when {0} between '2010-01-01 00:00+00' and '2200-01-01 00:00+00'"
        " then {0} end"
    ).format(instant)


async def stage_phones(engine: Engine, read: Callable[[str], Phone]) -> None:
    """Find out what each phone means, once however often it is written."""
    written = [text for [text] in await _rows(engine, PHONES)]
    for start in range(0, len(written), CHUNK):
        part = written[start : start + CHUNK]
        phones, hows, problems = zip(*map(read, part), strict=True)
        await engine.ask(
            value_of(
                "stage_legacy_phones",
                written=part,
                phones=list(phones),
                hows=list(hows),
                problems=list(problems),
            )
        )


async def record(engine: Engine, table: str, entries: Sequence[Entry]) -> None:
    """Write what became of the rows of a table."""
    if entries:
        await engine.ask(
            value_of(
                "record_adoptions",
                table=table,
                ids=[one.id for one in entries],
                outcomes=[one.outcome for one in entries],
                details=["; ".join(one.notes) for one in entries],
                objects=[one.number for one in entries],
            )
        )


async def rows(
    engine: Engine, text: LiteralString, row_type: Callable[..., T]
) -> list[T]:
    """Read staged rows; the columns are the fields of `row_type`, in its order."""
    return [row_type(*row) for row in await _rows(engine, text)]


async def ids(engine: Engine, table: Literal["senders", "sequences"]) -> dict[str, int]:
    """The ids of all senders or sequences, by their names."""
    key = Identifier(f"{table.removesuffix('s')}_id")
    return dict(
        await _rows(engine, "select name, {} from pgdrip.{}", key, Identifier(table))
    )


async def accounts(engine: Engine) -> list[tuple[str, str, int]]:
    """How many rows of each table came to what: table, outcome, rows."""
    return await _rows(
        engine,
        "select legacy_table, outcome, count(*) from pgdrip.adoptions"
        " group by 1, 2 order by 1, 2",
    )


async def notes(engine: Engine) -> list[tuple[str, str, int]]:
    """How or why, each counted by itself though a row may have several: table, why,
    rows."""
    return await _rows(
        engine,
        "select a.legacy_table, n.note, count(*) from pgdrip.adoptions as a,"
        " string_to_table(a.detail, '; ') as n(note)"
        " group by 1, 2 order by 1, 3 desc, 2",
    )


async def account_rows(engine: Engine) -> AsyncIterator[Sequence[Any]]:
    """What became of each row: table, id, outcome, why, object."""
    last: Sequence[Any] = ("", "")
    while True:
        found = await _rows(
            engine,
            "select legacy_table, legacy_id, outcome, detail, object_id"
            " from pgdrip.adoptions where (legacy_table, legacy_id) > ({}, {})"
            " order by legacy_table, legacy_id limit {}",
            *map(Value, (last[0], last[1], CHUNK)),
        )
        for last in found:
            yield last
        if len(found) < CHUNK:
            return


async def _rows(engine: Engine, text: LiteralString, *parts: Composable) -> list[Any]:
    answer = await engine.ask(Query(SQL(text).format(*parts)))
    return list(answer.rows)
