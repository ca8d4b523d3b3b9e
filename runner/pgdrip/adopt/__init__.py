"""Adoption of a running legacy system: its rows become senders, sequences, contacts and
enrollments at the right next step, in one transaction.

Definitions are made here, one by one; everything of which there are many is done by set
in the database (db/functions/98_adopt.sql). The table pgdrip.adoptions says of each
legacy row what became of it, so that adopting once more changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pgdrip import legacy
from pgdrip.adopt.definitions import (
    Device,
    LegacySequence,
    LegacyStep,
    Names,
    Unusable,
    sender_of,
    sequence_of,
    status_of,
    trigger_of,
)
from pgdrip.adopt.phones import reader
from pgdrip.definitions import BAD_CONTENT
from pgdrip.engine import Engine
from pgdrip.errors import EngineRefused, UsageError
from pgdrip.legacy import Entry
from pgdrip.query import value_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What adoption cannot read from the tables.

    `zone` is the one that the legacy timestamps are in, `contact_zone` where contacts
    live, `region` the country (ISO 3166) of phones without a country code. `in_doubt`
    says what a send that nobody can prove is taken for: park, sent or unsent.
    """

    schema: str
    zone: str = "UTC"
    contact_zone: str | None = None
    region: str | None = None
    channel: str = "gowa"
    rate_per_hour: int = 80
    rate_per_day: int = 800
    in_doubt: str = "park"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was done: the enrollments made now; of every adoption so far how many rows
    of which table came to what, and how or why."""

    enrolled: int
    accounts: Sequence[tuple[str, str, int]]
    notes: Sequence[tuple[str, str, int]]


class _Undo(Exception):
    """Rolls a dry run back."""


async def adopt(
    engine: Engine,
    options: Options,
    *,
    dry_run: bool = False,
    on_row: Callable[[Sequence[Any]], None] | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Adopted:
    """Adopt all that is not adopted yet; a dry run does the same and takes it back.

    `on_row` is given the account of every row: table, id, outcome, why, object.
    Raises UsageError for a schema that holds no legacy system.
    """
    read_phone = reader(options.region)
    await _require_zones(engine, options)
    types = await legacy.types_of(engine, options.schema)
    if not dry_run:
        await legacy.make_months(engine, options.schema, types, options.zone)
    try:
        async with engine.transaction(snapshot=True):
            on_phase("reading the legacy tables")
            await legacy.stage(engine, options.schema, types, options.zone)
            await legacy.stage_phones(engine, read_phone)
            on_phase("adopting senders and sequences")
            await _adopt_senders(engine, options)
            await _adopt_sequences(engine, options)
            on_phase("adopting contacts and enrollments")
            enrolled = await engine.ask(
                value_of(
                    "adopt_people",
                    timezone=options.contact_zone,
                    in_doubt=options.in_doubt,
                )
            )
            accounts, notes = await legacy.accounts(engine), await legacy.notes(engine)
            adopted = Adopted(enrolled.value, accounts, notes)
            if on_row:
                async for row in legacy.account_rows(engine):
                    on_row(row)
            if dry_run:
                raise _Undo
    except _Undo:
        pass
    return adopted


async def _require_zones(engine: Engine, options: Options) -> None:
    for zone in {options.zone, options.contact_zone} - {None}:
        answer = await engine.ask(value_of("is_timezone", zone=zone))
        if not answer.value:
            raise UsageError(
                f"unknown time zone {zone!r}", hint="IANA, such as Asia/Kuala_Lumpur"
            )


async def _adopt_senders(engine: Engine, options: Options) -> None:
    names = Names(await legacy.ids(engine, "senders"))
    given = {
        "channel": options.channel,
        "rate_per_hour": options.rate_per_hour,
        "rate_per_day": options.rate_per_day,
    }
    entries = []
    named: dict[str, Entry] = {}
    for device in await legacy.rows(engine, legacy.DEVICES, Device):
        entry = Entry(device.id)
        entries.append(entry)
        try:
            definition = sender_of(device, entry, names, given)
        except Unusable as error:
            entry.refused(str(error))
            continue
        named[definition["name"]] = entry
        await engine.apply_sender(definition)
        if reason := status_of(device, entry):
            await engine.pause_sender(definition["name"], reason)
            entry.notes.append(f"paused: {reason}")
    await _number(engine, "senders", named)
    await legacy.record(engine, "user_devices", entries)


async def _adopt_sequences(engine: Engine, options: Options) -> None:
    sequences = await legacy.rows(engine, legacy.SEQUENCES, LegacySequence)
    steps: dict[str | None, list[LegacyStep]] = {}
    for step in await legacy.rows(engine, legacy.STEPS, LegacyStep):
        steps.setdefault(step.sequence_id, []).append(step)
    entries = {one.id: Entry(one.id) for one in sequences}
    triggers = {
        one.id: trigger_of(one, steps.get(one.id, []), entries[one.id])
        for one in sequences
    }
    names = Names(await legacy.ids(engine, "sequences"))
    named: dict[str, Entry] = {}
    of_steps: list[Entry] = []
    for one in sequences:
        its_steps = steps.pop(one.id, [])
        if one.is_done:
            of_steps += _refuse(its_steps, "its sequence was adopted without it")
            continue
        entry = entries[one.id]
        others = {
            triggers[other.id]
            for other in sequences
            if other.id != one.id and other.pool == one.pool
        }
        try:
            definition, its_entries = sequence_of(
                one,
                its_steps,
                entry,
                trigger=triggers[one.id],
                others=others,
                names=names,
                channel=options.channel,
            )
            await _publish(engine, definition)
        except Unusable as error:
            entry.refused(str(error))
            its_entries = _refuse(its_steps, "its sequence was refused")
        else:
            named[definition["name"]] = entry
        of_steps += its_entries
    for orphans in steps.values():
        of_steps += _refuse(orphans, "its sequence does not exist")
    await _number(engine, "sequences", named)
    fresh = [entries[one.id] for one in sequences if not one.is_done]
    await legacy.record(engine, "sequences", fresh)
    await legacy.record(engine, "sequence_steps", of_steps)


def _refuse(steps: Sequence[LegacyStep], reason: str) -> list[Entry]:
    return [Entry(step.id).refused(reason) for step in steps if not step.is_done]


async def _number(
    engine: Engine, table: Literal["senders", "sequences"], named: dict[str, Entry]
) -> None:
    """Tell entries the ids that the database gave to what they are now."""
    ids = await legacy.ids(engine, table)
    for name, entry in named.items():
        entry.number = ids[name]


async def _publish(engine: Engine, definition: dict[str, Any]) -> None:
    """Apply a sequence; Unusable says what the database finds wrong in it."""
    try:
        async with engine.savepoint():
            await engine.apply_sequence(definition)
    except EngineRefused as error:
        if error.sqlstate not in BAD_CONTENT:
            raise
        raise Unusable(error.message) from error
