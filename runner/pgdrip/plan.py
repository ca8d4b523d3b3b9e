"""What applying definitions would change: every difference, and who is in flight.

Nothing stays: the definitions are applied in a transaction that is rolled back.
Sequences are only asked by dry_run, once for each choice of `in_flight`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgdrip.definitions import Definition, applying, in_order
from pgdrip.engine import Engine, Published

CHOICES = ("pin", "follow", "migrate")


@dataclass(frozen=True, slots=True)
class Change:
    """What would become of one definition: created, changed, published or unchanged.

    `differences` has a line for each key; `in_flight` says what each choice of the key
    of that name would mean for those who are in the sequence now.
    """

    definition: Definition
    outcome: str
    differences: list[str] = field(default_factory=list)
    in_flight: dict[str, Published] = field(default_factory=dict)


class _Undo(Exception):
    """Rolls the plan back."""


async def plan(engine: Engine, definitions: Sequence[Definition]) -> list[Change]:
    """Say what apply() would do; raises like apply()."""
    changes: list[Change] = []
    try:
        async with engine.transaction():
            before = _by_name(await engine.export_definitions())
            for one in in_order(definitions):
                with applying(one):
                    old = before.get((one.kind, one.name), {})
                    changes.append(await _change(engine, one, old))
            after = _by_name(await engine.export_definitions())
            raise _Undo
    except _Undo:
        for change in changes:
            if change.outcome == "changed":
                key = change.definition.kind, change.definition.name
                change.differences.extend(differences(before[key], after[key]))
        return changes


async def _change(engine: Engine, one: Definition, old: dict[str, Any]) -> Change:
    match one.kind:
        case "group":
            return Change(one, await engine.apply_group(one.content))
        case "sender":
            return Change(one, await engine.apply_sender(one.content))
    return await _sequence(engine, one, old)


async def _sequence(engine: Engine, one: Definition, old: dict[str, Any]) -> Change:
    asked = one.content | {"dry_run": True}
    done = await engine.apply_sequence(asked)
    if done.outcome == "unchanged":
        return Change(one, "unchanged")
    if not old:
        return Change(one, "created")
    new = {"kind": "sequence", "status": old["status"]} | one.content
    new.pop("dry_run", None)
    in_flight = {}
    if done.in_flight:
        for choice in CHOICES:
            in_flight[choice] = await engine.apply_sequence(
                asked | {"in_flight": choice}
            )
    return Change(one, "published", list(differences(old, new)), in_flight)


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each place where two definitions differ: `key: old → new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else key
            if key not in new:
                yield f"{inner}: {_short(old[key])} → none"
            elif key not in old:
                yield f"{inner}: none → {_short(new[key])}"
            else:
                yield from differences(old[key], new[key], inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True), 1):
            yield from differences(*pair, f"{path}[{number}]")
    elif old != new:
        yield f"{path}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _by_name(
    definitions: Iterable[dict[str, Any]],
) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["name"]): one for one in definitions}
