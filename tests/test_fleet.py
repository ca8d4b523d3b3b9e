"""A fleet of senders under several runners at once, judged by what left, and when."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from psycopg.rows import dict_row

import fleet
import stage
from conftest import Clock
from databases import Databases
from fleet import Fleet, Send
from stage import Db, Row

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


@dataclass(frozen=True)
class Kind:
    """Senders of one sort, and what their limits let through in 48 h at most."""

    options: Row
    in_48_hours: float
    ramp: dict[int, int] = field(default_factory=dict)

    def hourly(self, start: datetime, at: datetime) -> int:
        """The hourly rate in force."""
        age = 1 + (at - start) // DAY
        reached = [rate for day, rate in self.ramp.items() if day <= age]
        return min([*reached[-1:], int(self.options.get("rate_per_hour", 10**9))])


# Most intervals are multiples of one, so that many senders are ready at once and the
# runners meet; a burst is the part of the rate that is kept back for it.
KINDS = {
    "rate": Kind({"rate_per_hour": 5}, 48 * 5),
    "day": Kind({"rate_per_hour": 10, "rate_per_day": 100}, 2 * 100),
    "gap": Kind({"rate_per_hour": 10, "gap_min": "722 s"}, 48 * 3600 / 722),
    "jitter": Kind({"gap_min": "10 min", "gap_max": "14 min"}, 48 * 5),
    "burst": Kind({"rate_per_hour": 7, "burst": 3}, 48 * 5 + 2),
    "ramp": Kind(
        {"rate_per_hour": 5, "ramp": {"1": 2, "2": 5}}, 24 * 2 + 24 * 5, {1: 2, 2: 5}
    ),
    "hours": Kind(
        {"rate_per_hour": 10, "hours": {"from": "09:00", "to": "17:00", "zone": "UTC"}},
        2 * 8 * 10,
    ),
}
OF_EACH = {"jitter": 5, "gap": 45}


@pytest.fixture(scope="module")
def history(server: Databases) -> Iterator["History"]:
    """48 hours of 300 senders, five sequences and four runners that stall and die."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as other,
    ):
        fleet.sequences(db)
        kinds = {
            f"{name}-{number}": name
            for name in KINDS
            for number in range(OF_EACH.get(name, 50))
        }
        fleet.senders(
            db,
            (
                {"name": sender, "channel": "webhook"} | KINDS[kind].options
                for sender, kind in kinds.items()
            ),
        )
        clock = Clock(other)
        start = clock.now()
        with Fleet(dsn, clock, stalls=0.1, lags=0.1, dies=0.005) as runners:
            # A fifth more than they can send, each contact for eight steps.
            fleet.work(
                db,
                {
                    sender: int(0.15 * KINDS[kind].in_48_hours)
                    for sender, kind in kinds.items()
                },
                fleet.TRIGGERS,
            )
            runners.run(start + 2 * DAY)
        yield History(
            start,
            kinds,
            fleet.by_sender(runners.log),
            deaths=sum(one.deaths for one in runners.runners),
            idle=stage.every(
                db,
                "select name from pgdrip.senders where not exists (select from"
                " pgdrip.due where due.sender_id = senders.sender_id"
                " and parked_reason is null and due_at <= pgdrip.clock())",
            ),
            violations=stage.violations(db),
        )


@dataclass(frozen=True)
class History:
    """What came of it."""

    start: datetime
    kinds: dict[str, str]
    sends: dict[str, list[Send]]
    deaths: int
    idle: list[Row]
    violations: list[Row]

    def of(self, kind: str) -> Iterator[tuple[str, list[Send]]]:
        """The senders of a kind, and what they sent."""
        return (
            (one, self.sends[one]) for one, is_ in self.kinds.items() if is_ == kind
        )


def test_300_senders_under_four_runners_pass_no_hourly_limit(history: History) -> None:
    broken = {
        one: fleet.over([s.at for s in sends], HOUR, limit)
        for kind in KINDS
        for limit in [partial(KINDS[kind].hourly, history.start)]
        for one, sends in history.of(kind)
    }
    assert {one: where for one, where in broken.items() if where} == {}


def test_300_senders_under_four_runners_pass_no_daily_limit(history: History) -> None:
    broken = {
        one: fleet.over([s.at for s in sends], DAY, lambda at: 100)
        for one, sends in history.of("day")
    }
    assert {one: where for one, where in broken.items() if where} == {}
    assert len(broken) == 50


@pytest.mark.parametrize(("kind", "least"), [("gap", 722), ("jitter", 600)])
def test_no_sender_is_given_a_message_before_its_gap_is_over(
    history: History, kind: str, least: int
) -> None:
    gap = timedelta(seconds=least)
    for one, sends in history.of(kind):
        assert min(fleet.gaps([s.claimed_at for s in sends])) >= gap, one
        assert min(fleet.gaps([s.at for s in sends])) >= gap - fleet.GRACE, one


def test_nothing_is_claimed_off_the_hours_of_a_sender(history: History) -> None:
    for _, sends in history.of("hours"):
        assert {s.claimed_at.hour for s in sends} == set(range(9, 17))
        assert max(s.at - s.claimed_at for s in sends) <= fleet.GRACE


def test_busy_senders_use_95_percent_of_what_their_limits_allow(
    history: History,
) -> None:
    assert history.idle == []
    used = {
        one: len(sends) / KINDS[kind].in_48_hours
        for kind in KINDS
        for one, sends in history.of(kind)
    }
    assert {one: share for one, share in used.items() if share < 0.95} == {}


def test_runners_that_die_and_stall_send_nothing_twice(history: History) -> None:
    keys = Counter(s.key for sends in history.sends.values() for s in sends)
    assert history.deaths > 20
    assert len(keys) > 60_000
    assert set(keys.values()) == {1}
    assert history.violations == []


def test_a_third_of_the_senders_down_for_six_hours_costs_nothing(
    db: Db, dsn: str, clock: Clock
) -> None:
    fleet.sequences(db, steps=3)
    names = [f"device-{number}" for number in range(60)]
    options = {"channel": "webhook", "rate_per_hour": 20}
    fleet.senders(db, ({"name": name} | options for name in names))
    fleet.work(db, dict.fromkeys(names, 30), fleet.TRIGGERS)
    down, start = set(names[::3]), clock.now()

    def gateway(message: Row, now: datetime) -> str | None:
        is_out = HOUR <= now - start < 7 * HOUR
        return "sender" if is_out and message["sender"] in down else None

    with Fleet(dsn, clock, gateway=gateway, stalls=0.1, lags=0.1) as runners:
        runners.run(start + 2 * DAY)
    log = fleet.by_sender(runners.log)
    accepted = Counter(s.key for s in runners.log if s.code is None)
    assert len(accepted) == 60 * 30 * 3
    assert set(accepted.values()) == {1}
    assert stage.every(db, "select distinct status from pgdrip.enrollments") == [
        {"status": "completed"}
    ]
    assert stage.every(
        db, "select distinct event, class, attempt from pgdrip.deliveries order by 1"
    ) == [
        {"event": "failed", "class": "sender", "attempt": 1},
        {"event": "sent", "class": None, "attempt": 1},
    ]
    for name, sends in log.items():
        probes = [s for s in sends if s.code]
        # What was in flight, then one probe each time, ever more seldom.
        assert (3 <= len(probes) <= 20) if name in down else probes == []
        assert fleet.over([s.at for s in sends], HOUR, lambda at: 20) == []


def test_work_moves_off_senders_that_are_down_never_off_blocked_ones(
    db: Db, dsn: str, clock: Clock
) -> None:
    fleet.sequences(db, steps=2)
    names = [f"device-{number}" for number in range(6)]
    options = {"channel": "webhook", "rate_per_hour": 20, "failover_after": "1 hour"}
    fleet.senders(db, ({"name": name} | options for name in names))
    fleet.work(db, dict.fromkeys(names, 60), fleet.TRIGGERS)
    assigned = {
        row["enrollment_id"]: row["name"]
        for row in stage.every(
            db,
            "select enrollment_id, name from pgdrip.enrollments"
            " join pgdrip.senders using (sender_id)",
        )
    }
    codes = dict.fromkeys(names[:2], "blocked") | {names[2]: "sender"}
    began, ended = clock.now() + HOUR / 2, clock.now() + 6 * HOUR

    def gateway(message: Row, now: datetime) -> str | None:
        return codes.get(message["sender"]) if began <= now < ended else None

    with Fleet(dsn, clock, gateway=gateway, limits=(7, 30)) as runners:
        runners.run(began + DAY)
        waiting = stage.every(
            db,
            "select distinct name from pgdrip.due"
            " left join pgdrip.senders using (sender_id) order by name",
        )
        assert [row["name"] for row in waiting] == names[:2]
        for name in names[:2]:
            db.execute("select pgdrip.resume_sender(%s)", [name])
        runners.run(began + 2 * DAY)
    accepted = [s for s in runners.log if s.code is None]
    assert len({s.key for s in accepted}) == len(accepted) == 6 * 60 * 2
    moved = {
        assigned[s.enrollment] for s in accepted if s.sender != assigned[s.enrollment]
    }
    assert moved == {names[2]}
    for sends in fleet.by_sender(runners.log).values():
        assert fleet.over([s.at for s in sends], HOUR, lambda at: 20) == []


@pytest.mark.parametrize("limit", [3, 100])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rate_per_hour": 80},
        {"rate_per_hour": 100, "burst": 80},
        {"rate_per_day": 90},
    ],
    ids=str,
)
def test_the_backlog_of_ten_senders_never_starves_three_others(
    db: Db, clock: Clock, limit: int, options: Row
) -> None:
    busy, quiet = ([f"{kind}-{n}" for n in range(10)] for kind in ("busy", "quiet"))
    stage.sequence(db)
    fleet.senders(
        db,
        ({"name": name, "channel": "webhook"} | options for name in busy + quiet[:3]),
    )
    fleet.work(db, dict.fromkeys(busy, 80), ["WARM"])
    clock.advance(HOUR)
    fleet.work(db, dict.fromkeys(quiet[:3], 3), ["WARM"])
    senders: list[str] = []
    while len(senders) < 400:
        messages = stage.deliver(db, limit)
        senders.extend(message["sender"] for message in messages)
        clock.advance(timedelta(milliseconds=1) if messages else MINUTE)
    assert Counter(senders) >= Counter(dict.fromkeys(quiet[:3], 3))


def test_a_large_sequence_never_overtakes_what_fell_due_before(
    db: Db, dsn: str, clock: Clock
) -> None:
    fleet.sequences(db, steps=3)
    names = [f"device-{number}" for number in range(5)]
    options = {"channel": "webhook", "rate_per_hour": 30, "burst": 3}
    fleet.senders(db, ({"name": name} | options for name in names))
    start = clock.now()
    with Fleet(dsn, clock, stalls=0.2) as runners:
        for hour in range(4):
            fleet.work(db, dict.fromkeys(names, 30), [fleet.TRIGGERS[0]])
            clock.advance(MINUTE)
            fleet.work(db, dict.fromkeys(names, 3), fleet.TRIGGERS[1:])
            runners.run(start + (hour + 1) * HOUR)
        runners.run(start + DAY)
    assert len({s.key for s in runners.log}) == 5 * 4 * 33 * 3
    for sends in fleet.by_sender(runners.log).values():
        claimed = sorted((s.claimed_at, s.due_at) for s in sends)
        assert [due for _, due in claimed] == sorted(s.due_at for s in sends)


def test_priority_orders_only_within_a_sender(db: Db, dsn: str, clock: Clock) -> None:
    for trigger, priority in (("LOW", 0), ("HIGH", 9)):
        stage.sequence(
            db,
            trigger,
            trigger=trigger,
            priority=priority,
            steps=[{"day": 1, "body": "x"}],
        )
    names = ("mixed", "low")
    fleet.senders(
        db, ({"name": n, "channel": "webhook", "rate_per_hour": 20} for n in names)
    )
    fleet.work(db, {"mixed": 50, "low": 100}, ["LOW"])
    fleet.work(db, {"mixed": 50}, ["HIGH"])
    with Fleet(dsn, clock, limits=(1, 3, 50)) as runners:
        runners.run(clock.now() + DAY)
    log = fleet.by_sender(runners.log)
    assert [s.sequence for s in log["mixed"]] == ["HIGH"] * 50 + ["LOW"] * 50
    assert len(log["low"]) == 100
    ends = [log[name][-1].at - log[name][0].at for name in names]
    assert abs(ends[0] - ends[1]) < 5 * MINUTE


FORECASTS: dict[str, tuple[list[Row], list[Row], int]] = {
    "one step by hourly rates": (
        [{"rate_per_hour": 30}] * 20,
        [{"day": 1, "body": "x"}],
        0,
    ),
    "two steps by daily rates beside a backlog": (
        [{"rate_per_hour": 40, "rate_per_day": 100}] * 5 + [{"rate_per_hour": 10}] * 5,
        [{"day": 1, "body": "x"}, {"day": 2, "body": "y", "delay": "12 hours"}],
        400,
    ),
    "gaps, ramps and hours": (
        [{"gap_min": "2 min", "gap_max": "4 min"}] * 6
        + [{"rate_per_hour": 20, "ramp": {"1": 10, "2": 20}}] * 6
        + [
            {
                "rate_per_hour": 20,
                "hours": {"from": "08:00", "to": "20:00", "zone": "UTC"},
            }
        ]
        * 6,
        [{"day": 1, "body": "x"}],
        600,
    ),
}


@pytest.mark.parametrize("case", FORECASTS)
def test_the_forecast_is_within_10_percent_of_what_comes_of_it(
    db: Db, dsn: str, clock: Clock, case: str
) -> None:
    options, steps, waiting = FORECASTS[case]
    stage.sequence(db, "Other", trigger="OTHER", steps=[{"day": 1, "body": "x"}])
    stage.sequence(db, "Forecast", trigger="MORE", steps=steps)
    fleet.senders(
        db,
        (
            {"name": f"device-{number}", "channel": "webhook"} | option
            for number, option in enumerate(options)
        ),
    )
    fleet.work(db, {fleet.ANYBODY: waiting}, ["OTHER"])
    start = clock.now()
    told = stage.one(db, "select * from pgdrip.forecast('Forecast', 1500)")
    fleet.work(db, {fleet.ANYBODY: 1500}, ["MORE"])
    with Fleet(dsn, clock, stalls=0.1) as runners:
        runners.run(start + 10 * DAY)
    sends = [s for s in runners.log if s.sequence == "Forecast"]
    assert len(sends) == 1500 * len(steps)
    took = sends[-1].at - start
    assert 0.9 * took <= told["done_at"] - start <= 1.1 * took
    assert told["bottleneck_pool"] == "default"


def test_the_judge_sees_one_message_too_many() -> None:
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    times = [start + n * MINUTE for n in (0, 20, 40, 60, 81)]
    assert fleet.over(times, HOUR, lambda at: 3) == [(times[3], 4)]
    assert fleet.over(times, HOUR - MINUTE, lambda at: 3) == []
    assert fleet.over(times, HOUR, lambda at: 3 if at > times[3] else 4) == []
    sends = [
        Send(at, at, at, "sender", "sequence", number, str(number), None)
        for number, at in enumerate(times)
    ]
    assert fleet.most_distinct(sends, HOUR, dict(enumerate("ABCDE"))) == 4
    assert fleet.most_distinct(sends, HOUR, dict(enumerate("AABBC"))) == 2
    assert fleet.gaps(times) == [20 * MINUTE] * 3 + [21 * MINUTE]
