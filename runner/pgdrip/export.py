"""What goes out of the database: definitions as YAML, rows as CSV or JSON lines.

A spreadsheet takes a cell that begins with =, +, -, @, a tab or a carriage return for a
formula; CSV puts a ' before it, unless it is a plain number or a phone.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import IO, Any

import yaml

from pgdrip.console import Screen, printable_json
from pgdrip.shape import SCHEMA, TAG

FORMULA = re.compile(r"[=+\-@\t\r]")
HARMLESS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

Write = Callable[[Sequence[Any]], None]


def to_yaml(definitions: Iterable[dict[str, Any]]) -> str:
    """Write definitions as documents that are read back as exactly the same."""
    return "".join(
        yaml.dump(
            _in_order(one, SCHEMA["definitions"][one["kind"]]),
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            explicit_start=True,
            width=88,
        )
        for one in definitions
    )


def writer(form: str, columns: Sequence[str], file: IO[str] | Screen) -> Write:
    """Return what writes one row; `form` is csv or jsonl."""
    if form == "jsonl":

        def write_line(row: Sequence[Any]) -> None:
            found = dict(zip(columns, row, strict=True))
            line = json.dumps(found, default=_plain, ensure_ascii=False)
            file.write(printable_json(line) + "\n")

        return write_line
    out = csv.writer(file, lineterminator="\n")
    out.writerow(columns)
    return lambda row: out.writerow(cell(value) for value in row)


def cell(value: Any) -> str:
    """Return a value as a cell of CSV, which no spreadsheet runs."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        value = json.dumps(value, default=_plain, ensure_ascii=False)
    text = str(_plain(value)) if isinstance(value, datetime) else str(value)
    if FORMULA.match(text) and not HARMLESS.fullmatch(text):
        return f"'{text}"
    return text


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _in_order(value: Any, schema: dict[str, Any]) -> Any:
    """Put keys in the order of the schema, which is the order people write them in."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        keys = [key for key in known if key in value]
        keys += [key for key in value if key not in known]
        return {key: _in_order(value[key], known.get(key, {})) for key in keys}
    if isinstance(value, list):
        return [_in_order(one, schema.get("items", {})) for one in value]
    name = {int: "integer", bool: "boolean"}.get(type(value))
    return _Typed(value) if name and schema.get("type") == name else value


class _Typed:
    """A number or boolean where the schema wants one: written without a tag."""

    def __init__(self, value: Any) -> None:
        self.text = json.dumps(value)


class _Dumper(yaml.SafeDumper):
    """Writes text plain where it can, and a tag where the reader would see text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    """Lines as they are where all of them can be seen; else nothing left to chance."""
    lines = value.split("\n")
    style = None
    if not all(line.isprintable() for line in lines):
        style = '"'
    elif len(lines) > 1 and value == value.strip():
        style = "|"
    return dumper.represent_scalar(f"{TAG}str", value, style=style)


def _tagged(tag: str) -> Callable[[_Dumper, Any], yaml.ScalarNode]:
    return lambda dumper, value: dumper.represent_scalar(
        f"{TAG}{tag}", "" if value is None else json.dumps(value), style='"'
    )


_Dumper.add_representer(str, _text)
_Dumper.add_representer(type(None), _tagged("null"))
_Dumper.add_representer(bool, _tagged("bool"))
_Dumper.add_representer(int, _tagged("int"))
_Dumper.add_representer(float, _tagged("float"))
_Dumper.add_representer(
    _Typed,
    lambda dumper, one: dumper.represent_scalar(
        f"{TAG}{'bool' if one.text in ('true', 'false') else 'int'}", one.text
    ),
)
