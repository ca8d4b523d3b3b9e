"""Limits that change while messages are due, over a clock that jumps, over a group."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

import fleet
import stage
from conftest import Clock, Connect
from fleet import Fleet
from stage import Db, Row

SPANS = {
    "1 minute": timedelta(minutes=1),
    "1 hour": timedelta(hours=1),
    "2 hours": timedelta(hours=2),
}
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)

RAISED: list[tuple[Row, Row, int]] = [
    ({"rate_per_hour": 2}, {"rate_per_hour": 60}, 60),
    ({"rate_per_hour": 2, "burst": 2}, {"rate_per_hour": 60, "burst": 2}, 60),
    ({"rate_per_day": 5}, {"rate_per_day": 50}, 0),
    ({"rate_per_hour": 60, "rate_per_day": 5}, {"rate_per_hour": 60}, 60),
    ({"gap_min": "30 min"}, {"gap_min": "1 min"}, 60),
    ({"rate_per_hour": 60, "ramp": {"1": 2}}, {"rate_per_hour": 60}, 60),
    ({"rate_per_hour": 2}, {}, 0),
]


@pytest.mark.parametrize(("old", "new", "seconds"), RAISED, ids=str)
def test_a_raised_limit_takes_effect_at_the_next_claim(
    db: Db, dsn: str, clock: Clock, old: Row, new: Row, seconds: int
) -> None:
    stage.sender(db, **old)
    stage.sequence(db)
    fleet.work(db, {"device-0001": 100}, ["WARM"])
    with Fleet(dsn, clock, limits=(1, 5)) as runners:
        runners.run(clock.now() + 70 * MINUTE)  # in the middle of the longest wait
        changed = clock.now()
        stage.sender(db, **new)
        runners.run(changed + HOUR)
    first = min(send.at for send in runners.log if send.at >= changed)
    assert first - changed <= timedelta(seconds=seconds + 15)


LOWERED: list[tuple[Row, Row, timedelta, int]] = [
    ({"rate_per_hour": 60}, {"rate_per_hour": 2}, HOUR, 2),
    ({"rate_per_hour": 60, "burst": 10}, {"rate_per_hour": 3, "burst": 2}, HOUR, 3),
    ({"rate_per_hour": 60}, {"rate_per_hour": 60, "rate_per_day": 70}, DAY, 70),
    ({}, {"rate_per_hour": 3}, HOUR, 3),
    ({}, {"rate_per_day": 3}, DAY, 3),
    ({"rate_per_hour": 60}, {"gap_min": "20 min"}, 20 * MINUTE, 2),
]


@pytest.mark.parametrize(("old", "new", "span", "most"), LOWERED, ids=str)
def test_a_lowered_limit_takes_effect_at_the_next_claim(
    db: Db, dsn: str, clock: Clock, old: Row, new: Row, span: timedelta, most: int
) -> None:
    stage.sender(db, **old)
    stage.sequence(db, steps=[{"day": day, "body": "x"} for day in range(1, 5)])
    fleet.work(db, {"device-0001": 200}, ["WARM"])
    with Fleet(dsn, clock, limits=(1, 5)) as runners:
        runners.run(clock.now() + HOUR)
        changed = clock.now()
        fleet.work(db, {"device-0001": 90}, ["WARM"])
        stage.sender(db, **new)
        runners.run(changed + max(1.1 * span, 3 * HOUR))
    later = [send.at for send in runners.log if send.at >= changed]
    assert len(later) >= most
    assert fleet.over(later, span, lambda at: most) == []


@pytest.mark.parametrize("limit", [{"rate_per_day": 40}, {"group": "account"}], ids=str)
def test_a_claim_counts_what_another_spent_while_it_came_for_the_sender(
    db: Db, connect: Connect, limit: Row
) -> None:
    account = {"name": "account", "rate": 40, "per": "1 day"}
    db.execute("select pgdrip.apply_group(%s)", [Jsonb(account)])
    stage.sender(db, **limit)
    stage.sequence(db)
    stage.leads(db, 60)
    first, second = connect(), connect()
    with ExitStack() as late, first.transaction():
        spent = stage.claim(first, 25)
        # Holds the other back between its first look and its lock on the sender.
        first.execute("lock table pgdrip.sender_groups in access exclusive mode")
        rest = late.enter_context(stage.meanwhile(stage.claim, second, 100))
        stage.waits(db, second)
    assert (len(spent), len(rest.result())) == (25, 15)


@pytest.mark.parametrize("limit", ["rate_per_hour", "rate_per_day"])
def test_a_limit_of_zero_stops_a_sender_until_it_is_raised(
    db: Db, dsn: str, clock: Clock, limit: str
) -> None:
    options: Row = {limit: 100}
    stage.sender(db, **options)
    stage.sequence(db)
    fleet.work(db, {"device-0001": 200}, ["WARM"])
    with Fleet(dsn, clock, limits=(1, 5)) as runners:
        runners.run(clock.now() + HOUR)
        sent = len(runners.log)
        db.execute(f"update pgdrip.senders set {limit} = 0".encode())
        runners.run(clock.now() + 2 * DAY)
        assert sent == len(runners.log) > 10
        options[limit] = 101
        stage.sender(db, **options)
        runners.run(clock.now() + HOUR)
    assert len(runners.log) > sent + 10


@pytest.mark.parametrize(
    ("options", "hourly", "daily", "most"),
    [
        ({"rate_per_hour": 60}, 60, 1440, 1),
        ({"rate_per_hour": 60, "burst": 10}, 60, 1440, 10),
        ({"rate_per_hour": 60, "rate_per_day": 70}, 60, 70, 1),
        ({"rate_per_day": 40}, 40, 40, 40),
        ({"gap_min": "1 min", "gap_max": "2 min"}, 60, 1440, 1),
        ({"rate_per_hour": 80, "ramp": {"1": 20, "2": 40}}, 40, 960, 1),
    ],
    ids=str,
)
def test_a_clock_that_jumps_a_day_lets_no_more_out_than_before(
    db: Db,
    dsn: str,
    clock: Clock,
    options: Row,
    hourly: int,
    daily: int,
    most: int,
) -> None:
    stage.sender(db, **options)
    stage.sequence(db)
    fleet.work(db, {"device-0001": 200}, ["WARM"])
    with Fleet(dsn, clock, limits=(1, 5), stalls=0.2) as runners:
        runners.run(clock.now() + HOUR)
        claimed = stage.claim(db)
        clock.advance(DAY)
        assert stage.begin(db, claimed) == []
        runners.run(clock.now() + 1.5 * HOUR)
    times = [send.at for send in runners.log]
    jumped = clock.now() - 1.5 * HOUR
    assert any(at < jumped for at in times)
    assert any(at >= jumped for at in times)
    assert fleet.over(times, HOUR, lambda at: hourly) == []
    assert fleet.over(times, DAY, lambda at: daily) == []
    assert fleet.over(times, timedelta(0), lambda at: most) == []


GROUPS: list[Row] = [
    {"rate": 30, "per": "1 hour"},
    {"rate": 10, "per": "1 minute"},
    {"distinct_contacts_per_day": 40},
    {"rate": 60, "per": "2 hours", "distinct_contacts_per_day": 50},
]


@pytest.mark.parametrize("limits", GROUPS, ids=str)
def test_a_group_keeps_its_limits_over_all_its_senders_and_runners(
    db: Db, dsn: str, clock: Clock, limits: Row
) -> None:
    fleet.sequences(db, steps=2)
    db.execute("select pgdrip.apply_group(%s)", [Jsonb({"name": "account"} | limits)])
    names = [f"device-{number}" for number in range(8)]
    options = {"channel": "webhook", "rate_per_hour": 200, "group": "account"}
    fleet.senders(db, ({"name": name} | options for name in names))
    fleet.work(db, dict.fromkeys(names, 50), fleet.TRIGGERS)
    with Fleet(dsn, clock, limits=(7, 20, 50, 100), stalls=0.2, dies=0.01) as runners:
        runners.run(clock.now() + 26 * HOUR)
    whom = {
        row["enrollment_id"]: row["contact_id"]
        for row in stage.every(db, "select * from pgdrip.enrollments")
    }
    assert {s.sender for s in runners.log} == set(names)
    if "rate" in limits:
        per = SPANS[limits["per"]]
        times = [s.at for s in runners.log]
        assert fleet.over(times, per, lambda at: limits["rate"]) == []
        assert fleet.over(times, per, lambda at: limits["rate"] - 1) != []
    if "distinct_contacts_per_day" in limits:
        most = fleet.most_distinct(runners.log, DAY, whom)
        assert most == limits["distinct_contacts_per_day"]
