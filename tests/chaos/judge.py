"""The ledger, the tables and the list of acknowledged enrollments, one against the
other: what the database believes counts for nothing here."""

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from chaos.faults import LOSES_ANSWERS
from chaos.gateway import AMBIGUOUS, Entry
from chaos.world import DELAY, RATE, STEPS, World

HOUR = 3600.0
LATE = 1.0  # real seconds from begin_send to the gateway; longer ones did stand still

KNOWN = """
select e.enrollment_id, e.status, e.last_confirmed_step, d.step as live_step,
       d.parked_reason
  from pgdrip.enrollments as e left join pgdrip.due as d using (enrollment_id)
"""
EVENTS = """
select enrollment_id || ':' || step as key, event, code, verdict,
       extract(epoch from begun_at)::float8 as begun_at
  from pgdrip.deliveries where token is not null and at >= to_timestamp(%s)
union all
select enrollment_id || ':' || step, 'live', parked_reason, null,
       extract(epoch from begun_at)::float8 from pgdrip.due
"""
Events = list[dict[str, Any]]


@dataclass(slots=True)
class Judgement:
    """Keys (`<enrollment>:<step>`) or sentences under each rule; empty is good.

    `recovered` is no fault by itself: accepted, and known to be uncertain. Of the
    numbers, `ambiguous` is how many sends were made so that nobody could know what
    became of them, `unanswered` how many may have begun by a call whose answer was
    lost, and `late` how many reports counted though their lease was over.
    """

    lost: list[str] = field(default_factory=list)  # L1
    unexpected: list[str] = field(default_factory=list)  # L2
    duplicated: list[str] = field(default_factory=list)  # L3
    unaccounted: list[str] = field(default_factory=list)  # L4
    disordered: list[str] = field(default_factory=list)  # L5
    too_many: list[str] = field(default_factory=list)  # L6
    recovered: list[str] = field(default_factory=list)  # L7
    forgotten: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    uncertain: int = 0
    ambiguous: int = 0
    unanswered: int = 0
    late: int = 0
    accepted: int = 0
    confirmed: int = 0


async def judge(world: World, past: Events | None = None) -> Judgement:
    """When nothing is under way any more; `past` are events that may be gone by now."""
    entries = world.gateway.ledger()
    known = await world.query(KNOWN)
    events = [*(past or []), *await world.query(EVENTS, 0)]
    out = held_against(world, entries, events)
    enrolled = {row["enrollment_id"] for row in known}
    out.forgotten = [str(one) for one in sorted(world.seen.acknowledged - enrolled)]
    out.unsettled = [
        f"{row['enrollment_id']} is {row['status']} at step {row['live_step']}"
        for row in known
        if row["status"] not in {"active", "completed"}
        or (row["status"] == "active") != (row["parked_reason"] == "uncertain")
    ]
    # Whatever a runner had in flight when it was killed or stood still, and where the
    # gateway saw to it.
    plan, done = world.plan, world.injector.done
    out.ambiguous = plan.slots * (done["kill_runner"] + done["stop_runner"])
    out.ambiguous += sum(entry.act in AMBIGUOUS for entry in entries)
    # begin_send() may be asked again for 10 s, which are over in no time by this clock.
    times = sum(done[fault.__name__] for fault in LOSES_ANSWERS)
    out.unanswered = plan.slots * plan.runners * times
    return out


def held_against(world: World, entries: list[Entry], events: Events) -> Judgement:
    """What can be told at any time."""
    begins = defaultdict(list)
    for event in events:
        if event["begun_at"] is not None:
            begins[event["key"]].append(event["begun_at"])
    out = accounted(Counter(entry.key for entry in entries if entry.accepted), events)
    out.disordered = disordered(entries, world.plan.delay)
    out.too_many = too_many(entries, begins, world.clock.factor * LATE)
    return out


def accounted(accepted: Counter[str], events: Events) -> Judgement:
    """What the gateway accepted, and how often, against what the tables say."""
    keys = defaultdict(set)
    for event in events:
        if event["begun_at"] is not None:
            keys["begun"].add(event["key"])
        if event["event"] == "sent" or event["code"] == "sent":
            keys["sent"].add(event["key"])
        if (event["event"], event["code"]) == ("live", "uncertain"):
            keys["uncertain"].add(event["key"])
    return Judgement(
        lost=sorted(keys["sent"] - accepted.keys()),
        unexpected=sorted(accepted.keys() - keys["begun"]),
        duplicated=sorted(key for key, count in accepted.items() if count > 1),
        unaccounted=sorted(accepted.keys() - keys["sent"] - keys["uncertain"]),
        recovered=sorted(keys["uncertain"] & accepted.keys()),
        uncertain=len(keys["uncertain"]),
        late=sum(event["verdict"] == "late" for event in events),
        accepted=len(accepted),
        confirmed=len(keys["sent"]),
    )


def disordered(entries: list[Entry], delay: float = DELAY) -> list[str]:
    """Steps that were accepted earlier than their delay after the one before."""
    first: dict[str, float] = {}
    for entry in entries:
        if entry.accepted:
            first.setdefault(entry.key, entry.at)
    told = []
    for key, at in first.items():
        enrollment, step = map(int, key.split(":"))
        place = STEPS.index(step)
        if place == 0:
            continue
        before = first.get(f"{enrollment}:{STEPS[place - 1]}")
        if before is None or at < before + delay:
            told.append(f"{key} at {at:.0f}, the step before at {before}")
    return told


def too_many(
    entries: list[Entry], begins: dict[str, list[float]], late: float
) -> list[str]:
    """Windows in which a tight sender passed its rate.

    This clock runs ahead of the runners' own deadlines, so that what left `late` clock
    seconds after its begin counts where it might have left at the latest; and a window
    is shorter by as much as the others may have been late.
    """
    times = defaultdict(list)
    for entry in entries:
        if entry.accepted and entry.sender.startswith("tight"):
            asked = sorted(begins[entry.key])
            place = bisect_right(asked, entry.at)
            begun_at = asked[place - 1] if place else entry.at
            times[entry.sender].append(min(entry.at, begun_at + late))
    told = []
    for sender, unsorted in times.items():
        of_one = sorted(unsorted)
        for first, at in enumerate(of_one):
            count = bisect_right(of_one, at + HOUR - late) - first
            if count > RATE:
                told.append(f"{sender} had {count} from {at:.0f} on")
    return told
