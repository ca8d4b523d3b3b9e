"""Mutants: the shipped SQL with one safeguard wrong, each killed by a named test.

    python tests/mutants.py [WORD …]    every mutant, or those whose name has a word

Each is played in a copy of the checkout: its test must pass there before the change and
fail after it. Exit 1 where one survives.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from databases import CHECKOUT, Databases, choose
from pgdrip.migrate import migrate

IGNORED = (".*", "__pycache__", "build", "dist")


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is wrong with it; `was`, once in a file of db/, and what stands there now;
    the test that fails."""

    name: str
    file: str
    was: str
    becomes: str
    killer: str

    def apply(self, root: Path) -> None:
        path = root / "db" / self.file
        text = path.read_text()
        if text.count(self.was) != 1:
            raise ValueError(f"{self.name}: {text.count(self.was)} places in {path}")
        path.write_text(text.replace(self.was, self.becomes))


CLAIM = "functions/40_claim.sql"
LOOK = "functions/41_look.sql"
TRIAGE = "functions/42_triage.sql"
SETTLE = "functions/60_settle.sql"
REPORT = "functions/61_report.sql"
ENROLL = "functions/30_enroll.sql"
LIMIT = "functions/24_limit.sql"
BEGIN = "functions/50_begin.sql"

MUTANTS = (
    # What went wrong in the system this one replaces
    Mutant(
        "due times ignored",
        CLAIM,
        """\
and d.due_at between o.floor_at and p_now
          and (d.lease_until is null or d.lease_until <= p_now)
        order by d.due_at limit""",
        """and d.due_at >= o.floor_at
          and (d.lease_until is null or d.lease_until <= p_now)
        order by d.due_at limit""",
        "tests/sql/40_claim.sql::UTC",
    ),
    Mutant(
        "all steps at once",
        SETTLE,
        "then pgdrip.step_due_at(p_now, n, s.number, v.send_window, c.timezone) end,",
        "then p_now end,",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "delays from when the step was due",
        SETTLE,
        "then pgdrip.step_due_at(p_now, n",
        "then pgdrip.step_due_at(d.due_at, n",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "no unique key of live enrollments",
        "migrations/0005.enrollments.sql",
        "create unique index enrollments_one_live",
        "create index enrollments_one_live",
        "tests/sql/30_enroll.sql::UTC",
    ),
    Mutant(
        "contacts not locked by enroll",
        ENROLL,
        "and c.erased_at is null for no key update;",
        "and c.erased_at is null;",
        "tests/test_races.py::test_two_sessions_enroll_one_contact_once",
    ),
    Mutant(
        "triggers matched by substring",
        ENROLL,
        "join pgdrip.sequences as q using (trigger)) as w",
        "join pgdrip.sequences as q on strpos(q.trigger, i.trigger) > 0) as w",
        "tests/sql/30_enroll.sql::UTC",
    ),
    Mutant(
        "triggers left after the last step",
        SETTLE,
        "and e.status = 'completed' and v.removes_trigger)",
        "and e.status = 'failed' and v.removes_trigger)",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "triggers taken from those who still run by them",
        SETTLE,
        "          and o.status = 'active');",
        "          and o.status = 'none');",
        "tests/sql/60_settle.sql::UTC",
    ),
    Mutant(
        "through once, in again",
        ENROLL,
        "when l.ended_at is not null and q.reentry_after is null then 'ended'",
        "when l.ended_at is null and q.reentry_after is null then null",
        "tests/sql/30_enroll.sql::UTC",
    ),
    Mutant(
        "a sender chosen for each enrollment",
        ENROLL,
        "(select e.sender_id from pgdrip.enrollments as e",
        "(select null::bigint from pgdrip.enrollments as e",
        "tests/sql/25_assign.sql::UTC",
    ),
    Mutant(
        "senders never told of new work",
        CLAIM,
        "and (p.next_at is null or t.due_at < p.next_at or t.due_at < p.floor_at);",
        "and t.due_at < p.next_at;",
        "tests/sql/40_claim.sql::UTC",
    ),
    Mutant(
        "a floor that no wake lowers",
        CLAIM,
        ", floor_at = least(p.floor_at, t.due_at)\n",
        "\n",
        "tests/sql/85_wake.sql::UTC",
    ),
    Mutant(
        "a floor above what is leased",
        CLAIM,
        "and d.due_at >= c.floor_at\n       order by d.due_at limit 1) as b",
        "and d.due_at >= c.floor_at and d.lease_until is null\n"
        "       order by d.due_at limit 1) as b",
        "tests/sql/85_wake.sql::UTC",
    ),
    # Two at once
    Mutant(
        "due rows not locked",
        CLAIM,
        """\
        order by d.due_at limit least(500, o.share * p_boost) offset o.skip
          for update skip locked) as d);""",
        """\
        order by d.due_at limit least(500, o.share * p_boost) offset o.skip) as d);""",
        "tests/test_races.py::test_a_claim_passes_by_what_is_being_stopped",
    ),
    Mutant(
        "senders not locked",
        CLAIM,
        "limit v_seats\n       for no key update of p skip locked);",
        "limit v_seats);",
        "tests/test_negative_controls.py::"
        "test_two_claims_share_the_allowance_of_a_sender",
    ),
    Mutant(
        "tokens not looked at by report",
        REPORT,
        "select d.token = g.token and d.awaits is null",
        "select d.token is not null and d.awaits is null",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "tokens not looked at by begin_send",
        BEGIN,
        """\
     where d.enrollment_id = i.enrollment_id and d.token = i.token
       and d.lease_until > v_now and d.send_by >= v_now""",
        """\
     where d.enrollment_id = i.enrollment_id
       and d.lease_until > v_now and d.send_by >= v_now""",
        "tests/sql/50_begin.sql::UTC",
    ),
    Mutant(
        "sends begun after their time",
        BEGIN,
        "       and d.lease_until > v_now and d.send_by >= v_now",
        "",
        "tests/sql/50_begin.sql::UTC",
    ),
    # What was sent, and what nobody knows
    Mutant(
        "a late sent dropped",
        REPORT,
        "when v_told = 'uncertain' and p_outcome = 'sent' and p_story.token >> 40",
        "when v_told = 'uncertain' and p_outcome = 'none' and p_story.token >> 40",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "an unknown error taken for a failure",
        REPORT,
        "case when i.outcome = 'failed' and x.class is null then 'uncertain'",
        "case when i.outcome = 'none' and x.class is null then 'uncertain'",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "the uncertain sent again",
        REPORT,
        "or p_outcome = 'uncertain' and p_step.on_uncertain = 'retry') then 'retry'",
        "or p_outcome = 'uncertain') then 'retry'",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "tries without end",
        REPORT,
        "when k.tried < p_step.max_attempts\n",
        "when true\n",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "tries without a pause",
        REPORT,
        "when m.move = 'retry' then p_now + (0.75 + random() / 2) * least",
        "when m.move = 'retry' then p_now + 0 * least",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "a fault of the sender burns an attempt",
        SETTLE,
        "then d.attempt - (d.begun_at is not null)::integer",
        "then d.attempt",
        "tests/sql/61_report.sql::UTC",
    ),
    Mutant(
        "tokens of a restored database believed",
        REPORT,
        "\n                                and g.token >> 40 = c.epoch) as f(fits)",
        ") as f(fits)",
        "tests/sql/80_operate.sql::UTC",
    ),
    Mutant(
        "commits not flushed",
        "functions/01_guard.sql",
        "perform set_config('synchronous_commit', 'on', true);",
        "",
        "tests/sql/01_guard.sql::UTC",
    ),
    # What must not go out
    Mutant(
        "the suppressed claimed",
        LOOK,
        "               then 'suppressed'",
        "               then null",
        "tests/sql/40_claim.sql::UTC",
    ),
    Mutant(
        "the suppressed begun",
        BEGIN,
        "                 then 'suppressed'",
        "                 then null",
        "tests/sql/50_begin.sql::UTC",
    ),
    Mutant(
        "paused sequences claimed",
        LOOK,
        "when q.status = 'paused' then 'sequence_paused'",
        "",
        "tests/test_claim.py::test_rows_parked_by_a_pause_come_back_by_a_resume",
    ),
    Mutant(
        "windows ignored",
        LOOK,
        "when o.until > p_now then 'closed'",
        "",
        "tests/sql/40_claim.sql::UTC",
    ),
    Mutant(
        "caps ignored",
        LOOK,
        "when r.free_at > p_now then 'capped'",
        "",
        "tests/sql/63_steps.sql::UTC",
    ),
    # Limits
    Mutant(
        "an hour of the clock instead of any hour",
        LIMIT,
        "else greatest(p_pace.tat, p_now) + make_interval(secs => case",
        "else date_trunc('hour', p_now) + make_interval(secs => case",
        "tests/test_negative_controls.py::test_no_hour_holds_more_than_the_rate",
    ),
    Mutant(
        "the time between claim and send forgotten",
        LIMIT,
        "ceil(3610000000::double precision",
        "ceil(3600000000::double precision",
        "tests/sql/24_limit.sql::UTC",
    ),
    Mutant(
        "a day one slot short",
        LIMIT,
        "least(25, greatest(0, 25 - (p_now_slot - p_slot)))",
        "least(24, greatest(0, 24 - (p_now_slot - p_slot)))",
        "tests/sql/24_limit.sql::UTC",
    ),
    Mutant(
        "a sender that is down gets all its work",
        LIMIT,
        "or p_sender.health = 'down' then 1 end",
        "then 1 end",
        "tests/sql/24_limit.sql::UTC",
    ),
)


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    with choose(os.environ).start() as dsn:
        os.environ["PGDRIP_TEST_DATABASE_URL"] = dsn
        os.environ.pop("PGDRIP_PG", None)
        with copy() as root:
            if out := failing(root, sorted({m.killer for m in chosen})):
                print(f"without a mutant these fail:\n{out}")
                return 1
        survivors = [mutant for mutant in chosen if not is_killed(mutant, dsn)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed")
    return 1 if survivors else 0


def is_killed(mutant: Mutant, dsn: str) -> bool:
    began_at = time.monotonic()
    with copy() as root:
        mutant.apply(root)
        with Databases(dsn).empty() as database:
            migrate(database, root=root / "db")  # it can be installed
        out = failing(root, [mutant.killer])
    facts = re.findall(r"^(?:not ok \d+ - |FAILED .*\.py::)(.*)", out, re.MULTILINE)
    seconds = time.monotonic() - began_at
    print(f"{'killed' if out else 'SURVIVES':9}{mutant.name} ({seconds:.0f} s)")
    for line in [mutant.killer, *facts[:2]]:
        print(f"{'':11}{line}", flush=True)
    return bool(out)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the checkout, without what was made there."""
    with TemporaryDirectory() as name:
        root = Path(name) / "checkout"
        shutil.copytree(CHECKOUT, root, ignore=shutil.ignore_patterns(*IGNORED))
        yield root


def failing(root: Path, tests: Sequence[str]) -> str:
    """What pytest prints of tests that fail in a copy; empty: they pass."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-rf",
            "-p",
            "no:cacheprovider",
            *tests,
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "runner")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1}:
        raise RuntimeError(f"pytest {tests}: {done.stdout}{done.stderr}")
    return done.stdout if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
