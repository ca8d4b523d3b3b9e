"""Contacts out of a CSV file, into the database by COPY and one merge.

The first line names the columns: phone, email, name, timezone, trigger (or triggers,
several separated by `;`), sender; every other column is an attribute. A bad line
never stops a good one: it comes back as a Reject. A crash leaves nothing behind.

Lines with nothing unusual in them, nearly all of a large file, are found by one regular
expression and passed on as they are; each of the others is read by itself.
"""

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, LiteralString

from pgdrip.engine import REJECTED_LINES, Engine, copy_lines
from pgdrip.errors import RowsRejected
from pgdrip.phones import BadPhone, normaliser
from pgdrip.query import value_of

FIELDS: tuple[LiteralString, ...] = (
    *("phone", "email", "name", "timezone", "trigger", "sender"),
)
MAX_FIELD = 64 * 1024  # bytes
MAX_LINE = 1024 * 1024  # bytes
MAX_LINES = 100  # of one record
CHUNK = 256 * 1024  # bytes
SAVE_AS = "save it as CSV UTF-8"
# A cell without quotes, control characters and blanks around it; a phone in E.164.
CELL = rb"(?:[^\s\",\x00-\x1f][^\",\x00-\x1f]{0,65000}+(?<!\s))?"
PHONE = rb"\+[1-9][0-9]{6,14}"


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


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as COPY takes them, the number of the line before the cells."""

    data: bytes


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
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    on_progress: Callable[[int, int], None] = lambda line, position: None,
) -> Imported:
    """Import a whole file in one transaction; with `strict` only if every line is good.

    `mapping` says what a column of the file is called here. `on_progress` is called
    with the line reached and the bytes read. Raises RowsRejected when the file as a
    whole cannot be read.
    """
    reader = Reader(stream, region=region, mapping=mapping)
    rejects: list[Reject] = []
    try:
        async with engine.transaction():
            async with engine.staging(reader.copied) as write:
                waiting = bytearray()
                for found in reader:
                    if isinstance(found, Reject):
                        rejects.append(found)
                        continue
                    waiting += found.data
                    if len(waiting) >= CHUNK:
                        await write(bytes(waiting))
                        on_progress(*reader.position)
                        waiting.clear()
                await write(bytes(waiting))
            stored = await engine.merge_import(pool=pool)
            rejects += [
                Reject(one.line, one.field or "", one.reason)
                for one in await engine.rejected_lines()
            ]
            if strict and rejects:
                raise _Undo
    except _Undo:
        stored = 0
    return Imported(stored, sorted(rejects))


def statements(
    stream: IO[bytes], *, pool: str, mapping: Mapping[str, str]
) -> Iterator[str]:
    """What import_csv() does with this file; raises RowsRejected like it."""
    columns = Reader(stream, mapping=mapping).copied
    yield "begin;"
    yield f"{value_of('stage_import')}"
    yield f"{copy_lines(columns).as_string()};"
    yield f"{value_of('merge_import', pool=pool)}"
    yield f"{REJECTED_LINES};"
    yield "commit;"


class Reader:
    """The lines of a CSV file, as Lines for COPY or as Rejects.

    `copied` are the columns that Lines have. Raises RowsRejected when the file as a
    whole cannot be read.
    """

    def __init__(
        self,
        stream: IO[bytes],
        *,
        region: str | None = None,
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self._normalise = normaliser(region)
        self._source = Source(stream)
        self._rows = records(self._source)
        _, header = next(self._rows, (1, BadLine("the file is empty")))
        self.columns = _columns(header, mapping or {})
        fields = sorted(
            (name for name in FIELDS if name in self.columns), key=self.columns.index
        )
        self.copied: list[LiteralString] = ["line", *fields]
        self._plain = None
        if len(self.columns) > len(fields):
            self.copied.append("attributes")
        else:
            self._plain = _plain(fields)

    @property
    def position(self) -> tuple[int, int]:
        """The line reached, and how many bytes were read."""
        return self._source.number, self._source.taken

    def __iter__(self) -> Iterator[Lines | Reject]:
        while True:
            if self._plain and (found := self._source.take(self._plain)):
                first, lines = found
                yield Lines(b"".join(map(b"%d,%b".__mod__, enumerate(lines, first))))
            row = next(self._rows, None)
            if row is None:
                return
            yield self._read(*row)

    def _read(self, line: int, row: list[str] | BadLine) -> Lines | Reject:
        try:
            if isinstance(row, BadLine):
                raise row
            contact = self._contact(dict(zip(self.columns, row, strict=True)))
        except BadLine as error:
            return Reject(line, error.column, str(error))
        text = io.StringIO()
        cells = [contact.get(name) for name in self.copied[1:]]
        csv.writer(text, lineterminator="\n").writerow([line, *cells])
        return Lines(text.getvalue().encode())

    def _contact(self, cells: dict[str, str]) -> dict[str, str]:
        """Return what the cells of a row say; an empty one says nothing."""
        filled = {name: text.strip() for name, text in cells.items() if text.strip()}
        contact = {name: filled.pop(name) for name in FIELDS if name in filled}
        if "name" in contact:
            contact["name"] = re.sub(r"[\x01-\x1f]+", " ", contact["name"])
        if "phone" in contact:
            try:
                contact["phone"] = self._normalise(contact["phone"])
            except BadPhone as error:
                raise BadLine(str(error), "phone") from error
        elif "email" not in contact:
            raise BadLine("neither phone nor email")
        if filled:
            contact["attributes"] = json.dumps(filled, ensure_ascii=False)
        return contact


class Source:
    """Lines of a stream, one by one or, where they match, many at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.number = 0  # of the line read last
        self.taken = 0  # bytes

    def readline(self, limit: int) -> bytes:
        end = self._buffer.find(b"\n", self._at, self._at + limit) + 1
        if end:
            line = self._buffer[self._at : end]
            self._at = end
        else:
            line = self._buffer[self._at : self._at + limit]
            self._at += len(line)
            if len(line) < limit:
                line += self._stream.readline(limit - len(line))
        self.taken += len(line)
        return line

    def take(self, pattern: re.Pattern[bytes]) -> tuple[int, list[bytes]] | None:
        """Return the lines from here on that match, and the number of the first."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._stream.read(CHUNK), 0
            self._buffer += self._stream.readline(MAX_LINE)
        found = pattern.match(self._buffer, self._at)
        assert found is not None
        data = found.group()
        if not data or not _is_utf8(data):
            return None
        self._at = found.end()
        self.taken += len(data)
        lines = data.replace(b"\r\n", b"\n").splitlines(keepends=True)
        first = self.number + 1
        self.number += len(lines)
        return first, lines


def _plain(fields: Sequence[str]) -> re.Pattern[bytes]:
    """What lines of these fields look like that need no reading."""
    phone = rb"(?:%b)?" % PHONE if "email" in fields else PHONE
    cells = [phone if name == "phone" else CELL for name in fields]
    return re.compile(rb"(?:%b\r?\n)*+" % b",".join(cells))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def records(source: Source) -> Iterator[tuple[int, list[str] | BadLine]]:
    """Yield line number and fields of each record; empty lines are none.

    Each record has as many fields as the first. A quoted field may go on over several
    lines; where that makes no good record, only the line that opened the quote is bad
    and reading goes on with the one after it.
    """
    lines = _lines(source)
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


def _lines(source: Source) -> Iterator[Line]:
    while data := source.readline(MAX_LINE):
        source.number += 1
        number = source.number
        text: str | BadLine
        if number == 1:
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise RowsRejected("line 1: the file is UTF-16", hint=SAVE_AS)
            data = data.removeprefix(codecs.BOM_UTF8)
        if len(data) == MAX_LINE and not data.endswith(b"\n"):
            text = BadLine("the line is longer than 1 MB")
            while (data := source.readline(MAX_LINE)) and not data.endswith(b"\n"):
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


def _columns(header: list[str] | BadLine, mapping: Mapping[str, str]) -> list[str]:
    """Return what each column means: one of FIELDS or the name of an attribute."""
    hint = "the first line names the columns, such as phone,name,trigger"
    if isinstance(header, BadLine):
        raise RowsRejected(f"line 1: {header}", hint=hint)
    columns = [name.strip() for name in header]
    for name in mapping:
        if name not in columns:
            raise RowsRejected(f"line 1: no column {name!r}", hint="see --map")
    columns = [mapping.get(name, name) for name in columns]
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
