"""Sequences, senders and groups written as YAML documents.

Text stays text (`21:30`, `NO`, `+60123456789`): only what schema.json calls a number
or a boolean becomes one. Each mistake has its file, line and column; what only the
database knows (which channels there are, what is in flight) is for it to judge (MD008).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pgdrip.engine import Engine
from pgdrip.errors import ConfigurationError, EngineRefused
from pgdrip.rules import contradictions
from pgdrip.shape import KINDS, SCHEMA, Shape, TooLarge, nearest

# A mistake; a \u0000 or a lone surrogate, which jsonb cannot hold.
BAD_CONTENT = ("MD008", "22P05", "22P02")
# Groups before their senders.
ORDER = ("group", "sender", "sequence")


@dataclass(frozen=True, slots=True)
class Definition:
    """One document: `content` is what the apply function of its kind takes."""

    kind: str
    name: str
    content: dict[str, Any]
    file: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a definition: created, changed, published, unchanged, planned."""

    definition: Definition
    outcome: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    file: str
    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.reason}"


class BadDefinitions(ConfigurationError):
    """Files that do not say what they mean; `mistakes` holds every one found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def load(paths: Iterable[Path]) -> list[Definition]:
    """Read every definition of some files, in the order they are written.

    Raises BadDefinitions with every mistake of every file.
    """
    mistakes: list[Mistake] = []
    definitions: list[Definition] = []
    for path in paths:
        definitions += _Reader(str(path), mistakes).read(path.read_bytes())
    first: dict[tuple[str, str], Definition] = {}
    for found in definitions:
        other = first.setdefault((found.kind, found.name), found)
        if other is not found:
            reason = f"{found.kind} {found.name!r} is already in {other.place}"
            mistakes.append(Mistake(found.file, found.line, 1, reason))
    if mistakes:
        raise BadDefinitions(mistakes)
    return definitions


def in_order(definitions: Iterable[Definition]) -> list[Definition]:
    """Put each kind after those it may name."""
    return sorted(definitions, key=lambda one: ORDER.index(one.kind))


@contextmanager
def applying(one: Definition) -> Iterator[None]:
    """Give what the database finds wrong in a definition its place."""
    try:
        yield
    except EngineRefused as error:
        if error.sqlstate not in BAD_CONTENT:
            raise
        message = f"{one.place}: {error.message}"
        raise ConfigurationError(message, hint=error.hint) from error


async def apply(engine: Engine, definitions: Iterable[Definition]) -> list[Applied]:
    """Apply definitions, all or none.

    Raises ConfigurationError, with the place, for what the database finds wrong.
    """
    applied = []
    async with engine.transaction():
        for one in in_order(definitions):
            with applying(one):
                applied.append(await apply_one(engine, one))
    return applied


async def apply_one(engine: Engine, one: Definition) -> Applied:
    """Apply one definition; within `applying()` its mistakes have a place."""
    if one.kind == "group":
        return Applied(one, await engine.apply_group(one.content))
    if one.kind == "sender":
        return Applied(one, await engine.apply_sender(one.content))
    done = await engine.apply_sequence(one.content)
    note = f"version {done.version}" if done.version else ""
    if done.in_flight:
        note += (
            f", {done.in_flight} in flight: {done.stays} stay, {done.moves} move,"
            f" {done.stranded} stranded"
        )
    return Applied(one, done.outcome, note)


class _Reader:
    """Reads files; each mistake goes to the list it was made with."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.file = file
        self.mistakes = mistakes

    def read(self, data: bytes) -> Iterator[Definition]:
        try:
            text = data.decode("utf-8-sig")
            documents = [
                node
                for node in yaml.compose_all(text, Loader=yaml.BaseLoader)
                if not (isinstance(node, yaml.ScalarNode) and not node.value)
            ]
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self.wrong(line, 1, "not UTF-8 (save the file as UTF-8)")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            assert mark is not None
            self.wrong(mark.line + 1, mark.column + 1, error.problem or "not YAML")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.wrong(line, 1, f"character {error.character:#06x} is not allowed")
        except RecursionError:
            self.wrong(1, 1, "nested too deeply")
        else:
            if not documents:
                self.wrong(1, 1, "the file holds no document")
            for node in documents:
                yield from self.document(node)

    def wrong(self, line: int, column: int, reason: str) -> None:
        self.mistakes.append(Mistake(self.file, line, column, reason))

    def wrong_at(self, node: yaml.Node, reason: str) -> None:
        self.wrong(node.start_mark.line + 1, node.start_mark.column + 1, reason)

    def document(self, node: yaml.Node) -> Iterator[Definition]:
        if not isinstance(node, yaml.MappingNode):
            self.wrong_at(node, "a document is a mapping that begins with its kind")
            return
        kind, kind_node = "", node
        for key, value in node.value:
            if key.value == "kind":
                kind_node = value
                kind = value.value if isinstance(value, yaml.ScalarNode) else "…"
        if kind not in KINDS:
            says = f"unknown kind {kind!r}" if kind else "the document has no kind"
            self.wrong_at(kind_node, f"{says} ({nearest(kind, KINDS)})")
            return
        before = len(self.mistakes)
        shape = Shape(self.wrong_at)
        try:
            content = shape.read(node, SCHEMA["definitions"][kind], "")
        except TooLarge:
            self.wrong_at(node, f"the {kind} is nested too deeply or too large")
        if len(self.mistakes) > before:
            return
        content.pop("kind")
        for path, reason in contradictions(kind, content):
            self.wrong_at(shape.places[path], reason)
        line = node.start_mark.line + 1
        yield Definition(kind, content["name"], content, self.file, line)
