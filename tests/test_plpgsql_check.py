"""plpgsql_check over every PL/pgSQL function of the schema, with all its warnings."""

import psycopg
from psycopg.rows import DictRow

from conftest import Extension

FINDINGS = """
select format('%s line %s: %s %s', c.functionid, c.lineno, c.level, c.message)
         as finding
  from pg_catalog.pg_proc p
  join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
 cross join lateral plpgsql_check_function_tb(
         p.oid, fatal_errors => false, other_warnings => true, extra_warnings => true,
         performance_warnings => false, security_warnings => true) c
 where p.pronamespace = 'pgdrip'::regnamespace
   and p.prorettype <> 'trigger'::regtype
 order by 1
"""


def test_plpgsql_check_finds_nothing(
    db: psycopg.Connection[DictRow], extension: Extension
) -> None:
    extension(db, "plpgsql_check")
    with db.transaction():
        # Tables of the session that functions work on.
        db.execute("select pgdrip.stage_import(), pgdrip.stage_adoption()")
        db.execute("select pgdrip.stage_bucket(0)")
        db.execute("create temp table bucket_enrollments (content jsonb)")
        assert [row["finding"] for row in db.execute(FINDINGS)] == []


def test_plpgsql_check_would_find_something(
    db: psycopg.Connection[DictRow], extension: Extension
) -> None:
    extension(db, "plpgsql_check")
    db.execute(
        "create function pgdrip.wrong() returns integer language plpgsql"
        " as $$ begin return missing_column from pgdrip.control; end $$"
    )
    findings = [row["finding"] for row in db.execute(FINDINGS)]
    assert any("missing_column" in finding for finding in findings)
