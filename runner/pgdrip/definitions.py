"""Sequences and senders written as YAML documents.

Text stays text (`21:30`, `NO`, `+60123456789`): only the keys of TYPES become
numbers and booleans. What a definition may say is the database's to judge (MD008);
here is only what YAML itself gets wrong, each mistake with file, line and column.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pgdrip.engine import Engine
from pgdrip.errors import ConfigurationError, EngineRefused

KINDS = ("sender", "sequence")
TYPES: dict[str, Any] = {
    "sequence": {
        "dry_run": bool,
        "stop_on_reply": bool,
        "on_complete": {"remove_trigger": bool},
        "priority": int,
        "cap": {"max": int},
        "steps": [
            {
                "day": int,
                "max_attempts": int,
                "variants": [{"weight": int}],
                "wait_for": {"then": int, "else": int},
            }
        ],
    },
    "sender": {
        "rate_per_hour": int,
        "rate_per_day": int,
        "burst": int,
        "ramp": {"*": int},
    },
}
# A mistake; a \u0000 or a lone surrogate, which jsonb cannot hold.
BAD_CONTENT = ("MD008", "22P05", "22P02")
MAX_NODES = 100_000
MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Definition:
    """One document: `content` is what apply_sequence() or apply_sender() takes."""

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


async def apply(engine: Engine, definitions: Iterable[Definition]) -> list[Applied]:
    """Apply definitions, all or none.

    Raises ConfigurationError, with the place, for what the database finds wrong.
    """
    applied = []
    async with engine.transaction():
        for one in definitions:
            try:
                applied.append(await _apply(engine, one))
            except EngineRefused as error:
                if error.sqlstate not in BAD_CONTENT:
                    raise
                message = f"{one.place}: {error.message}"
                raise ConfigurationError(message, hint=error.hint) from error
    return applied


async def _apply(engine: Engine, one: Definition) -> Applied:
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


class _TooLarge(Exception):
    """Deeper or larger than any definition; aliases can make it endless."""


class _Reader:
    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.file = file
        self.mistakes = mistakes
        self.nodes = 0  # of the document at hand; an alias counts each time it is used

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
        self.nodes = 0
        try:
            content = self.mapping(node, TYPES[kind], "", 0)
        except _TooLarge:
            self.wrong_at(node, f"the {kind} is nested too deeply or too large")
        if len(self.mistakes) > before:
            return
        content.pop("kind")
        name = content.get("name")
        if not isinstance(name, str):
            self.wrong_at(node, f"the {kind} has no name")
            return
        yield Definition(kind, name, content, self.file, node.start_mark.line + 1)

    def value(self, node: yaml.Node, types: Any, path: str, depth: int) -> Any:
        """Turn a node into what JSON can hold, by the types of its keys."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _TooLarge
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, types, path, depth)
        if isinstance(node, yaml.SequenceNode):
            kind = types[0] if isinstance(types, list) else None
            return [
                self.value(item, kind, f"{path}[{number}]", depth + 1)
                for number, item in enumerate(node.value, 1)
            ]
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node, types, path)

    def mapping(
        self, node: yaml.MappingNode, types: Any, path: str, depth: int
    ) -> dict[str, Any]:
        types = types if isinstance(types, dict) else {}
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong_at(key, "a key is a word, not a list or mapping")
                continue
            inner = f"{path}.{key.value}" if path else key.value
            if key.value in result:
                self.wrong_at(key, f"{inner} is written twice")
            kind = types.get(key.value, types.get("*"))
            result[key.value] = self.value(value, kind, inner, depth + 1)
        return result

    def scalar(self, node: yaml.ScalarNode, types: Any, path: str) -> Any:
        text: str = node.value
        if not text and node.style is None:
            self.wrong_at(node, f"{path} has no value (write '' for an empty text)")
        elif types is int:
            if re.fullmatch(r"-?[0-9]{1,9}", text):
                return int(text)
            self.wrong_at(node, f"{path}: {text[:40]!r} is not a whole number")
        elif types is bool:
            if text in ("true", "false"):
                return text == "true"
            self.wrong_at(node, f"{path}: {text[:40]!r} is not true or false")
        return text


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `did you mean x?`, or all there are when none is near."""
    known = list(words)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
