"""Every SQL call pgdrip makes: one method per database function, named like it.

Arguments are those of the function without `p_`; the comments in the database say what
each one does. Spans are timedelta, instants aware datetimes in UTC. Errors are those of
pgdrip.errors. Each call is its own short transaction unless `transaction()` is open.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row, scalar_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from pgdrip import SCHEMA_VERSIONS, __version__
from pgdrip.errors import (
    MIGRATE,
    PASSING,
    ConfigurationError,
    DatabaseUnavailable,
    EngineRefused,
    SchemaMismatch,
    from_database,
)
from pgdrip.query import Answer, Query

TWO_MINUTES = timedelta(minutes=2)
IDLE = psycopg.pq.TransactionStatus.IDLE
CONNECT_TIMEOUT = 10  # seconds
CALL_TIMEOUT = 60.0  # seconds
MERGE_TIMEOUT = 3600.0  # seconds
ATTEMPTS = 5

# What a role or a database may have set otherwise and the calls below rely on. A pooler
# keeps the first two apart for each of its clients; the rest would be set for others.
POOLED_SESSION: LiteralString = "set timezone = 'UTC'; set datestyle = 'ISO'"
SESSION: LiteralString = f"""
    {POOLED_SESSION}; set intervalstyle = 'postgres';
    set session characteristics as transaction isolation level read committed
"""

REJECTED_LINES: LiteralString = (
    "select line, field, reason from pg_temp.import_lines"
    " where reason is not null order by line"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """One live step, leased to this runner until `lease_until`.

    It may go out only after begin_send() and before `send_by`. `sender_config` is what
    the sender was defined with, plus `secret`: the name of a variable or file.
    """

    enrollment_id: int
    token: int
    sequence: str
    step: int
    attempt: int
    channel: str
    sender: str
    sender_config: dict[str, Any]
    recipient: str
    subject: str | None
    body: str | None
    content: dict[str, Any] | None
    idempotency_key: str
    due_at: datetime
    send_by: datetime
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class UncertainSend:
    """A send that began and whose outcome nobody knows.

    Subject, body and content are None where they can no longer be rendered as sent.
    `known_ids` are the provider's ids of other messages to the same contact.
    """

    enrollment_id: int
    token: int
    step: int
    channel: str
    sender: str
    sender_config: dict[str, Any]
    recipient: str
    subject: str | None
    body: str | None
    content: dict[str, Any] | None
    idempotency_key: str
    begun_at: datetime | None
    known_ids: list[str]


@dataclass(frozen=True, slots=True)
class KnownSender:
    """A sender in service, as a probe sees it; `config` is like `sender_config`."""

    sender: str
    channel: str
    config: dict[str, Any]
    health: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What report() made of one outcome."""

    token: int
    verdict: str
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Published:
    """What apply_sequence() did, or would do under dry_run."""

    outcome: str
    version: int | None
    in_flight: int
    stays: int
    moves: int
    stranded: int


@dataclass(frozen=True, slots=True)
class ImportResult:
    """One line of an import: its contact, or the reason why not."""

    line: int
    contact_id: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that merge_import() did not store; `field` is None for the whole line."""

    line: int
    field: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one contact stands in one sequence, and why."""

    sequence: str
    enrollment_id: int | None
    status: str
    step: int | None
    due_at: datetime | None
    sender: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """One step as it would go out; `send_at` is None where it would be skipped."""

    step: int
    due_at: datetime
    send_at: datetime | None
    body: str | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a batch would be through; `done_at` is None where it takes ten years.

    `per_hour` is what the senders of `bottleneck_pool` can send, in messages; both are
    None where no sender has a limit.
    """

    done_at: datetime | None
    bottleneck_pool: str | None
    per_hour: Decimal | None


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant."""

    invariant: str
    enrollment_id: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What tally() counted last: rows as they were then, times as ISO 8601 texts."""

    name: str
    counted_at: datetime
    content: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What one maintain() did."""

    partitions_created: int
    hints_repaired: int
    senders_adopted: int
    receipts_pruned: int
    months_retired: int
    history_held_by: int | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample for Prometheus; `type` is gauge or counter."""

    name: str
    help: str
    type: str
    labels: dict[str, str]
    value: Decimal


def parsed(dsn: str) -> dict[str, Any]:
    """The parameters of a connection string; raises ConfigurationError."""
    try:
        return conninfo_to_dict(dsn)
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        # The error of libpq may quote the string, and with it a password.
        raise ConfigurationError(
            "the connection string cannot be read",
            hint="such as host=db dbname=drip, or postgresql://db/drip",
        ) from None


def copy_lines(columns: Sequence[LiteralString]) -> Composed:
    """The COPY that takes these columns of the lines of an import."""
    return SQL("copy pg_temp.import_lines ({}) from stdin (format csv)").format(
        SQL(", ").join(map(SQL, columns))
    )


class Engine:
    """One connection to one pgdrip database.

    A call that gets no answer within `timeout` seconds shuts the socket and raises
    DatabaseUnavailable: behind a half-open connection not even `select 1` returns.

    Nothing here needs a session: no LISTEN, no prepared statement, no advisory lock. So
    it works behind a pooler that gives each transaction another one.
    """

    def __init__(self, connection: AsyncConnection, *, timeout: float) -> None:
        self.is_pooled = False
        self._connection = connection
        self._timeout = timeout

    @classmethod
    async def connect(
        cls,
        dsn: str = "",
        *,
        application_name: str = "pgdrip",
        writable: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> Self:
        """Connect by libpq's rules; `writable` refuses a standby.

        Raises SchemaMismatch when the database does not hold a schema known here.
        """
        given = parsed(dsn)
        extra: dict[str, Any] = {"application_name": application_name}
        if "connect_timeout" not in given and "PGCONNECT_TIMEOUT" not in os.environ:
            extra["connect_timeout"] = CONNECT_TIMEOUT
        if writable:
            extra["target_session_attrs"] = "read-write"
        try:
            connection = await AsyncConnection.connect(
                dsn, autocommit=True, prepare_threshold=None, **extra
            )
        except psycopg.Error as error:
            raise from_database(error) from error
        engine = cls(connection, timeout=timeout)
        try:
            engine.is_pooled = await engine._is_pooled()
            await engine._execute(POOLED_SESSION if engine.is_pooled else SESSION)
            await engine._require_known_version()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def close(self) -> None:
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[None]:
        """Several calls, all or nothing; with `snapshot` all see one moment."""
        level = " isolation level repeatable read" if snapshot else ""
        await self._execute(f"begin{level}")
        try:
            yield
        except BaseException:
            if not self._connection.closed:
                await self._execute("rollback")
            raise
        await self._execute("commit")

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Calls within a transaction that fail by themselves."""
        await self._execute("savepoint pgdrip_part")
        try:
            yield
        except BaseException:
            if not self._connection.closed:
                await self._execute("rollback to savepoint pgdrip_part")
            raise
        await self._execute("release savepoint pgdrip_part")

    # Contacts and enrollment

    async def upsert_contact(
        self,
        *,
        phone: str | None = None,
        email: str | None = None,
        name: str | None = None,
        attributes: dict[str, Any] | None = None,
        timezone: str | None = None,
        pool: str = "default",
        sender: str | None = None,
    ) -> int:
        return await self._value(
            int,
            "select pgdrip.upsert_contact(%s, %s, %s, %s, %s, %s, %s)",
            *(phone, email, name, Jsonb(attributes or {}), timezone, pool, sender),
        )

    async def add_trigger(self, contact: int, trigger: str) -> list[int]:
        return await self._values(
            int, "select * from pgdrip.add_trigger(%s, %s)", contact, trigger
        )

    async def remove_trigger(self, contact: int, trigger: str) -> bool:
        return await self._value(
            bool, "select pgdrip.remove_trigger(%s, %s)", contact, trigger
        )

    async def enroll(
        self, sequence: str, contact: int, *, start_at: datetime | None = None
    ) -> int:
        return await self._value(
            int, "select pgdrip.enroll(%s, %s, %s)", sequence, contact, start_at
        )

    async def enroll_waiting(self, limit: int = 1000) -> int:
        return await self._value(int, "select pgdrip.enroll_waiting(%s)", limit)

    async def explain_enroll(self, sequence: str, contact: int) -> str:
        return await self._value(
            str, "select pgdrip.explain_enroll(%s, %s)", sequence, contact
        )

    async def pause_enrollment(self, enrollment: int, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.pause_enrollment(%s, %s)", enrollment, reason
        )

    async def resume_enrollment(self, enrollment: int) -> bool:
        return await self._value(
            bool, "select pgdrip.resume_enrollment(%s)", enrollment
        )

    async def exit_enrollment(self, enrollment: int, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.exit_enrollment(%s, %s)", enrollment, reason
        )

    async def import_contacts(
        self, contacts: Sequence[dict[str, Any]], *, pool: str = "default"
    ) -> list[ImportResult]:
        return await self._rows(
            ImportResult,
            "select * from pgdrip.import_contacts(%s, %s)",
            *(Jsonb(list(contacts)), pool),
        )

    @contextlib.asynccontextmanager
    async def staging(
        self, columns: Sequence[LiteralString]
    ) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Take lines for merge_import(): give a function that takes CSV in UTF-8.

        `columns` are those of pg_temp.import_lines, of which each line has all. Needs
        an open transaction.
        """
        await self._execute("select pgdrip.stage_import()")
        async with self._deadline():
            copying = self._connection.cursor().copy(copy_lines(columns))
            copy = await copying.__aenter__()
        try:

            async def write(lines: bytes) -> None:
                async with self._deadline():
                    await copy.write(lines)

            yield write
        except BaseException as error:
            with contextlib.suppress(psycopg.Error):
                await copying.__aexit__(type(error), error, error.__traceback__)
            raise
        async with self._deadline():
            await copying.__aexit__(None, None, None)

    async def merge_import(self, *, pool: str = "default") -> int:
        """Takes as long as it takes: seconds for a million lines, in one statement."""
        cursor = self._connection.cursor(row_factory=scalar_row)
        async with self._deadline(MERGE_TIMEOUT):
            await cursor.execute("select pgdrip.merge_import(%s)", [pool])
            [stored] = await cursor.fetchall()
        return int(stored)

    async def rejected_lines(self) -> list[RejectedLine]:
        """The lines that merge_import() left out, in the same transaction."""
        return await self._rows(RejectedLine, REJECTED_LINES)

    # Definitions

    async def apply_sequence(self, definition: dict[str, Any]) -> Published:
        [published] = await self._rows(
            Published, "select * from pgdrip.apply_sequence(%s)", Jsonb(definition)
        )
        return published

    async def apply_sender(self, definition: dict[str, Any]) -> str:
        return await self._value(
            str, "select pgdrip.apply_sender(%s)", Jsonb(definition)
        )

    async def apply_group(self, definition: dict[str, Any]) -> str:
        return await self._value(
            str, "select pgdrip.apply_group(%s)", Jsonb(definition)
        )

    async def export_definitions(self) -> list[dict[str, Any]]:
        return await self._values(dict, "select * from pgdrip.export_definitions()")

    async def activate_sequence(self, sequence: str) -> bool:
        return await self._value(bool, "select pgdrip.activate_sequence(%s)", sequence)

    async def archive_sequence(self, sequence: str) -> bool:
        return await self._value(bool, "select pgdrip.archive_sequence(%s)", sequence)

    async def pause_sequence(self, sequence: str, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.pause_sequence(%s, %s)", sequence, reason
        )

    async def resume_sequence(
        self, sequence: str, *, keep_remaining: bool = False
    ) -> bool:
        return await self._value(
            bool, "select pgdrip.resume_sequence(%s, %s)", sequence, keep_remaining
        )

    async def pause_sender(self, sender: str, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.pause_sender(%s, %s)", sender, reason
        )

    async def resume_sender(self, sender: str) -> bool:
        return await self._value(bool, "select pgdrip.resume_sender(%s)", sender)

    async def retire_sender(
        self, sender: str, *, move_to_pool: str | None = None
    ) -> bool:
        return await self._value(
            bool, "select pgdrip.retire_sender(%s, %s)", sender, move_to_pool
        )

    async def delete_sender(self, sender: str) -> bool:
        return await self._value(bool, "select pgdrip.delete_sender(%s)", sender)

    async def move_sender(self, sender: str, pool: str) -> bool:
        return await self._value(
            bool, "select pgdrip.move_sender(%s, %s)", sender, pool
        )

    async def pause_all(self, reason: str) -> bool:
        return await self._value(bool, "select pgdrip.pause_all(%s)", reason)

    async def resume_all(self) -> bool:
        return await self._value(bool, "select pgdrip.resume_all()")

    # The runner

    async def claim(
        self,
        runner: str,
        limit: int = 100,
        *,
        lease: timedelta = TWO_MINUTES,
        channels: Sequence[str] | None = None,
    ) -> list[ClaimedMessage]:
        return await self._rows(
            ClaimedMessage,
            "select * from pgdrip.claim(%s, %s, %s, %s::text[])",
            *(runner, limit, lease, None if channels is None else list(channels)),
        )

    async def begin_send(
        self, enrollments: Sequence[int], tokens: Sequence[int]
    ) -> list[int]:
        return await self._values(
            int,
            "select * from pgdrip.begin_send(%s::bigint[], %s::bigint[])",
            *(list(enrollments), list(tokens)),
        )

    async def heartbeat(
        self,
        enrollments: Sequence[int],
        tokens: Sequence[int],
        *,
        lease: timedelta = TWO_MINUTES,
    ) -> list[int]:
        return await self._values(
            int,
            "select * from pgdrip.heartbeat(%s::bigint[], %s::bigint[], %s)",
            *(list(enrollments), list(tokens), lease),
        )

    async def release(
        self, enrollments: Sequence[int], tokens: Sequence[int]
    ) -> list[int]:
        return await self._values(
            int,
            "select * from pgdrip.release(%s::bigint[], %s::bigint[])",
            *(list(enrollments), list(tokens)),
        )

    async def report(
        self,
        enrollments: Sequence[int],
        tokens: Sequence[int],
        *,
        outcomes: Sequence[str],
        provider_ids: Sequence[str | None] | None = None,
        codes: Sequence[str | None] | None = None,
        details: Sequence[str | None] | None = None,
    ) -> list[Verdict]:
        texts = (None if t is None else list(t) for t in (provider_ids, codes, details))
        return await self._rows(
            Verdict,
            "select * from pgdrip.report(%s::bigint[], %s::bigint[], %s::text[],"
            " %s::text[], %s::text[], %s::text[])",
            *(list(enrollments), list(tokens), list(outcomes), *texts),
        )

    async def next_wake(self) -> datetime | None:
        return await self._value(datetime, "select pgdrip.next_wake()")

    async def wake_in(self) -> float | None:
        """Seconds from clock() to next_wake(); negative when work is overdue."""
        return await self._value(
            float,
            "select extract(epoch from pgdrip.next_wake() - pgdrip.clock())::float8",
        )

    async def tick(self, runner: str, version: str) -> int:
        return await self._value(int, "select pgdrip.tick(%s, %s)", runner, version)

    # Inbound and operate

    async def record_receipt(
        self,
        channel: str,
        provider_id: str,
        *,
        status: str,
        at: datetime | None = None,
    ) -> bool:
        return await self._value(
            bool,
            "select pgdrip.record_receipt(%s, %s, %s, %s)",
            *(channel, provider_id, status, at),
        )

    async def record_reply(
        self, channel: str, address: str, *, text: str, at: datetime | None = None
    ) -> int:
        return await self._value(
            int,
            "select pgdrip.record_reply(%s, %s, %s, %s)",
            *(channel, address, text, at),
        )

    async def suppress(self, address: str, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.suppress(%s, %s)", address, reason
        )

    async def unsuppress(self, address: str, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.unsuppress(%s, %s)", address, reason
        )

    async def record_event(
        self,
        contact: int,
        event: str,
        *,
        payload: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> int:
        return await self._value(
            int,
            "select pgdrip.record_event(%s, %s, %s, %s)",
            *(contact, event, Jsonb(payload or {}), at),
        )

    async def retry_failed(self, enrollment: int, reason: str) -> bool:
        return await self._value(
            bool, "select pgdrip.retry_failed(%s, %s)", enrollment, reason
        )

    async def simulate(
        self, sequence: str, start: datetime, *, contact: int | None = None
    ) -> list[Simulated]:
        return await self._rows(
            Simulated,
            "select * from pgdrip.simulate(%s, %s, %s)",
            *(sequence, start, contact),
        )

    async def forecast(self, sequence: str, contacts: int) -> Forecast:
        [told] = await self._rows(
            Forecast, "select * from pgdrip.forecast(%s, %s)", sequence, contacts
        )
        return told

    async def resolve_uncertain(self, token: int, outcome: str) -> str:
        return await self._value(
            str, "select pgdrip.resolve_uncertain(%s, %s)", token, outcome
        )

    async def uncertain_sends(
        self, channels: Sequence[str], *, older_than: timedelta, after: int, limit: int
    ) -> list[UncertainSend]:
        return await self._rows(
            UncertainSend,
            "select * from pgdrip.uncertain_sends(%s, %s, %s, %s)",
            *(list(channels), older_than, after, limit),
        )

    async def senders_to_probe(
        self, channels: Sequence[str], *, after: str, limit: int
    ) -> list[KnownSender]:
        return await self._rows(
            KnownSender,
            "select * from pgdrip.senders_to_probe(%s, %s, %s)",
            *(list(channels), after, limit),
        )

    async def record_probe(
        self, sender: str, *, is_up: bool, detail: str | None = None
    ) -> str:
        return await self._value(
            str, "select pgdrip.record_probe(%s, %s, %s)", sender, is_up, detail
        )

    async def explain_contact(self, contact: int) -> list[Explanation]:
        return await self._rows(
            Explanation, "select * from pgdrip.explain_contact(%s)", contact
        )

    async def check(self) -> list[Violation]:
        return await self._rows(Violation, "select * from pgdrip.check()")

    async def maintain(self) -> Maintenance:
        [done] = await self._rows(Maintenance, "select * from pgdrip.maintain()")
        return done

    async def set_retention(
        self, keep: timedelta | None, *, detach: bool = False
    ) -> bool:
        return await self._value(
            bool, "select pgdrip.set_retention(%s, %s)", keep, detach
        )

    async def metrics(self) -> list[Metric]:
        return await self._rows(Metric, "select * from pgdrip.metrics()")

    async def tally(self, name: str) -> bool:
        """Takes as long as counting does: seconds where there are millions."""
        return await self._value(bool, "select pgdrip.tally(%s)", name)

    async def tallied(self, names: Sequence[str]) -> dict[str, Tally]:
        """What was counted, by name; what never was is left out."""
        found = await self._rows(
            Tally,
            "select name, counted_at, content from pgdrip.last_tallies"
            " where name = any (%s)",
            list(names),
        )
        return {tally.name: tally for tally in found}

    async def note(self, action: str, object: str, reason: str | None = None) -> None:
        await self._values(
            str, "select pgdrip.note(%s, %s, %s)", action, object, reason
        )

    async def unlock(self, reason: str) -> bool:
        return await self._value(bool, "select pgdrip.unlock(%s)", reason)

    async def clock(self) -> datetime:
        return await self._value(datetime, "select pgdrip.clock()")

    async def schema_version(self) -> str:
        return await self._value(str, "select pgdrip.schema_version()")

    async def database_id(self) -> str:
        """What tells this database from every other one, a restored copy included."""
        return await self._value(
            str,
            "select c.system_identifier || '-' || d.oid"
            "  from pg_catalog.pg_control_system() as c, pg_catalog.pg_database as d"
            " where d.datname = pg_catalog.current_database()",
        )

    # How a call is made

    async def _is_pooled(self) -> bool:
        """A pooler gives its clients a process id of its own making."""
        found = await self._value(int, "select pg_catalog.pg_backend_pid()")
        return found != self._connection.info.backend_pid

    async def ask(self, query: Query) -> Answer:
        """Run a statement that was put together elsewhere, for people to read."""
        cursor = self._connection.cursor()
        rows = await self._fetch(cursor, query.statement, ())
        return Answer([column.name for column in cursor.description or ()], rows)

    async def stream(self, query: Query, *, rows: int = 5000) -> AsyncIterator[Answer]:
        """Like ask(), so many rows at a time, for answers larger than the memory."""
        async with self.transaction():
            cursor = self._connection.cursor(name="pgdrip_stream")
            async with self._deadline():
                await cursor.execute(query.statement)
            columns = [column.name for column in cursor.description or ()]
            while True:
                async with self._deadline():
                    found = await cursor.fetchmany(rows)
                yield Answer(columns, found)
                if len(found) < rows:
                    return

    async def _require_known_version(self) -> None:
        try:
            found = await self.schema_version()
        except SchemaMismatch:
            found = "none"
        if found not in SCHEMA_VERSIONS:
            raise SchemaMismatch(
                f"the schema version of the database is {found},"
                f" pgdrip {__version__} knows {', '.join(sorted(SCHEMA_VERSIONS))}",
                hint=MIGRATE,
            )

    async def _value(self, kind: type[T], call: LiteralString, *arguments: Any) -> T:
        [value] = await self._values(kind, call, *arguments)
        return value

    async def _values(
        self, kind: type[T], call: LiteralString, *arguments: Any
    ) -> list[T]:
        cursor: AsyncCursor[T] = self._connection.cursor(row_factory=scalar_row)
        return await self._fetch(cursor, call, arguments)

    async def _rows(
        self, row_type: type[T], call: LiteralString, *arguments: Any
    ) -> list[T]:
        cursor = self._connection.cursor(row_factory=class_row(row_type))
        return await self._fetch(cursor, call, arguments)

    async def _execute(self, statement: LiteralString) -> None:
        async with self._deadline():
            await self._connection.execute(statement)

    async def _fetch(
        self,
        cursor: AsyncCursor[T],
        call: LiteralString | Composed,
        arguments: Sequence[Any],
    ) -> list[T]:
        """Retry what may pass by itself, except inside a transaction."""
        attempt = 1
        while True:
            try:
                async with self._deadline():
                    await cursor.execute(call, arguments or None)
                    return await cursor.fetchall()
            except DatabaseUnavailable as error:
                alone = self._connection.info.transaction_status == IDLE
                if error.sqlstate not in PASSING or not alone or attempt == ATTEMPTS:
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
            attempt += 1

    @contextlib.asynccontextmanager
    async def _deadline(self, seconds: float | None = None) -> AsyncIterator[None]:
        seconds = seconds or self._timeout
        timer = asyncio.get_running_loop().call_later(seconds, self._cut)
        try:
            yield
        except psycopg.Error as error:
            if timer.when() <= asyncio.get_running_loop().time():
                raise DatabaseUnavailable(
                    f"no answer from the database within {seconds:g} s"
                ) from error
            raise from_database(error) from error
        except UnicodeEncodeError as error:
            raise EngineRefused("a text is not valid Unicode") from error
        finally:
            timer.cancel()

    def _cut(self) -> None:
        """Shut the socket, so that whoever waits on it wakes up with an error."""
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)
