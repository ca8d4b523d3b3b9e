"""Where a safeguard is missing somebody notices: the chaos, a directed race or a judge.

Each is shown twice: the same look at the engine finds nothing as it is, and something
where it is broken.
"""

import asyncio
import json
import signal
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import fleet
import sabotage
import stage
from chaos.gateway import Entry
from chaos.judge import Judgement, disordered, judge, too_many
from chaos.verdict import Verdict, play
from chaos.world import DELAY, RATE, Plan, World
from conftest import Clock, Connect
from fleet import Fleet
from stage import Db, Row
from test_chaos import outage_longer_than_leases
from test_faults import confirmed_and_kept, crashing
from test_races import meet

HOUR = timedelta(hours=1)


def played(plan: Plan, home: Path) -> Verdict:
    return asyncio.run(play(plan, home))


# Claims of one row


def begun_twice(db: Db, connect: Connect) -> list[int]:
    """Enrollments that two sessions may send at once, of three that are due."""
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    first, second = connect(), connect()
    first.execute("begin")
    mine = stage.claim(first)
    theirs = _meanwhile_claimed(db, first, second)
    begun = set(stage.begin(db, mine)), set(stage.begin(db, theirs))
    ids = [
        {m["enrollment_id"] for m in mine + theirs if m["token"] in b} for b in begun
    ]
    return sorted(ids[0] & ids[1])


def _meanwhile_claimed(db: Db, holder: Db, other: Db) -> list[Row]:
    """What `other` claims when `holder` commits while it waits, if it does."""
    with stage.meanwhile(stage.claim, other, 100, "runner-2") as claimed:
        try:
            stage.waits(db, other, seconds=1)
        except AssertionError:
            pass  # as it should be
        finally:
            holder.execute("commit")
    return claimed.result(10)


def test_two_claims_never_begin_one_step_twice(db: Db, connect: Connect) -> None:
    assert begun_twice(db, connect) == []


@pytest.mark.parametrize("broken", [sabotage.SHARED_ROWS, sabotage.NO_FENCE])
def test_either_row_locks_or_tokens_keep_a_step_from_being_begun_twice(
    db: Db, connect: Connect, broken: str
) -> None:
    db.execute(broken.encode())
    assert begun_twice(db, connect) == []


def test_without_row_locks_and_tokens_a_step_is_begun_twice(
    db: Db, connect: Connect
) -> None:
    db.execute((sabotage.SHARED_ROWS + sabotage.NO_FENCE).encode())
    assert begun_twice(db, connect) == [1, 2, 3]


def enrolled_by_two(db: Db, connect: Connect) -> int:
    """Live steps of one contact that two sessions enroll at once."""
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db, trigger=None)
    first, second = connect(), connect()
    enroll = "select pgdrip.enroll('WARM Sequence', 1)"
    first.execute("begin")
    first.execute(enroll)
    with stage.meanwhile(second.execute, enroll):
        try:
            stage.waits(db, second, seconds=1)
        except AssertionError:
            pass
        finally:
            first.execute("commit")
    return len(stage.live(db))


def test_two_sessions_enroll_a_contact_once(db: Db, connect: Connect) -> None:
    assert enrolled_by_two(db, connect) == 1


def test_without_lock_and_unique_key_two_sessions_enroll_a_contact_twice(
    db: Db, connect: Connect
) -> None:
    db.execute(sabotage.ENROLL_TWICE.encode())
    assert enrolled_by_two(db, connect) == 2


# Limits


def spent_by_two(db: Db, connect: Connect) -> int:
    """Messages two sessions get at once of a sender that may send one."""
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    stage.leads(db, 5)
    stage.claim(db, 1)  # drains the wakes, and is the first message
    ready = "update pgdrip.paces set tat = 'epoch', ready_at = 'epoch'"
    db.execute(ready)
    first, second = connect(), connect()
    first.execute("begin")
    mine = stage.claim(first)
    return len(mine) + len(_meanwhile_claimed(db, first, second))


def test_two_claims_share_the_allowance_of_a_sender(db: Db, connect: Connect) -> None:
    assert spent_by_two(db, connect) == 1


def test_without_its_lock_two_claims_each_spend_the_allowance_of_a_sender(
    db: Db, connect: Connect
) -> None:
    db.execute(sabotage.FREE_SENDERS.encode())
    assert spent_by_two(db, connect) == 2


def busy_hours(db: Db, dsn: str, clock: Clock) -> list[tuple[datetime, int]]:
    """Rolling hours in which a sender let out more than its 20 messages."""
    start = clock.advance(timedelta(minutes=50))
    stage.sender(db, rate_per_hour=20)
    stage.sequence(db, steps=[{"day": 1, "body": "One"}])
    stage.leads(db, 60)
    with Fleet(dsn, clock, limits=(7, 30), pace=timedelta(minutes=1)) as runners:
        runners.run(start + 4 * HOUR)
        times = [send.at for send in runners.log]
    assert len(times) >= 40
    return fleet.over(times, HOUR, lambda at: 20)


def test_no_hour_holds_more_than_the_rate(db: Db, dsn: str, clock: Clock) -> None:
    assert busy_hours(db, dsn, clock) == []


def test_an_hour_that_starts_with_the_clock_lets_too_many_out(
    db: Db, dsn: str, clock: Clock
) -> None:
    db.execute(sabotage.HOUR_OF_THE_CLOCK.encode())
    assert busy_hours(db, dsn, clock) != []


# Locks


def test_locks_in_another_order_deadlock(db: Db, connect: Connect) -> None:
    db.execute(sabotage.EXIT_FROM_BEHIND.encode())
    with pytest.raises(psycopg.errors.DeadlockDetected):
        meet(db, connect, "report", "exit", 1000)


# Chaos


def gateway_that_breaks(sabotage: str = "") -> Plan:
    """One in five messages is accepted and answered 500."""
    return Plan(
        name="gateway that breaks",
        acts={"broken": 0.2},
        faults={},
        seconds=1,
        people=60,
        runners=2,
        per_tight=0,
        drain=10,
        sabotage=sabotage,
    )


def test_a_500_that_counts_as_failed_is_sent_twice(tmp_path: Path) -> None:
    verdict = played(gateway_that_breaks(sabotage.BROKEN_IS_FAILED), tmp_path)
    assert verdict.judged.duplicated != []
    assert any(one.startswith("L3") for one in verdict.complaints), verdict


def test_sent_that_is_told_late_and_dropped_is_missed(tmp_path: Path) -> None:
    # Whether an outage meets a send is chance; one of three does.
    for attempt in ("first", "second", "third"):
        plan = outage_longer_than_leases(sabotage.LATE_IS_LOST)
        (tmp_path / attempt).mkdir()
        verdict = played(plan, tmp_path / attempt)
        if verdict.judged.recovered:
            break
    assert len(verdict.judged.recovered) > verdict.judged.ambiguous == 0
    assert any(one.startswith("L7") for one in verdict.complaints), verdict


def test_without_a_synchronous_commit_what_is_confirmed_is_lost() -> None:
    with crashing() as server:
        with psycopg.connect(server.dsn) as connection:
            connection.execute(sabotage.NOT_FLUSHED.encode())
        confirmed, kept = confirmed_and_kept(server, signal.SIGQUIT)
    assert kept < confirmed == 20


# The judges


def test_the_judge_misses_nothing_that_is_wrong_in_the_ledger(tmp_path: Path) -> None:
    async def main() -> tuple[Verdict, dict[str, Judgement]]:
        async with World(gateway_that_breaks(), tmp_path) as world:
            await world.play()
            ledger = world.gateway.ledger()
            verdict = Verdict.of(world, await judge(world))
            lost = next(one.key for one in ledger if one.act == "sent")
            seen = {}
            for name, entries in (
                ("without one", [one for one in ledger if one.key != lost]),
                ("one twice", [*ledger, ledger[0]]),
                ("one more", [*ledger, replace(ledger[0], key="99:1")]),
                ("too early", [replace(one, at=ledger[0].at) for one in ledger]),
            ):
                lines = [json.dumps(asdict(entry)) + "\n" for entry in entries]
                world.gateway.path.write_text("".join(lines))
                seen[name] = await judge(world)
            world.seen.acknowledged.add(99)
            seen["one forgotten"] = await judge(world)
            return verdict, seen

    verdict, seen = asyncio.run(main())
    assert verdict.complaints == [], verdict
    assert 0 < verdict.judged.uncertain == verdict.judged.ambiguous
    assert len(seen["without one"].lost) == 1
    assert len(seen["one twice"].duplicated) == 1
    assert seen["one more"].unexpected == seen["one more"].unaccounted == ["99:1"]
    assert len(seen["too early"].disordered) > 20
    assert seen["one forgotten"].forgotten == ["99"]


def entry(at: float, key: str = "1:1") -> Entry:
    return Entry(at=at, key=key, sender="tight-0", act="sent", accepted=True)


def test_the_judge_of_order_counts_from_the_acceptance_of_the_step_before() -> None:
    assert disordered([entry(0, "1:1"), entry(DELAY, "1:3")]) == []
    assert len(disordered([entry(0, "1:1"), entry(DELAY - 1, "1:3")])) == 1
    assert len(disordered([entry(DELAY, "1:3")])) == 1


def test_the_judge_of_rates_counts_a_send_that_stood_still_where_it_began() -> None:
    keys = [f"{number}:1" for number in range(RATE + 1)]
    begins = {key: [10.0 * number] for number, key in enumerate(keys)}
    prompt = [entry(10.0 * number, key) for number, key in enumerate(keys)]
    assert len(too_many(prompt, begins, 100)) == 1
    assert too_many(prompt[1:], begins, 100) == []
    early = {key: [at - 4000] for key, [at] in begins.items()} | {keys[-1]: [-9000.0]}
    assert too_many([entry(0, key) for key in keys], early, 100) == []
