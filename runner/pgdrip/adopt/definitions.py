"""Definitions out of legacy rows: what a device, a sequence and its steps become.

Nothing here asks the database. Every repair leaves a note; what cannot be used raises
Unusable, which says why.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgdrip.legacy import Entry

ONLINE = frozenset({"online", "connected", "active", "open"})
MEDIA = {"image": "image", "video": "video", "audio": "audio", "document": "document"}
DELAY_HOURS = 24  # what the legacy system took 0 and NULL for
MAX_DAY = 36_500
MAX_SECONDS = 86_400
NAME_BYTES = 150
# A caption that nobody wrote: empty unless a contact has an attribute of that name.
NO_CAPTION = "{{caption|}}"
BLANK = re.compile(
    r"[\s\u0085\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*"
)


class Unusable(ValueError):
    """Why a legacy row can become nothing."""


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    pool: str | None
    device_name: str | None
    phone: str | None
    jid: str | None
    status: str | None
    min_delay_seconds: int | None
    max_delay_seconds: int | None


@dataclass(frozen=True, slots=True)
class LegacySequence:
    """`is_done`: an earlier run adopted it; `is_used`: people are in it."""

    id: str
    pool: str | None
    name: str | None
    status: str | None
    is_active: bool | None
    trigger: str | None
    start_trigger: str | None
    end_trigger: str | None
    schedule_time: str | None
    is_done: bool
    is_used: bool


@dataclass(frozen=True, slots=True)
class LegacyStep:
    id: str
    sequence_id: str | None
    day_number: int | None
    trigger: str | None
    next_trigger: str | None
    trigger_delay_hours: int | None
    is_entry_point: bool | None
    message_type: str | None
    content: str | None
    message_text: str | None
    caption: str | None
    media_url: str | None
    time_schedule: str | None
    is_done: bool


class Names:
    """Names that are taken; a second owner of one gets it with the start of its id."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)

    def take(self, wanted: str | None, entry: Entry, kind: str) -> str:
        name = re.sub(r"[\x00-\x1f\x7f]+", " ", wanted or "").strip()
        name = name.encode()[:NAME_BYTES].decode(errors="ignore")
        if is_blank(name):
            name = f"{kind} {entry.id[:8]}"
            entry.repaired("it had no name")
        if name in self._taken:
            name = f"{name} {entry.id[:8]}"
            entry.repaired("its name was taken: the start of its id was added")
        if name in self._taken:
            name = f"{name} {entry.id}"
        self._taken.add(name)
        return name


def is_blank(text: str | None) -> bool:
    return text is None or BLANK.fullmatch(text) is not None


def sender_of(
    device: Device, entry: Entry, names: Names, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a sender's definition: `given`, and what the device says."""
    if device.pool is None:
        raise Unusable("has no user")
    low, high = (
        min(max(seconds, 0), MAX_SECONDS) if seconds is not None else 0
        for seconds in (device.min_delay_seconds, device.max_delay_seconds)
    )
    if high < low and device.max_delay_seconds is not None:
        entry.repaired("its delays were the wrong way round")
    definition: dict[str, Any] = {
        "name": names.take(device.device_name, entry, "device"),
        "pool": device.pool,
        **given,
    }
    if low or high:
        definition["gap_min"] = f"{min(low, high) if high else low} seconds"
        definition["gap_max"] = f"{max(low, high)} seconds"
    known_as = next((a for a in (device.jid, device.phone) if not is_blank(a)), None)
    if definition["channel"] == "gowa" and known_as:
        definition["config"] = {"device": known_as}
    return definition


def status_of(device: Device, entry: Entry) -> str | None:
    """Return why a device cannot send, in words; None: it can."""
    status = (device.status or "").strip().lower()
    if status not in ONLINE:
        return f"{status or 'without a status'} in the legacy system"
    if status != device.status:
        entry.repaired("its status was spelled otherwise")
    return None


def trigger_of(
    sequence: LegacySequence, steps: Sequence[LegacyStep], entry: Entry
) -> str:
    """Return the word that starts a sequence, from wherever it was written."""
    entries = sorted(steps, key=lambda one: not one.is_entry_point)
    places = {
        "": sequence.trigger,
        "its start trigger": sequence.start_trigger,
        "its first step": next((s.trigger for s in entries if words(s.trigger)), None),
        "its name": re.sub(r"[,\x00-\x1f\x7f]+", " ", sequence.name or ""),
        "its id": f"sequence-{sequence.id[:8]}",
    }
    place, found = next((p, words(text)) for p, text in places.items() if words(text))
    if place:
        entry.repaired(f"its trigger was blank: taken from {place}")
    if len(found) > 1:
        entry.repaired("its trigger was a list: the first word counts")
    return found[0]


def words(text: str | None) -> list[str]:
    """Return the trigger words of a comma list."""
    parts = (part.strip(" \t\n\r\u00a0") for part in (text or "").split(","))
    return [
        part
        for part in parts
        if not is_blank(part)
        and not re.search(r"[\x00-\x1f\x7f-\x9f]", part)
        and len(part.encode()) <= 200
    ]


def sequence_status(sequence: LegacySequence, entry: Entry) -> str:
    """Return the status a sequence gets; paused where it contradicts itself."""
    status = (sequence.status or "").strip().lower()
    active = sequence.is_active
    if sequence.status is not None and status != sequence.status:
        entry.repaired("its status was spelled otherwise")
    if status == "draft" and not active and not sequence.is_used:
        return "draft"
    if (status == "active" and active is not False) or (not status and active):
        return "active"
    if status in ("active", "draft") or active:
        entry.repaired("status and is_active contradicted each other: paused")
    return "paused"


def sequence_of(
    sequence: LegacySequence,
    steps: Sequence[LegacyStep],
    entry: Entry,
    *,
    trigger: str,
    others: Collection[str],
    names: Names,
    channel: str,
) -> tuple[dict[str, Any], list[Entry]]:
    """Return a sequence's definition, and what became of each of its steps.

    `others` are the triggers of its pool's other sequences: what the end of this one
    leads to is carried over only where it starts one of them.
    """
    if sequence.pool is None:
        raise Unusable("has no user and no device of one")
    content, entries = steps_of(steps, sequence.schedule_time)
    if not content:
        raise Unusable("has no step with a text")
    definition: dict[str, Any] = {
        "name": names.take(sequence.name, entry, "sequence"),
        "trigger": trigger,
        "pool": sequence.pool,
        "channel": channel,
        "status": sequence_status(sequence, entry),
        "steps": content,
    }
    last = max(steps, key=lambda one: one.day_number or 0)
    ends = [
        w for text in (sequence.end_trigger, last.next_trigger) for w in words(text)
    ]
    leads_to = next((word for word in ends if word in others and word != trigger), None)
    if leads_to:
        definition["on_complete"] = {"add_trigger": leads_to}
    return definition, entries


def steps_of(
    steps: Sequence[LegacyStep], schedule: str | None
) -> tuple[list[dict[str, Any]], list[Entry]]:
    """Return the steps of a definition in order, and what became of each row."""
    content: list[dict[str, Any]] = []
    entries: list[Entry] = []
    days: dict[tuple[int | None, str, str | None], int] = {}
    order = sorted(
        steps, key=lambda one: (one.day_number or 0, not one.is_entry_point, one.id)
    )
    for one in order:
        entry = Entry(one.id)
        entries.append(entry)
        previous = content[-1]["day"] if content else 0
        try:
            step = step_of(one, entry, previous=previous, schedule=schedule)
        except Unusable as error:
            entry.refused(str(error))
            continue
        same = (one.day_number, step["body"], one.media_url)
        if same in days:
            entry.outcome, entry.number = "merged", days[same]
            entry.notes = ["the sequence has the same step of the same day already"]
            continue
        days[same] = entry.number = step["day"]
        content.append(step)
    return content, entries


def step_of(
    step: LegacyStep, entry: Entry, *, previous: int, schedule: str | None
) -> dict[str, Any]:
    """Return one step of a definition, on the next free day from its own on."""
    media = media_of(step, entry)
    texts = (step.content, step.message_text, step.caption)
    body = next((text.strip() for text in texts if text and not is_blank(text)), None)
    if body is None and media is None:
        raise Unusable("has no text")
    day = max(step.day_number or 0, previous + 1)
    if day > MAX_DAY:
        raise Unusable(f"its day is beyond {MAX_DAY}")
    if day != step.day_number:
        entry.repaired(f"its day was taken or none: it is step {day} now")
    content: dict[str, Any] = {"day": day, "body": body or NO_CAPTION}
    if previous:
        hours = step.trigger_delay_hours or 0
        if hours <= 0:
            entry.repaired(f"it had no delay: {DELAY_HOURS} hours, as it was treated")
            hours = DELAY_HOURS
        content["delay"] = f"{min(hours, 10 * 8760)} hours"
    for text in (step.time_schedule, schedule):
        if text and (found := re.match(r"\s*([01]?\d|2[0-3]):([0-5]\d)", text)):
            content["at"] = f"{int(found[1]):02}:{found[2]}"
            break
    if media:
        content["media"] = media
    return content


def media_of(step: LegacyStep, entry: Entry) -> dict[str, str] | None:
    """Return a step's media; None where it has none that can be sent."""
    if is_blank(step.media_url):
        return None
    url = (step.media_url or "").strip()
    kind = MEDIA.get((step.message_type or "").strip().lower())
    if kind is None or not re.match(r"https?://[^\s{}]+\Z", url):
        entry.repaired("its media has no type or no address: left out")
        return None
    return {"type": kind, "url": url}
