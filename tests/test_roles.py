"""Who may do what: the privileges of each role, tried both ways."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import stage
from commands import invoke
from databases import Databases
from pgdrip.migrate import apply_test_clock, migrate
from pgdrip.postgres import Server, find_binaries
from stage import Db

# Views call these with the rights of whoever reads them.
OF_VIEWS = set(
    "day_span hourly_rate is_unlocked mask ramp_rate receipt_rank recipient"
    " sees_people shown slot_at slot_counts".split()
)
READER = OF_VIEWS | set(
    "check clock forecast metrics minute_tally schema_version".split()
)
RUNNER = set(
    "begin_send claim clock heartbeat next_wake release report schema_version"
    " tick".split()
)
APP = set(
    "add_trigger clock enroll enroll_waiting explain_enroll find_contact"
    " import_contacts merge_import record_event record_receipt record_reply"
    " remove_trigger schema_version stage_import suppress upsert_contact"
    " is_suppressed knows_address knows_message".split()
)
OPERATOR = set(
    "activate_sequence apply_group apply_sender apply_sequence archive_sequence"
    " assert_cron cron_jobs"
    " delete_sender erase_contact exit_enrollment explain_contact export_contact"
    " export_definitions forget_address maintain move_sender note pause_all"
    " pause_enrollment"
    " pause_sender pause_sequence record_probe resolve_uncertain resume_all"
    " resume_enrollment resume_sender resume_sequence retire_sender retry_failed"
    " schedule_jobs senders_to_probe set_retention simulate tally tick_for_a_minute"
    " uncertain_sends unlock unschedule_jobs unsuppress".split()
)
MAY = {
    "pgdrip_reader": READER,
    "pgdrip_runner": RUNNER,
    "pgdrip_app": APP,
    "pgdrip_operator": READER | RUNNER | APP | OPERATOR,
}
DENIED = "42501"

each_role = pytest.mark.parametrize("role", MAY)


@contextmanager
def acting_as(db: Db, role: str) -> Iterator[None]:
    db.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        db.execute("reset role")


def sqlstate(db: Db, statement: str) -> str | None:
    """What a statement fails with, undone whatever it does."""
    try:
        with db.transaction(force_rollback=True):
            db.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


def routines(db: Db) -> dict[str, str]:
    """A call of each with nothing but NULLs, which the planner does not foresee."""
    rows = db.execute(
        "select proname, array(select format_type(t, null)"
        "                        from unnest(proargtypes) as t) as types"
        "  from pg_catalog.pg_proc"
        " where pronamespace = 'pgdrip'::regnamespace and prokind = 'f'"
    ).fetchall()
    calls = {}
    for row in rows:
        arguments = ", ".join(f"a{n}" for n in range(len(row["types"])))
        nulls = ", ".join(f"null::{one} as a{n}" for n, one in enumerate(row["types"]))
        calls[row["proname"]] = (
            f"select pgdrip.{row['proname']}({arguments})"
            f" from (select {nulls} offset 0) as x"
        )
    return calls


def relations(db: Db, kinds: str) -> list[str]:
    rows = db.execute(
        "select oid::regclass::text as name from pg_catalog.pg_class"
        " where relnamespace = 'pgdrip'::regnamespace and relkind::text = any (%s)",
        [list(kinds)],
    )
    return [row["name"] for row in rows]


@each_role
def test_a_role_may_call_its_functions_and_no_other(db: Db, role: str) -> None:
    for name, call in routines(db).items():
        with acting_as(db, role):
            is_denied = sqlstate(db, call) == DENIED
        assert is_denied == (name not in MAY[role]), name


@each_role
def test_the_catalog_says_the_same(db: Db, role: str) -> None:
    rows = db.execute(
        "select proname from pg_catalog.pg_proc"
        " where pronamespace = 'pgdrip'::regnamespace"
        "   and has_function_privilege(%s, oid, 'execute')",
        [role],
    )
    assert {row["proname"] for row in rows} == MAY[role]


@each_role
def test_no_role_reads_or_writes_a_table(db: Db, role: str) -> None:
    tables = relations(db, "rp")
    assert len(tables) > 25
    for name in tables:
        with acting_as(db, role):
            for statement in (
                f"select from {name}",
                f"insert into {name} default values",
                f"delete from {name}",
                f"truncate {name}",
                f"lock table {name}",
                f"drop table {name}",
            ):
                assert sqlstate(db, statement) == DENIED, statement
    rights = db.execute(
        "select c.oid::regclass as name, p.privilege from pg_catalog.pg_class as c,"
        " unnest('{select,insert,update,delete,truncate,references,trigger}'::text[])"
        "   as p(privilege)"
        " where relnamespace = 'pgdrip'::regnamespace and relkind in ('r', 'p')"
        "   and (has_table_privilege(%(role)s, c.oid, p.privilege)"
        "     or p.privilege in ('select', 'insert', 'update', 'references')"
        "    and has_any_column_privilege(%(role)s, c.oid, p.privilege))",
        {"role": role},
    ).fetchall()
    assert rights == []


@each_role
def test_views_are_for_readers(db: Db, role: str) -> None:
    views = relations(db, "v")
    assert len(views) > 10
    for name in views:
        with acting_as(db, role):
            denied = sqlstate(db, f"select * from {name}") == DENIED
            assert denied == (role in {"pgdrip_runner", "pgdrip_app"}), name
            assert sqlstate(db, f"delete from {name}") in {DENIED, "55000"}


@each_role
def test_no_role_makes_anything_in_the_schema(db: Db, role: str) -> None:
    with acting_as(db, role):
        assert sqlstate(db, "create table pgdrip.mine ()") == DENIED
        assert sqlstate(db, "alter function pgdrip.clock() volatile") == DENIED
        assert sqlstate(db, "select nextval('pgdrip.token_seq')") == DENIED
        assert sqlstate(db, "select pgdrip.set_clock('2030-01-01 00:00Z')") == DENIED
    is_owner = "select pg_has_role(%s, 'pgdrip_owner', 'member') as yes"
    assert stage.one(db, is_owner, [role]) == {"yes": False}


def test_a_stranger_may_do_nothing(db: Db) -> None:
    db.execute("create role pgdrip_test_stranger")
    try:
        with acting_as(db, "pgdrip_test_stranger"):
            assert sqlstate(db, "select pgdrip.clock()") == DENIED
            assert sqlstate(db, "select from pgdrip.queue_health") == DENIED
    finally:
        db.execute("drop role pgdrip_test_stranger")


def test_what_the_owner_adds_by_hand_is_closed(db: Db) -> None:
    with acting_as(db, "pgdrip_owner"):
        db.execute("create function pgdrip.new() returns int return 1")
    with acting_as(db, "pgdrip_operator"):
        assert sqlstate(db, "select pgdrip.new()") == DENIED


def test_the_owner_adds_to_the_journal_and_takes_nothing_from_it(db: Db) -> None:
    with acting_as(db, "pgdrip_owner"):
        for statement in (
            "delete from pgdrip.deliveries",
            "truncate pgdrip.deliveries",
            "update pgdrip.deliveries set verdict = 'advanced'",
        ):
            assert sqlstate(db, statement) == DENIED
        assert sqlstate(db, "update pgdrip.deliveries set detail = null") is None


def test_each_role_does_its_part_of_the_whole(db: Db) -> None:
    with acting_as(db, "pgdrip_operator"):
        stage.sender(db)
        stage.sequence(db)
    with acting_as(db, "pgdrip_app"):
        stage.lead(db)
    with acting_as(db, "pgdrip_runner"):
        db.execute("select pgdrip.tick('runner-1', '1')")
        messages = stage.claim(db)
        assert stage.begin(db, messages) == [messages[0]["token"]]
        verdicts = stage.report(db, messages, "sent")
    assert verdicts == ["advanced"]
    seen = (
        "select recipient, current_state from pgdrip.sequence_progress where step = 1"
    )
    with acting_as(db, "pgdrip_reader"):
        assert stage.one(db, seen) == {"recipient": "+60…01", "current_state": "Sent"}
    with acting_as(db, "pgdrip_operator"):
        assert stage.one(db, seen)["recipient"] == messages[0]["recipient"]
    assert stage.violations(db) == []


def test_readers_see_no_address_and_no_name(db: Db) -> None:
    stage.lead(db)
    db.execute(
        "update pgdrip.contacts set name = 'Jane Doe', email = 'jane@example.com',"
        ' attributes = \'{"city": "Ipoh"}\''
    )
    with acting_as(db, "pgdrip_reader"):
        row = stage.one(db, "select * from pgdrip.contact_details")
    assert (row["phone"], row["email"]) == ("+60…01", "j…@example.com")
    assert (row["name"], row["attributes"]) == ("J…", {})


# What a caller brings along


SHADOWS = [
    "create temp table {table} (like pgdrip.{table})",
    "create temp view now as select 1",
    "create domain pg_temp.bigint as text",
    "create domain pg_temp.timestamptz as text",
    "create function pg_temp.clock() returns timestamptz return '2000-01-01 00:00Z'",
    "create function pg_temp.assert_working() returns void language plpgsql as"
    " 'begin raise exception $$borrowed$$; end'",
    "create function pg_temp.count(bigint) returns bigint return 0",
    "create function pg_temp.gt(timestamptz, timestamptz) returns boolean return false",
    "create operator pg_temp.> (leftarg = timestamptz, rightarg = timestamptz,"
    " function = pg_temp.gt)",
]


@each_role
def test_what_a_caller_makes_in_pg_temp_is_not_taken_for_the_engines(
    db: Db, role: str
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    with acting_as(db, role):
        for statement in SHADOWS[1:]:
            db.execute(statement.encode())
    for table in ("due", "contacts", "control", "senders", "suppressions", "steps"):
        db.execute(SHADOWS[0].format(table=table).encode())
        db.execute(f"alter table pg_temp.{table} owner to {role}".encode())
    db.execute("set search_path = pg_temp, pgdrip, pg_catalog")
    if "claim" in MAY[role]:
        with acting_as(db, role):
            assert len(stage.claim(db)) == 3
    if "upsert_contact" in MAY[role]:
        with acting_as(db, role):
            assert stage.lead(db, 77) > 3
    if "check" in MAY[role]:
        with acting_as(db, role):
            assert stage.violations(db) == []
    assert stage.one(db, "select count(*) as n from pg_temp.contacts") == {"n": 0}


# Migrating as somebody who is no superuser


@contextmanager
def role_with(db: Db, name: str, rights: str) -> Iterator[None]:
    db.execute(f"create role {name} login password 'secret' {rights}".encode())
    try:
        yield
    finally:
        db.execute(f"drop role {name}".encode())


def owned_by(dsn: str, role: str, server: Databases) -> str:
    """The DSN of that role for a database that belongs to it."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        name = conninfo_to_dict(dsn)["dbname"]
        connection.execute(f"alter database {name} owner to {role}".encode())
    return make_conninfo(dsn, user=role, password="secret")


def test_who_may_not_make_roles_migrates_all_the_same(
    server: Databases, db: Db, empty: str
) -> None:
    with role_with(db, "pgdrip_test_plain", ""):
        dsn = owned_by(empty, "pgdrip_test_plain", server)
        migrate(dsn)
        migrate(dsn)
        apply_test_clock(dsn)
        with psycopg.connect(dsn, autocommit=True) as own:
            assert own.execute("select count(*) from pgdrip.check()").fetchone() == (0,)
            public = own.execute(
                "select count(*) from pg_catalog.pg_proc"
                " where pronamespace = 'pgdrip'::regnamespace"
                "   and has_function_privilege('public', oid, 'execute')"
            ).fetchone()
        assert public == (0,)
        owned_by(empty, "postgres", server)
        with psycopg.connect(empty, autocommit=True) as connection:
            connection.execute("drop owned by pgdrip_test_plain cascade")


def test_who_is_granted_the_owner_migrates_for_it(
    server: Databases, db: Db, empty: str
) -> None:
    with role_with(db, "pgdrip_test_member", "in role pgdrip_owner"):
        dsn = owned_by(empty, "pgdrip_test_member", server)
        migrate(dsn)
        migrate(dsn)
        with psycopg.connect(empty) as connection:
            owners = connection.execute(
                "select distinct relowner::regrole::text from pg_catalog.pg_class"
                " where relnamespace = 'pgdrip'::regnamespace"
            ).fetchall()
            assert owners == [("pgdrip_owner",)]
        owned_by(empty, "postgres", server)
        with psycopg.connect(empty, autocommit=True) as connection:
            connection.execute("drop owned by pgdrip_test_member cascade")


def test_two_first_migrations_of_one_server_make_the_roles_together() -> None:
    binaries = find_binaries("local") or find_binaries("embedded")
    assert binaries is not None
    with Server(binaries) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            for name in "abc":
                connection.execute(f"create database {name}".encode())
        failures: list[Exception] = []

        def first(name: str) -> None:
            try:
                migrate(make_conninfo(server.dsn, dbname=name))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=first, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_login_with_the_runners_role_runs(dsn: str, db: Db, tmp_path: Path) -> None:
    stage.sender(db, channel="log", config={"file": str(tmp_path / "sent")})
    stage.sequence(db, channel="log")
    stage.leads(db, 5)
    with role_with(db, "pgdrip_test_runner", "in role pgdrip_runner"):
        mine = make_conninfo(dsn, user="pgdrip_test_runner", password="secret")
        done = invoke("run", "--once", "--channels", "log", PGDRIP_DSN=mine)
    assert done.exit_code == 0, done.output
    sent = "select count(*) as n from pgdrip.deliveries where event = 'sent'"
    assert stage.one(db, sent) == {"n": 5}


@pytest.mark.parametrize(
    ("role", "commands"),
    [
        (
            "pgdrip_operator",
            "export definitions|export contacts|export deliveries|export progress"
            "|status|senders|failures|uncertain|funnel WARM|check|explain contact 1"
            "|simulate WARM|forecast WARM 5|person show 1|pause all --reason x"
            "|person erase 1 --reason x --yes",
        ),
        (
            "pgdrip_reader",
            "export contacts|export progress|status|senders|failures|uncertain"
            "|funnel WARM|check|forecast WARM 5",
        ),
        (
            "pgdrip_app",
            "import FILE|enroll WARM 1|suppress +60110000001 --reason x --yes",
        ),
    ],
)
def test_a_login_with_a_role_has_its_commands(
    dsn: str, db: Db, tmp_path: Path, role: str, commands: str
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("phone,name,trigger\n+60123456789,Aisyah,WARM\n")
    stage.sender(db)
    stage.sequence(db, "WARM")
    stage.lead(db, p_email="jane@example.com", p_name="Jane Doe")
    name = f"{role}_test"
    with role_with(db, name, f"in role {role}"):
        mine = make_conninfo(dsn, user=name, password="secret")
        for command in commands.split("|"):
            words = command.replace("FILE", str(file)).split()
            done = invoke(*words, PGDRIP_DSN=mine)
            assert done.exit_code == 0, (command, done.output)
            if role == "pgdrip_reader":
                assert "+6011" not in done.output
                assert "jane@" not in done.output


def test_the_sql_of_the_roles_can_be_printed(db: Db) -> None:
    printed = invoke("roles", "--sql", "--migrator", 'de "ploy')
    assert printed.exit_code == 0
    assert 'grant pgdrip_owner to "de ""ploy"' in printed.stdout
    with db.transaction(force_rollback=True):
        db.execute('create role "de ""ploy"')
        db.execute(printed.stdout.encode())
        is_member = "select pg_has_role('de \"ploy', 'pgdrip_owner', 'member') as yes"
        assert stage.one(db, is_member) == {"yes": True}


def test_a_callers_table_is_not_taken_for_that_of_an_import(db: Db) -> None:
    db.execute(
        "create function public.pgdrip_test_trap() returns trigger language plpgsql as"
        " 'begin raise exception $$ran as %$$, current_user; end'"
    )
    with acting_as(db, "pgdrip_app"), db.transaction(force_rollback=True):
        db.execute("create temp table import_lines (phone text, reason text)")
        db.execute(
            "create trigger trap before truncate on pg_temp.import_lines"
            " execute function public.pgdrip_test_trap()"
        )
        db.execute("grant all on pg_temp.import_lines to pgdrip_owner")
        assert sqlstate(db, "select pgdrip.stage_import()") == "MD003"
        assert sqlstate(db, "select pgdrip.merge_import()") == "MD003"


def test_a_line_of_an_import_does_not_choose_its_contact(db: Db) -> None:
    with acting_as(db, "pgdrip_app"), db.transaction(force_rollback=True):
        db.execute("select pgdrip.stage_import()")
        for column in ("contact_id", "field", "reason"):
            insert = f"insert into pg_temp.import_lines ({column}) values (null)"
            assert sqlstate(db, insert) == DENIED


def test_two_lines_of_an_import_with_one_number_end_it(db: Db) -> None:
    db.execute("set statement_timeout = '10s'")
    with acting_as(db, "pgdrip_app"), db.transaction(force_rollback=True):
        db.execute("select pgdrip.stage_import()")
        db.execute(
            "insert into pg_temp.import_lines (line, phone)"
            " values (1, '+60199999977'), (1, '+60199999977')"
        )
        assert sqlstate(db, "select pgdrip.merge_import()") == "22023"


def test_a_callers_date_style_moves_no_month_of_the_history(db: Db) -> None:
    db.execute("select pgdrip.set_clock('2031-03-05 00:00Z')")
    db.execute("set timezone = 'Asia/Kolkata'")
    db.execute("set datestyle = 'SQL, DMY'")
    with acting_as(db, "pgdrip_runner"):
        db.execute("select pgdrip.tick('runner-1', '1')")
    db.execute("set timezone = 'UTC'")
    db.execute("reset datestyle")
    bound = stage.one(
        db,
        "select pg_get_expr(relpartbound, oid) as text from pg_catalog.pg_class"
        " where oid = 'pgdrip.deliveries_2031_03'::regclass",
    )
    assert "('2031-03-01 00:00:00+00')" in bound["text"]


def test_who_may_make_roles_migrates_for_the_owner() -> None:
    binaries = find_binaries("embedded") or find_binaries("local")
    assert binaries is not None
    with Server(binaries) as own:
        with psycopg.connect(own.dsn, autocommit=True) as connection:
            connection.execute('create role "De-Ploy" login createrole')
            connection.execute('create database a owner "De-Ploy"')
        dsn = make_conninfo(own.dsn, dbname="a", user="De-Ploy")
        migrate(dsn)
        migrate(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("select pgdrip.stage_import()")
            owner = connection.execute(
                "select relowner::regrole::text from pg_catalog.pg_class"
                " where oid = 'pgdrip.contacts'::regclass"
            ).fetchone()
        assert owner == ("pgdrip_owner",)
