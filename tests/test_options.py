"""No dead options: each setting is read by a function and named in a test."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

TESTS = Path(__file__).parent
SETTINGS = {
    "senders": "config secret rate_per_hour rate_per_day burst gap_min gap_max ramp"
    " hours group_id fault_threshold failover_after advance_on confirm_within"
    " on_unconfirmed",
    "sender_groups": "rate per distinct_contacts_per_day",
    "sequences": "trigger pool channel status reentry_after in_flight priority",
    "sequence_versions": "send_window stop_on_reply removes_trigger adds_trigger goal"
    " exit_when cap_max cap_per on_cap",
    "steps": "delay send_at body subject content required max_attempts backoff"
    " on_failure on_uncertain on_missing expire_after on_expire only_if skip_if"
    " variants wait_event wait_timeout then_step else_step",
}
# Where definitions are read and stored; reading a setting there is no use of it.
WRITERS = "^(read_|apply_|publish_|definition_|assert_|compile_|step_content)"
STATE = {
    "sender_groups": "group_id name limits_at slot slot_counts day_slot contact_counts"
    " ready_at",
    "senders": "sender_id name pool channel is_limited status status_reason health"
    " faults fault_at down_at moves_to deleted_at last_error started_at limits_at",
    "sequences": "sequence_id name paused_at paused_reason version_id",
    "sequence_versions": "version_id sequence_id number definition first_step"
    " published_at",
    "steps": "version_id number next_step",
}
# As a definition says it, where that differs from the column.
KEYS = {
    "group_id": "group",
    "reentry_after": "reentry",
    "send_window": "window",
    "removes_trigger": "remove_trigger",
    "adds_trigger": "add_trigger",
    "cap_max": "max",
    "cap_per": "per",
    "send_at": "at",
    "content": "html",
    "required": "on_missing",
    "wait_event": "event",
    "wait_timeout": "timeout",
    "then_step": "then",
    "else_step": "else",
}


@pytest.mark.parametrize("table", sorted(SETTINGS))
def test_every_setting_is_read_by_a_function_and_named_in_a_test(
    db: psycopg.Connection[Any], table: str
) -> None:
    columns = db.execute(
        "select attname from pg_catalog.pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
        [f"pgdrip.{table}"],
    ).fetchall()
    settings = SETTINGS[table].split()
    assert {row["attname"] for row in columns} == {*settings, *STATE[table].split()}

    tests = "".join(path.read_text() for path in TESTS.rglob("*.sql"))
    tests += "".join(
        path.read_text() for path in TESTS.glob("*.py") if path != Path(__file__)
    )
    for setting in settings:
        readers = db.execute(
            "select proname from pg_catalog.pg_proc"
            " where pronamespace = 'pgdrip'::regnamespace and proname !~ %s"
            " and coalesce(pg_get_function_sqlbody(oid), prosrc) ~ %s",
            [WRITERS, rf"\.{setting}\M"],
        ).fetchall()
        assert readers, f"no function reads {table}.{setting}"
        assert f'"{KEYS.get(setting, setting)}"' in tests, f"no test names {setting}"
