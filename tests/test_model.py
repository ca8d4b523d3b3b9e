"""A small model of the engine beside the database: all operations in random order.

After every step the two agree and check() finds nothing. `PGDRIP_MODEL_RUNS` sets how
many runs of 50 steps are made.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from databases import Databases

Row = dict[str, Any]
RUNS = int(os.environ.get("PGDRIP_MODEL_RUNS", "200"))
STEPS_PER_RUN = int(os.environ.get("PGDRIP_MODEL_STEPS", "50"))
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
LEASE, GRACE = timedelta(minutes=2), timedelta(seconds=10)
STEPS = (1, 3, 6)
DELAYS = {1: timedelta(0), 3: timedelta(hours=12), 6: timedelta(days=3)}
BACKOFF, ATTEMPTS = timedelta(minutes=1), 2
CONTACTS = 3
# What each sequence does when a step fails for good, and when its outcome is unknown.
POLICIES = {"Stop": ("stop", "park"), "Skip": ("skip", "retry")}
FINAL = {"stop": "failed", "skip": "skipped"}
OUTCOMES = ("sent", "uncertain", "transient", "permanent")
HOURLY = 6


@dataclass
class Token:
    number: int
    enrollment: "Enrollment"
    step: int
    is_begun: bool = False
    told: str | None = None
    verdict: str = "stale"


@dataclass
class Enrollment:
    id: int
    sequence: str
    contact: int
    due: datetime
    status: str = "active"
    step: int = STEPS[0]
    confirmed: int = 0
    attempt: int = 0
    token: Token | None = None
    lease_until: datetime = START
    is_uncertain: bool = False
    is_paused: bool = False

    def holds(self, token: Token) -> bool:
        return self.status == "active" and self.token is token

    def is_leased(self, now: datetime) -> bool:
        return (
            self.token is not None and not self.is_uncertain and now < self.lease_until
        )


class Engine(RuleBasedStateMachine):
    """The model; `connection` is the database it is compared with."""

    connection: psycopg.Connection[Row]

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.enrollments: list[Enrollment] = []
        self.tokens: dict[int, Token] = {}
        self.paused: set[str] = set()
        self.suppressed: set[int] = set()
        self.is_all_paused = False
        self.claims: list[datetime] = []
        self.reset()

    # The database

    def call(self, query: str, *parameters: Any) -> list[Row]:
        return self.connection.execute(query, parameters).fetchall()

    def value(self, query: str, *parameters: Any) -> Any:
        (row,) = self.call(query, *parameters)
        return next(iter(row.values()))

    def reset(self) -> None:
        self.connection.execute(
            "truncate pgdrip.contacts, pgdrip.contact_triggers, pgdrip.enrollments,"
            " pgdrip.due, pgdrip.deliveries, pgdrip.wakes, pgdrip.suppressions,"
            " pgdrip.provider_refs, pgdrip.receipts restart identity cascade;"
            " update pgdrip.paces set tat = 'epoch', ready_at = 'epoch',"
            " day_slot = 0, day_counts = array_fill(0, array[25]);"
            " update pgdrip.control set paused_at = null, paused_reason = null;"
            " update pgdrip.sequences set status = 'active', paused_at = null,"
            " paused_reason = null"
        )
        self.value("select pgdrip.set_clock(%s)", START)
        for contact in range(1, CONTACTS + 1):
            phone = f"+6012345678{contact}"
            # Each contact has its sender, so that the model knows which one sends.
            sender = "limited" if contact == 1 else "free"
            self.value(
                "select pgdrip.upsert_contact(%s, p_sender => %s)", phone, sender
            )

    # What the model expects

    @property
    def active(self) -> list[Enrollment]:
        return [e for e in self.enrollments if e.status == "active"]

    def is_held_back(self, enrollment: Enrollment) -> bool:
        return (
            self.is_all_paused
            or enrollment.is_paused
            or enrollment.sequence in self.paused
            or enrollment.contact in self.suppressed
        )

    def is_claimable(self, enrollment: Enrollment) -> bool:
        return (
            enrollment.status == "active"
            and not enrollment.is_uncertain
            and enrollment.due <= self.now
            and not enrollment.is_leased(self.now)
            and not self.is_held_back(enrollment)
        )

    def advance(self, enrollment: Enrollment, *, is_confirmed: bool) -> str:
        """Move on to the next step, or complete."""
        if is_confirmed:
            assert enrollment.step > enrollment.confirmed
            enrollment.confirmed = enrollment.step
        self.put_back(enrollment, self.now)
        enrollment.attempt = 0
        later = [step for step in STEPS if step > enrollment.step]
        if not later:
            enrollment.status = "completed"
            return "completed"
        enrollment.step = later[0]
        enrollment.due = self.now + DELAYS[later[0]]
        return "advanced"

    def put_back(self, enrollment: Enrollment, due: datetime) -> None:
        enrollment.token, enrollment.is_uncertain = None, False
        enrollment.due = due

    def end(self, enrollment: Enrollment, status: str) -> None:
        token = enrollment.token
        if token and token.is_begun and enrollment.is_leased(self.now):
            token.told, token.verdict = "uncertain", "parked"
        enrollment.status, enrollment.token = status, None

    def lapse(self, enrollment: Enrollment) -> None:
        """A claim met a begun send whose lease had run out."""
        token = enrollment.token
        assert token is not None
        _, on_uncertain = POLICIES[enrollment.sequence]
        token.told = "uncertain"
        if on_uncertain == "retry" and enrollment.attempt < ATTEMPTS:
            token.verdict = "retry"
            self.put_back(enrollment, enrollment.due)
        else:
            token.verdict, enrollment.is_uncertain = "parked", True

    def judge(self, token: Token, outcome: str) -> str:
        """The verdict table."""
        told = "failed" if outcome in ("transient", "permanent") else outcome
        if token.told == told:
            return token.verdict
        if token.told in ("sent", "failed"):
            return "contradiction"
        enrollment = token.enrollment
        if enrollment.holds(token):
            token.verdict = self.apply(enrollment, outcome)
        elif (
            (token.told, outcome) == ("uncertain", "sent")
            and enrollment.status == "active"
            and enrollment.step == token.step
            and not (enrollment.token and enrollment.token.is_begun)
        ):
            self.advance(enrollment, is_confirmed=True)
            token.verdict = "late"
        else:
            token.verdict = "stale"
        token.told = told
        return token.verdict

    def apply(self, enrollment: Enrollment, outcome: str) -> str:
        """What an outcome does to the row that carries its token."""
        token = enrollment.token
        assert token is not None
        on_failure, on_uncertain = POLICIES[enrollment.sequence]
        if not token.is_begun and not enrollment.is_uncertain:
            enrollment.attempt += 1  # begun without saying so
        may_retry = enrollment.attempt < ATTEMPTS
        if outcome == "sent":
            is_late = enrollment.is_uncertain or enrollment.lease_until <= self.now
            verdict = self.advance(enrollment, is_confirmed=True)
            return "late" if is_late else verdict
        if may_retry and (
            outcome == "transient"
            or (outcome == "uncertain" and on_uncertain == "retry")
        ):
            self.put_back(enrollment, self.due_at(enrollment))
            return "retry"
        if outcome == "uncertain":
            enrollment.is_uncertain = True
            return "parked"
        if on_failure == "skip":
            self.advance(enrollment, is_confirmed=False)
        else:
            enrollment.status, enrollment.token = "failed", None
        return FINAL[on_failure]

    def due_at(self, enrollment: Enrollment) -> datetime:
        """A retry is jittered: the model takes the time, and checks its bounds."""
        due: datetime = self.value(
            "select due_at from pgdrip.due where enrollment_id = %s", enrollment.id
        )
        wait = BACKOFF * 2 ** (enrollment.attempt - 1)
        assert wait * 0.74 <= due - self.now <= wait * 1.26
        return due

    # Operations

    @rule(contact=st.integers(1, CONTACTS), sequence=st.sampled_from(sorted(POLICIES)))
    def enroll(self, contact: int, sequence: str) -> None:
        runs = [
            e
            for e in self.enrollments
            if (e.contact, e.sequence) == (contact, sequence)
        ]
        query = "select pgdrip.enroll(%s, %s)"
        live = [e.id for e in runs if e.status == "active"]
        if live:
            assert self.value(query, sequence, contact) == live[0]
        elif runs or contact in self.suppressed:
            with pytest.raises(psycopg.Error) as refused:
                self.value(query, sequence, contact)
            assert refused.value.sqlstate == (
                "MD004" if contact in self.suppressed else "MD003"
            )
        else:
            new = self.value(query, sequence, contact)
            self.enrollments.append(Enrollment(new, sequence, contact, self.now))

    @rule(
        span=st.sampled_from(
            [
                timedelta(seconds=5),
                GRACE + timedelta(seconds=1),
                timedelta(minutes=1),
                LEASE,
                timedelta(hours=12),
                timedelta(days=3),
            ]
        )
    )
    def wait(self, span: timedelta) -> None:
        self.now += span
        self.value("select pgdrip.set_clock(%s)", self.now)

    @rule(limit=st.sampled_from([1, 2, 100]))
    def claim(self, limit: int) -> None:
        lapsed = [
            e
            for e in self.active
            if e.token and e.token.is_begun and not e.is_leased(self.now)
        ]
        lapsed = [e for e in lapsed if not e.is_uncertain]
        claimable = [e for e in self.active if self.is_claimable(e) and e not in lapsed]
        claimed = self.call("select * from pgdrip.claim('model', %s)", limit)
        for e in lapsed:
            row = self.row_of(e)
            met = row["token"] != (e.token and e.token.number)
            if met or row["parked_reason"] == "uncertain":
                self.lapse(e)
                claimable.append(e)
        ended = {
            row["enrollment_id"]
            for row in self.call(
                "select enrollment_id from pgdrip.enrollments where status = 'exited'"
            )
        }
        for e in self.active:
            if e.id in ended:  # triage met it: suppressed while not begun
                assert e.contact in self.suppressed
                self.end(e, "exited")
        for e in self.active:
            # A claim that ran out unbegun was met by triage, and its token journalled.
            if e.token and not e.token.is_begun and self.row_of(e)["token"] is None:
                assert not e.is_leased(self.now)
                assert self.is_held_back(e)
                self.put_back(e, e.due)
        for row in claimed:
            self.take(row, claimable)
        if limit == 100:
            # A sender without limits leaves nothing that may go, but what just lapsed.
            left = [e for e in claimable if self.is_claimable(e) and e.contact != 1]
            assert [e.id for e in left if e not in lapsed] == []

    def take(self, row: Row, claimable: list[Enrollment]) -> None:
        (enrollment,) = (e for e in self.enrollments if e.id == row["enrollment_id"])
        assert enrollment in claimable
        assert self.is_claimable(enrollment)
        assert (row["step"], row["attempt"]) == (
            enrollment.step,
            enrollment.attempt + 1,
        )
        assert row["recipient"] == f"+6012345678{enrollment.contact}"
        token = Token(row["token"], enrollment, enrollment.step)
        assert token.number not in self.tokens
        self.tokens[token.number] = token
        enrollment.token, enrollment.lease_until = token, self.now + LEASE
        if row["sender"] == "limited":
            self.claims.append(self.now)
            hour = [at for at in self.claims if at > self.now - timedelta(hours=1)]
            assert len(hour) <= HOURLY

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        token = self.pick(data)
        enrollment = token.enrollment
        send_by = enrollment.lease_until - LEASE + GRACE
        is_on_time = (
            enrollment.holds(token)
            and enrollment.is_leased(self.now)
            and self.now <= send_by
        )
        may = is_on_time and (token.is_begun or not self.is_held_back(enrollment))
        granted = self.call(
            "select pgdrip.begin_send(%s, %s) as token",
            [enrollment.id],
            [token.number],
        )
        assert [row["token"] for row in granted] == ([token.number] if may else [])
        if may and not token.is_begun:
            token.is_begun = True
            enrollment.attempt += 1
        elif (
            enrollment.holds(token)
            and enrollment.is_leased(self.now)
            and not token.is_begun
        ):
            self.put_back(enrollment, enrollment.due)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def report(self, data: st.DataObject, outcome: str) -> None:
        token = self.pick(data)
        is_failure = outcome in ("transient", "permanent")
        (row,) = self.call(
            "select * from pgdrip.report(%s, %s, %s, p_codes => %s)",
            [token.enrollment.id],
            [token.number],
            ["failed" if is_failure else outcome],
            [outcome if is_failure else None],
        )
        assert row["verdict"] == self.judge(token, outcome)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        token = self.pick(data)
        enrollment = token.enrollment
        may = enrollment.holds(token) and not token.is_begun
        may = may and not enrollment.is_uncertain
        freed = self.call(
            "select pgdrip.release(%s, %s) as token", [enrollment.id], [token.number]
        )
        assert [row["token"] for row in freed] == ([token.number] if may else [])
        if may:
            self.put_back(enrollment, enrollment.due)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        token = self.pick(data)
        enrollment = token.enrollment
        may = enrollment.holds(token) and enrollment.is_leased(self.now)
        kept = self.call(
            "select pgdrip.heartbeat(%s, %s, '1 minute') as token",
            [enrollment.id],
            [token.number],
        )
        assert [row["token"] for row in kept] == ([token.number] if may else [])

    @precondition(lambda self: any(e.is_uncertain for e in self.active))
    @rule(outcome=st.sampled_from(["sent", "not_sent"]))
    def resolve(self, outcome: str) -> None:
        enrollment = next(e for e in self.active if e.is_uncertain)
        token = enrollment.token
        assert token is not None
        verdict = self.value(
            "select pgdrip.resolve_uncertain(%s, %s)", token.number, outcome
        )
        if outcome == "sent":
            assert verdict == self.advance(enrollment, is_confirmed=True)
            token.told = "sent"
        else:
            self.put_back(enrollment, enrollment.due)
            assert verdict == "retry"
            token.told = "failed"
        token.verdict = verdict

    @rule(sequence=st.sampled_from(sorted(POLICIES)), text=st.sampled_from("abc"))
    def publish(self, sequence: str, text: str) -> None:
        """A new version, for who enters from now on; those in flight keep theirs."""
        in_flight = len([e for e in self.active if e.sequence == sequence])
        (row,) = self.call(
            "select * from pgdrip.apply_sequence(%s)",
            Jsonb(definition(sequence, f"Hi {{{{name|{text}}}}}")),
        )
        assert row["outcome"] in ("published", "unchanged")
        assert (row["in_flight"], row["stays"]) == (in_flight, in_flight)

    @rule(sequence=st.sampled_from(sorted(POLICIES)))
    def pause_sequence(self, sequence: str) -> None:
        changed = self.value("select pgdrip.pause_sequence(%s, 'model')", sequence)
        assert changed is (sequence not in self.paused)
        self.paused.add(sequence)

    @rule(sequence=st.sampled_from(sorted(POLICIES)))
    def resume_sequence(self, sequence: str) -> None:
        changed = self.value("select pgdrip.resume_sequence(%s)", sequence)
        assert changed is (sequence in self.paused)
        self.paused.discard(sequence)

    @rule(is_paused=st.booleans())
    def pause_or_resume_all(self, is_paused: bool) -> None:
        call = "pause_all('model')" if is_paused else "resume_all()"
        assert self.value(f"select pgdrip.{call}") is (self.is_all_paused != is_paused)
        self.is_all_paused = is_paused

    @precondition(lambda self: self.enrollments)
    @rule(data=st.data(), is_paused=st.booleans())
    def pause_or_resume_enrollment(self, data: st.DataObject, is_paused: bool) -> None:
        enrollment = data.draw(st.sampled_from(self.enrollments))
        call = "pause_enrollment(%s, 'model')" if is_paused else "resume_enrollment(%s)"
        changed = self.value(f"select pgdrip.{call}", enrollment.id)
        assert changed is (
            enrollment.status == "active" and enrollment.is_paused != is_paused
        )
        if changed:
            enrollment.is_paused = is_paused

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def exit_enrollment(self, data: st.DataObject) -> None:
        enrollment = data.draw(st.sampled_from(self.active))
        assert self.value("select pgdrip.exit_enrollment(%s, 'model')", enrollment.id)
        self.end(enrollment, "exited")

    @rule(contact=st.integers(2, CONTACTS))
    def suppress(self, contact: int) -> None:
        changed = self.value(
            "select pgdrip.suppress(%s, 'model')", f"+6012345678{contact}"
        )
        assert changed is (contact not in self.suppressed)
        self.suppressed.add(contact)
        for enrollment in self.active:
            if enrollment.contact == contact:
                self.end(enrollment, "exited")

    # Agreement

    def pick(self, data: st.DataObject) -> Token:
        """Any token ever issued, stale ones too; the newest most of the time."""
        numbers = sorted(self.tokens, reverse=True)
        return self.tokens[data.draw(st.sampled_from(numbers[:3] + numbers))]

    def row_of(self, enrollment: Enrollment) -> Row:
        (row,) = self.call(
            "select d.*, e.status, e.last_confirmed_step from pgdrip.enrollments as e"
            " left join pgdrip.due as d using (enrollment_id)"
            " where e.enrollment_id = %s",
            enrollment.id,
        )
        return row

    @invariant()
    def model_and_database_agree(self) -> None:
        rows = self.call(
            "select e.enrollment_id as id, e.status, d.step, d.token,"
            " e.last_confirmed_step as confirmed, d.due_at,"
            " d.parked_reason is not distinct from 'uncertain' as is_uncertain"
            " from pgdrip.enrollments as e left join pgdrip.due as d"
            " using (enrollment_id) order by e.enrollment_id"
        )
        assert rows == [
            {
                "id": e.id,
                "status": e.status,
                "step": e.step if e.status == "active" else None,
                "token": e.token.number if e.token else None,
                "confirmed": e.confirmed,
                "due_at": e.due if e.status == "active" else None,
                "is_uncertain": e.status == "active" and e.is_uncertain,
            }
            for e in self.enrollments
        ]

    @invariant()
    def check_finds_nothing(self) -> None:
        assert self.call("select * from pgdrip.check()") == []


@pytest.fixture
def model(server: Databases) -> Iterator[type[Engine]]:
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection,
    ):
        apply(connection)

        class Connected(Engine):
            pass

        Connected.connection = connection
        yield Connected


def apply(connection: psycopg.Connection[Row]) -> None:
    limits: list[Row] = [
        {"name": "free"},
        {"name": "limited", "rate_per_hour": HOURLY, "burst": 2},
    ]
    for sender in limits:
        connection.execute(
            "select pgdrip.apply_sender(%s)", [Jsonb(sender | {"channel": "log"})]
        )
    for name in POLICIES:
        connection.execute(
            "select pgdrip.apply_sequence(%s)",
            [Jsonb(definition(name, "Hi {{name|there}}") | {"status": "active"})],
        )


def definition(name: str, body: str) -> Row:
    on_failure, on_uncertain = POLICIES[name]
    steps = [
        {
            "day": day,
            "body": body,
            "delay": f"{int(DELAYS[day].total_seconds())} seconds",
            "max_attempts": ATTEMPTS,
            "backoff": f"{int(BACKOFF.total_seconds())} seconds",
            "on_failure": on_failure,
            "on_uncertain": on_uncertain,
        }
        for day in STEPS
    ]
    return {"name": name, "trigger": name, "channel": "log", "steps": steps}


def test_the_database_does_what_the_model_says(model: type[Engine]) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            report_multiple_bugs=False,
        ),
    )
