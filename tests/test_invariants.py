"""Where each invariant is kept, and the test that would notice if it were not."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

TESTS = Path(__file__).parent
# What keeps it (a constraint, a line of check(), a function), and who proves it.
PROOFS = {
    "ONE_LIVE_STEP": ("due_pkey", "sql/90_check.sql", "ONE_LIVE_STEP"),
    "STEP_ONCE": ("check", "sql/90_check.sql", "STEP_ONCE"),
    "STEP_ORDER": ("check", "sql/90_check.sql", "STEP_ORDER"),
    "NOT_BEFORE_DUE": ("check", "sql/90_check.sql", "NOT_BEFORE_DUE"),
    "DELAY_EXACT": ("check", "sql/90_check.sql", "DELAY_EXACT"),
    "ADVANCE_ONLY_ON_CONFIRM": (
        "check",
        "sql/90_check.sql",
        "ADVANCE_ONLY_ON_CONFIRM",
    ),
    "NO_STUCK_ENROLLMENT": ("check", "sql/90_check.sql", "NO_STUCK_ENROLLMENT"),
    "TERMINAL_HAS_NO_DUE": ("check", "sql/90_check.sql", "TERMINAL_HAS_NO_DUE"),
    "ATOMIC_ENROLL": ("admit", "sql/30_enroll.sql", "ATOMIC_ENROLL"),
    "EXACT_TRIGGER": ("enter_by_trigger", "sql/30_enroll.sql", "EXACT_TRIGGER"),
    "TRIGGER_REMOVAL_EXACT": ("check", "sql/90_check.sql", "TRIGGER_REMOVAL_EXACT"),
    "ENTRY_NOT_EMPTY": (
        "sequences_trigger_not_blank",
        "sql/30_enroll.sql",
        "ENTRY_NOT_EMPTY",
    ),
    "FULL_AUDIENCE": ("enroll_waiting", "sql/30_enroll.sql", "FULL_AUDIENCE"),
    "QUARANTINE_POISON": ("triage", "sql/40_claim.sql", "QUARANTINE_POISON"),
    "N_RUNNERS_SAFE": (
        "lock_due",
        "test_claim.py",
        "test_two_claimers_never_wait_and_never_share_a_message",
    ),
    "FENCED_REPORT": (
        "judge",
        "test_seeds.py",
        "test_a_report_with_a_stale_token_never_advances",
    ),
    "UNCERTAIN_NOT_RESENT": ("check", "sql/90_check.sql", "UNCERTAIN_NOT_RESENT"),
    "SENDER_FAULT_FREE": (
        "mark_senders",
        "test_seeds.py",
        "test_1487_device_faults_fail_no_message",
    ),
    "RATE_AT_CLAIM": ("check", "sql/90_check.sql", "RATE_AT_CLAIM"),
    "NO_WORK_HELD_WHILE_SLEEPING": (
        "check",
        "sql/90_check.sql",
        "NO_WORK_HELD_WHILE_SLEEPING",
    ),
    "UTC_ONLY": (
        "after_span",
        "test_seeds.py",
        "test_nine_in_kuala_lumpur_is_nine_there_in_any_session",
    ),
    "IN_WINDOW": ("check", "sql/90_check.sql", "IN_WINDOW"),
    "OVERDUE_SENT_OR_EXPIRED": (
        "triage",
        "test_seeds.py",
        "test_no_row_is_too_old_to_be_claimed",
    ),
    "SUPPRESSED_NEVER_SENT": ("check", "sql/90_check.sql", "SUPPRESSED_NEVER_SENT"),
    "SCOPE_OF_FAILURE": (
        "settle",
        "test_seeds.py",
        "test_one_failure_fails_one_enrollment_and_no_other",
    ),
    "FAILURE_HAS_CLASS": (
        "deliveries_failure_has_class",
        "sql/90_check.sql",
        "FAILURE_HAS_CLASS",
    ),
    "LEDGER_SUMS": ("check", "sql/87_retention.sql", "LEDGER_SUMS"),
    "RECIPIENT_VERBATIM": ("recipient", "sql/40_claim.sql", "RECIPIENT_VERBATIM"),
    "CONTENT_HASH": ("check", "sql/90_check.sql", "CONTENT_HASH"),
    "VERSION_HANDSHAKE": (
        "schema_version",
        "test_runner_outage.py",
        "test_a_schema_it_does_not_know_is_refused_and_nothing_claimed",
    ),
    "HISTORY_IMMUTABLE": ("deliveries", "sql/90_check.sql", "HISTORY_IMMUTABLE"),
    "NO_DEAD_OPTION": (
        "claim",
        "test_options.py",
        "test_every_setting_is_read_by_a_function_and_named_in_a_test",
    ),
}


@pytest.mark.parametrize("invariant", sorted(PROOFS))
def test_the_invariant_has_a_keeper_and_a_test(
    db: psycopg.Connection[Any], invariant: str
) -> None:
    keeper, file, proof = PROOFS[invariant]
    if keeper == "check":
        found = (
            "select from pgdrip.control where exists (select from pg_catalog.pg_proc"
        )
        found += " where proname like 'check%%' and prosrc like %s)"
        assert db.execute(found, [f"%{invariant}%"]).fetchall()
    else:
        found = "select from pg_catalog.pg_constraint where conname = %(name)s"
        found += " union all select from pg_catalog.pg_class where relname = %(name)s"
        found += " union all select from pg_catalog.pg_proc where proname = %(name)s"
        assert db.execute(found, {"name": keeper}).fetchall()
    assert re.search(rf"\b{proof}\b", (TESTS / file).read_text())
