"""What the command line writes: tables, and one line for each thing that went wrong."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import IO

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Terminal(Console):
    """Leaves a closed pipe to the command line, which knows the exit code for it."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show rows: drawn on a terminal, tab-separated with a header when piped.

    Rows too wide for the terminal are shown one below the other.
    """
    cells = [[shown(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in (columns, *cells):
            click.echo("\t".join(line))
        return
    terminal = Terminal()
    drawn = Table(*columns, box=SIMPLE_HEAD, show_edge=False)
    for line in cells:
        drawn.add_row(*map(Text, line))
    unbounded = terminal.options.update(max_width=10_000)
    if terminal.measure(drawn, options=unbounded).maximum <= terminal.width:
        terminal.print(drawn)
        return
    for line in cells:
        terminal.print(_below_each_other(columns, line), "")


def record(columns: Sequence[str], row: Sequence[object]) -> None:
    """Show one row, its columns one below the other."""
    cells = [shown(value) for value in row]
    if sys.stdout.isatty():
        Terminal().print(_below_each_other(columns, cells))
    else:
        for pair in zip(columns, cells, strict=True):
            click.echo("\t".join(pair))


def _below_each_other(columns: Sequence[str], cells: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for column, text in zip(columns, cells, strict=True):
        grid.add_row(Text(column, "dim"), Text(text, overflow="fold"))
    return grid


def complain(message: str, hint: str | None = None) -> None:
    """Write what went wrong to standard error, each line with the program's name."""
    *first, last = (message or "unknown error").split("\n")
    for line in first:
        click.echo(f"pgdrip: {printable(line)}", err=True)
    why = f" ({printable(hint.rstrip('.'))})" if hint else ""
    click.echo(f"pgdrip: {printable(last)}{why}", err=True)


def count(number: int, noun: str) -> str:
    """Return `1 contact` or `1,742 contacts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(length: timedelta) -> str:
    """Return the two largest units of a time span: `2 d 3 h`, `45 s`."""
    left = int(abs(length.total_seconds()))
    words: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number or (unit == "s" and not words):
            words.append(f"{number} {unit}")
    return ("-" if length < timedelta() else "") + " ".join(words[:2])


def echo(text: object) -> None:
    """Write to standard output: as it is, on a terminal with its lines printable."""
    click.echo(Screen.shown(str(text)) if sys.stdout.isatty() else text)


class Screen:
    """A terminal as a file to write to, each line printable."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(self.shown(text))

    @staticmethod
    def shown(text: str) -> str:
        return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """Escape what could move a terminal's cursor or hide text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_json(text: str) -> str:
    """The same JSON; what could move a cursor or hide text is escaped as in JSON."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text
    )


def shown(value: object) -> str:
    """Return a value as people read it; an instant in local time, with its zone."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return span(value)
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return printable(str(value))
