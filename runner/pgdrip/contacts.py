"""Contacts out of a CSV file, into the database by batches in one transaction.

The first line names the columns: phone, email, name, timezone, trigger (or triggers,
several separated by `;`), sender; every other column is an attribute. A bad line
never stops a good one: it comes back as a Reject. A crash leaves nothing behind.
"""

import codecs
import csv
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from pgdrip.engine import Engine
from pgdrip.errors import RowsRejected
from pgdrip.phones import BadPhone, normaliser

FIELDS = ("phone", "email", "name", "timezone", "trigger", "sender")
MAX_FIELD = 64 * 1024  # bytes
MAX_LINE = 1024 * 1024  # bytes
MAX_LINES = 100  # of one record
BATCH = 1_000  # lines; import_contacts() takes 10,000 at most
SAVE_AS = "save it as CSV UTF-8"


@dataclass(frozen=True, slots=True, order=True)
class Reject:
    """A line that was not imported; `column` is empty when it is the whole line."""

    line: int
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """How many contacts are stored, and every line that is not."""

    contacts: int
    rejects: list[Reject]


class BadLine(ValueError):
    """Why one line cannot be used."""

    def __init__(self, reason: str, column: str = "") -> None:
        super().__init__(reason)
        self.column = column


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str | BadLine


class _Undo(Exception):
    """Rolls a strict import back."""


async def import_csv(
    engine: Engine,
    stream: IO[bytes],
    *,
    pool: str = "default",
    region: str | None = None,
    strict: bool = False,
    on_progress: Callable[[int], None] = lambda line: None,
) -> Imported:
    """Import a whole file in one transaction; with `strict` only if every line is good.

    `on_progress` is called with the number of the line reached. Raises RowsRejected
    when the file as a whole cannot be read.
    """
    stored = 0
    rejects: list[Reject] = []
    batch: list[dict[str, Any]] = []

    async def flush() -> None:
        nonlocal stored
        for row in await engine.import_contacts(batch, pool=pool):
            if row.reason is None:
                stored += 1
            else:
                rejects.append(Reject(row.line, "", row.reason))
        on_progress(batch[-1]["line"])
        batch.clear()

    try:
        async with engine.transaction():
            for item in read(stream, region):
                if isinstance(item, Reject):
                    rejects.append(item)
                    continue
                batch.append(item)
                if len(batch) == BATCH:
                    await flush()
            if batch:
                await flush()
            if strict and rejects:
                raise _Undo
    except _Undo:
        stored = 0
    return Imported(stored, sorted(rejects))


def read(
    stream: IO[bytes], region: str | None = None
) -> Iterator[dict[str, Any] | Reject]:
    """Yield each line of a CSV file as import_contacts() takes it, or as a Reject.

    Raises RowsRejected when the file as a whole cannot be read.
    """
    normalise = normaliser(region)
    rows = records(stream)
    _, header = next(rows, (1, BadLine("the file is empty")))
    columns = _columns(header)
    seen: dict[str, int] = {}
    for line, row in rows:
        try:
            if isinstance(row, BadLine):
                raise row
            contact = _contact(dict(zip(columns, row, strict=True)), normalise)
            addresses = [c for c in ("phone", "email") if c in contact]
            for column in addresses:
                if first := seen.get(contact[column].lower()):
                    raise BadLine(f"the same {column} as line {first}", column)
            seen.update((contact[column].lower(), line) for column in addresses)
            yield {"line": line, **contact}
        except BadLine as error:
            yield Reject(line, error.column, str(error))


def records(stream: IO[bytes]) -> Iterator[tuple[int, list[str] | BadLine]]:
    """Yield line number and fields of each record; empty lines are none.

    Each record has as many fields as the first. A quoted field may go on over several
    lines; where that makes no good record, only the line that opened the quote is bad
    and reading goes on with the one after it.
    """
    lines = _lines(stream)
    ahead: deque[Line] = deque()
    width = None
    while line := ahead.popleft() if ahead else next(lines, None):
        taken = [line]
        row = _parse(taken, width)
        while row is None and len(taken) < MAX_LINES:
            more = ahead.popleft() if ahead else next(lines, None)
            if more is None:
                break
            taken.append(more)
            row = _parse(taken, width)
        if row is None or (isinstance(row, BadLine) and len(taken) > 1):
            ahead.extendleft(reversed(taken[1:]))
            row = BadLine("a quote is opened and never closed")
        if row:
            width = width or len(row) if isinstance(row, list) else width
            yield line.number, row


def _lines(stream: IO[bytes]) -> Iterator[Line]:
    number = 0
    while data := stream.readline(MAX_LINE):
        number += 1
        text: str | BadLine
        if number == 1:
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise RowsRejected("line 1: the file is UTF-16", hint=SAVE_AS)
            data = data.removeprefix(codecs.BOM_UTF8)
        if len(data) == MAX_LINE and not data.endswith(b"\n"):
            text = BadLine("the line is longer than 1 MB")
            while (data := stream.readline(MAX_LINE)) and not data.endswith(b"\n"):
                pass
        elif b"\0" in data:
            text = BadLine(f"a NUL byte ({SAVE_AS})")
        else:
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                byte = data[error.start]
                text = BadLine(f"not UTF-8: byte 0x{byte:02x} ({SAVE_AS})")
        yield Line(number, text)


def _parse(lines: list[Line], width: int | None) -> list[str] | BadLine | None:
    """Read one record; None when its last field goes on in the next line."""
    texts = []
    for line in lines:
        if isinstance(line.text, BadLine):
            return line.text
        texts.append(line.text)
    try:
        row = next(csv.reader(texts, strict=True), [])
    except csv.Error as error:
        if str(error) == "unexpected end of data":
            return None
        if "field larger" in str(error):
            return BadLine("a field is longer than 64 kB")
        if "new-line" in str(error):
            return BadLine("a carriage return inside the line (end lines with LF)")
        return BadLine("text after a closing quote (write a quote inside as two)")
    if any(len(text.encode()) > MAX_FIELD for text in row):
        return BadLine("a field is longer than 64 kB")
    if width and row and len(row) != width:
        return BadLine(f"{len(row)} fields, the header has {width}")
    return row


def _columns(header: list[str] | BadLine) -> list[str]:
    """Return what each column means: one of FIELDS or the name of an attribute."""
    hint = "the first line names the columns, such as phone,name,trigger"
    if isinstance(header, BadLine):
        raise RowsRejected(f"line 1: {header}", hint=hint)
    columns = [name.strip() for name in header]
    for number, name in enumerate(columns):
        known = name.lower().replace("triggers", "trigger")
        if known in FIELDS:
            columns[number] = known
    if "phone" not in columns and "email" not in columns:
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
            hint = "columns are separated by commas"
        raise RowsRejected("line 1: no column phone or email", hint=hint)
    for number, name in enumerate(columns, 1):
        if not name:
            raise RowsRejected(f"line 1: column {number} has no name", hint=hint)
        if columns.count(name) > 1:
            raise RowsRejected(f"line 1: two columns are called {name!r}", hint=hint)
    return columns


def _contact(cells: dict[str, str], normalise: Callable[[str], str]) -> dict[str, Any]:
    """Return one row as import_contacts() takes it; an empty cell says nothing."""
    filled = {name: text.strip() for name, text in cells.items() if text.strip()}
    contact: dict[str, Any] = {
        name: filled.pop(name)
        for name in ("email", "name", "timezone", "sender")
        if name in filled
    }
    if phone := filled.pop("phone", None):
        try:
            contact["phone"] = normalise(phone)
        except BadPhone as error:
            raise BadLine(str(error), "phone") from error
    elif "email" not in contact:
        raise BadLine("neither phone nor email")
    if words := filled.pop("trigger", None):
        contact["triggers"] = [
            word.strip() for word in words.split(";") if word.strip()
        ]
    if filled:
        contact["attributes"] = filled
    return contact
