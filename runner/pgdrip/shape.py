"""Definitions against schema.json: a YAML node becomes JSON or a mistake at its place.

Plain text stays text unless the schema wants a number or a boolean; what is quoted
stays text everywhere, and an explicit `!!int`, `!!float`, `!!bool` or `!!null` is what
it says. Only what schema.json uses of JSON Schema is known here.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import yaml

SCHEMA: dict[str, Any] = json.loads(
    files("pgdrip").joinpath("schema.json").read_text("utf-8")
)
KINDS = tuple(one["$ref"].rpartition("/")[2] for one in SCHEMA["oneOf"])
MAX_NODES = 100_000
MAX_DEPTH = 50
TAG = "tag:yaml.org,2002:"

Schema = dict[str, Any]
Wrong = Callable[[yaml.Node, str], None]


class TooLarge(Exception):
    """Deeper or larger than any definition; aliases can make it endless."""


class Shape:
    """Reads the nodes of one document; `wrong` is told each mistake.

    `places` holds the node of every path such as `steps[1].body`.
    """

    def __init__(self, wrong: Wrong) -> None:
        self.wrong = wrong
        self.places: dict[str, yaml.Node] = {}
        self.nodes = 0  # an alias counts each time it is used

    def read(self, node: yaml.Node, schema: Schema, path: str, depth: int = 0) -> Any:
        """Return what JSON can hold, by the types that the schema wants."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise TooLarge
        self.places[path] = node
        schema = _resolved(schema, node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, schema, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return self.sequence(node, schema, path, depth)
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node, schema, path)

    def mapping(
        self, node: yaml.MappingNode, schema: Schema, path: str, depth: int
    ) -> dict[str, Any]:
        if schema.get("type", "object") != "object" or "enum" in schema:
            self.wrong(node, f"{path} must be {_wanted(schema)}, not a mapping")
            schema = {}
        known = schema.get("properties", {})
        more = schema.get("additionalProperties", {})
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong(key, "a key is a word, not a list or mapping")
                continue
            inner = f"{path}.{key.value}" if path else key.value
            if key.value in result:
                self.wrong(key, f"{inner} is written twice")
            if key.value not in known and more is False:
                self.wrong(key, f"unknown key {inner} ({nearest(key.value, known)})")
                continue
            kind = known.get(key.value, more or {})
            result[key.value] = self.read(value, kind, inner, depth + 1)
        self.require(node, schema, path, result)
        return result

    def require(
        self, node: yaml.Node, schema: Schema, path: str, found: dict[str, Any]
    ) -> None:
        where = f"{path or 'the ' + str(found.get('kind'))} has"
        for key in schema.get("required", ()):
            if key not in found:
                self.wrong(node, f"{where} no {key}")
        choices = [one["required"][0] for one in schema.get("anyOf", ())]
        if choices and not any(key in found for key in choices):
            self.wrong(node, f"{where} no {' or '.join(choices)}")

    def sequence(
        self, node: yaml.SequenceNode, schema: Schema, path: str, depth: int
    ) -> list[Any]:
        if schema.get("type", "array") != "array" or "enum" in schema:
            self.wrong(node, f"{path} must be {_wanted(schema)}, not a list")
            schema = {}
        if len(node.value) < schema.get("minItems", 0):
            self.wrong(node, f"{path} needs at least {schema['minItems']}")
        if len(node.value) > schema.get("maxItems", MAX_NODES):
            self.wrong(node, f"{path} has more than {schema['maxItems']}")
        inner = schema.get("items", {})
        return [
            self.read(item, inner, f"{path}[{number}]", depth + 1)
            for number, item in enumerate(node.value, 1)
        ]

    def scalar(self, node: yaml.ScalarNode, schema: Schema, path: str) -> Any:
        value = _tagged(node)
        if value is not node.value:
            if value is not None and schema and schema.get("type") != _type_of(value):
                self.wrong(node, f"{path} must be {_wanted(schema)}")
            return value
        if not node.value and node.style is None:
            self.wrong(node, f"{path} has no value (write '' for an empty text)")
            return ""
        problem = _problem(node.value, schema)
        if re.search("[\0\ud800-\udfff]", node.value):
            problem = "holds a character that no database can store"
        if problem:
            self.wrong(node, f"{path}: {problem}")
        elif node.style is None and schema.get("type") == "integer":
            return int(node.value)
        elif node.style is None and schema.get("type") == "boolean":
            return node.value == "true"
        return node.value


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `did you mean x?`, or all there are when none is near."""
    known = list(words)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"


def _resolved(schema: Schema, node: yaml.Node) -> Schema:
    """Follow $ref, and of oneOf take what fits a mapping or a word."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema:
        is_mapping = isinstance(node, yaml.MappingNode)
        [schema] = [
            one
            for one in schema["oneOf"]
            if (one.get("type") == "object") == is_mapping
        ]
    return schema


def _wanted(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(schema["enum"])
    return {
        "string": "text",
        "integer": "a whole number",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping",
    }[schema["type"]]


def _problem(text: str, schema: Schema) -> str | None:
    """What is wrong with a word; None: nothing."""
    said = repr(text[:40])
    if "enum" in schema:
        if text in schema["enum"]:
            return None
        return f"{said} is not known ({nearest(text, schema['enum'])})"
    match schema.get("type"):
        case "integer" if not re.fullmatch(r"-?[0-9]{1,9}", text):
            return f"{said} is not a whole number"
        case "integer":
            low, high = schema["minimum"], schema["maximum"]
            if not low <= int(text) <= high:
                return f"{text} is not from {low} to {high}"
        case "boolean" if text not in ("true", "false"):
            return f"{said} is not true or false"
        case "string":
            return _text_problem(text, schema)
        case "array" | "object":
            return f"must be {_wanted(schema)}, not {said}"
    return None


def _text_problem(text: str, schema: Schema) -> str | None:
    if schema.get("minLength") and not text.strip():
        return "is blank"
    if len(text.encode("utf-8", "surrogatepass")) > schema.get("maxLength", 65_536):
        return f"is longer than {schema.get('maxLength', 65_536)} bytes"
    # In Python alone $ also stands before a line break at the end.
    if "pattern" in schema and not re.search(
        schema["pattern"].replace("$", r"\Z"), text
    ):
        return f"{text[:40]!r} is not {schema['patternErrorMessage']}"
    return None


def _tagged(node: yaml.ScalarNode) -> Any:
    """The value of an explicit tag; the text itself where there is none that counts."""
    text: str = node.value
    match node.tag.removeprefix(TAG):
        case "null":
            return None
        case "bool" if text in ("true", "false"):
            return text == "true"
        case "int" if re.fullmatch(r"-?[0-9]{1,400}", text):
            return int(text)
        case "float" if re.fullmatch(r"-?[0-9.]{1,400}([eE][+-]?[0-9]{1,3})?", text):
            return float(text)
    return text


def _type_of(value: Any) -> str:
    return {bool: "boolean", int: "integer", float: "number"}[type(value)]
