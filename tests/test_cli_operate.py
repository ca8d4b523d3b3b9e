"""The commands of an operator: each is the SQL it prints, and asks before the worst."""

import json
from pathlib import Path

import click
import psycopg
import pytest

import stage
from commands import CONTACT, SENDER, SEQUENCE, Database, Run, invoke, on, told
from pgdrip import cli

COMMANDS = [
    "pause sequence WARM --reason r",
    "pause sender device-1 --reason r",
    "pause enrollment 1 --reason r",
    "pause all --reason r",
    "resume sequence WARM --keep-remaining",
    "resume sender device-1",
    "resume enrollment 1",
    "resume all",
    "activate WARM",
    "archive WARM",
    "enroll WARM +60123456789 --at 2026-02-01",
    "exit 1 --reason r",
    "suppress +60123456789 --reason r",
    "unsuppress +60123456789 --reason r",
    "person show +60123456789",
    "person erase +60123456789 --reason r",
    "retry 1 --reason r",
    "resolve 1 sent",
    "unlock --reason r",
    "sender retire device-1 --move-to default",
    "sender move device-1 sales",
    "sender delete device-1",
    "explain contact +60123456789",
    "explain enrollment 1",
    "explain enroll WARM 1",
    "simulate WARM",
    "simulate WARM --start 2026-02-01T10:00 --contact 1",
    "forecast WARM 100",
    "status",
    "failures --sequence WARM --sender device-1 --since 1h",
    "uncertain --sequence WARM",
    "senders --pool default --channel log",
    "funnel WARM",
    "check",
    "export definitions",
    "export contacts",
    "export deliveries",
    "export progress",
    "retention show",
    "retention set 365d --detach",
    "retention off",
]
# Commands that take more than one statement to answer, or none that is known before.
NO_SQL = {
    "migrate": "the files of db/migrations and db/functions",
    "roles": "--sql prints it",
    "verify": "compares the catalog with those files",
    "doctor": "looks at the catalog and the server",
    "demo": "plays on a database of its own",
    "completion": "needs no database",
    "validate": "needs no database",
    "adopt": "a program of statements; --dry-run says what it would do",
    "run": "claims and reports until it is stopped",
    "serve": "answers requests until it is stopped",
    "probe": "records what gateways answer",
    "reconcile": "records what gateways answer",
    "shard init": "the files of db/router",
    "shard apply": "what `apply` prints, on every shard",
}
# Commands whose answer is no data.
NO_JSON = {
    "roles": "a line for each role",
    "demo": "is for the eye",
    "completion": "is a script",
    "validate": "is the exit code, and a line for each mistake",
    "export": "has formats of its own",
    "run": "logs in JSON",
    "serve": "logs in JSON",
    "top": "is for the eye; status and senders have its data",
    "healthcheck": "is the exit code",
}


@pytest.fixture
def run(dsn: str) -> Run:
    return on(dsn)


@pytest.fixture
def enrolled(run: Run, tmp_path: Path) -> int:
    """A contact in a sequence; the id of its enrollment."""
    file = tmp_path / "warm.yaml"
    file.write_text(SEQUENCE + SENDER.replace("FILE", str(tmp_path / "log")))
    assert run("apply", file).exit_code == 0
    assert run("import", "-", stdin=CONTACT).exit_code == 0
    return int(run("enroll", "WARM", "+60123456789").stdout.split()[1])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_sql_a_command_prints_is_sql_of_this_schema(
    command: str, db: Database
) -> None:
    shown = invoke(*command.split(), "--show-sql")
    assert shown.exit_code == 0
    assert shown.stdout.endswith(";\n")
    db.execute(f"explain {shown.stdout}".encode())


def leaves(command: click.Command, path: str = "") -> dict[str, click.Command]:
    """Every command by its name, those of groups too."""
    if not isinstance(command, click.Group):
        return {path: command}
    context = click.Context(command)
    found: dict[str, click.Command] = {}
    for name in command.list_commands(context):
        if one := command.get_command(context, name):
            found |= leaves(one, f"{path} {name}".strip())
    return found


@pytest.mark.parametrize(
    ("option", "excused"), [("show_sql", NO_SQL), ("as_json", NO_JSON)]
)
def test_every_command_prints_its_sql_and_answers_in_json_or_has_a_reason(
    option: str, excused: dict[str, str]
) -> None:
    without = {
        path
        for path, command in leaves(cli.main).items()
        if all(one.name != option for one in command.params)
    }
    assert without == set(excused)


def test_the_sql_of_every_command_is_tested() -> None:
    tested = {path for path in leaves(cli.main) for one in COMMANDS if path in one}
    several = {"apply", "plan", "import", "top", "healthcheck"}
    of_a_router = {"shard add", "shard move", "shard status"}  # test_shards
    assert tested | several | of_a_router | set(NO_SQL) == set(leaves(cli.main))


@pytest.mark.parametrize("command", ["top", "healthcheck"])
def test_a_command_of_several_questions_prints_each(command: str, db: Database) -> None:
    shown = invoke(command, "--show-sql").stdout.splitlines()
    assert "select * from pgdrip.queue_health;" in shown
    for statement in shown:
        assert db.execute(statement.encode()).fetchall() is not None


def test_the_sql_of_a_plan_plans_and_changes_nothing(
    db: Database, tmp_path: Path
) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text(SEQUENCE + SENDER)
    shown = invoke("plan", file, "--show-sql").stdout.splitlines()
    assert (shown[0], shown[-1]) == ("begin;", "rollback;")
    assert "dry_run" in shown[2]
    for statement in shown:
        db.execute(statement.encode())
    row = db.execute("select from pgdrip.senders").fetchone()
    assert row is None


def test_the_sql_of_an_import_imports(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "contacts.csv"
    file.write_text("Mobile,name\n")
    shown = invoke(
        "import", file, "--map", "Mobile=phone", "--pool", "sales", "--show-sql"
    )
    begin, stage, copy, merge, rejected, commit = shown.stdout.splitlines()
    db.execute(begin.encode())
    db.execute(stage.encode())
    with db.cursor().copy(copy.encode()) as into:
        into.write("2,+60123456789,Ann\n3,0123,Bob\n")
    assert db.execute(merge.encode()).fetchone() == {"merge_import": 1}
    [bad] = db.execute(rejected.encode()).fetchall()
    db.execute(commit.encode())
    assert (bad["line"], bad["field"]) == (3, "phone")
    stored = db.execute("select pool, phone, name from pgdrip.contacts").fetchall()
    assert stored == [{"pool": "sales", "phone": "+60123456789", "name": "Ann"}]


def test_retention_is_shown_set_and_taken_off(run: Run, db: Database) -> None:
    told(run("retention", "set", "365d"), 2)  # what goes is gone: it asks first
    assert run("retention", "set", "365d", "--detach", "--yes").stdout == "done\n"
    [shown] = json.loads(run("retention", "show", "--json").stdout)
    assert (shown["keep"], shown["is_detached"]) == (365 * 86_400, True)
    assert "365 d" in run("retention", "show").stdout
    again = run("retention", "set", "365 days", "--detach", "--yes", "--json")
    assert again.stdout == "false\n"
    assert run("retention", "off").stdout == "done\n"
    row = db.execute("select keep, is_detached from pgdrip.history_retention")
    assert row.fetchone() == {"keep": None, "is_detached": False}
    assert told(run("retention", "set", "23h", "--yes"), 1).startswith("p_keep must be")


@pytest.mark.parametrize(
    "command",
    [
        "exit 1 --reason r",
        "suppress +60123456789 --reason r",
        "resolve 1 sent",
        "unlock --reason r",
        "sender retire device-1",
        "sender delete device-1",
    ],
)
def test_what_cannot_be_undone_needs_a_yes(
    command: str, run: Run, db: Database, enrolled: int
) -> None:
    with stage.unchanged(db):
        said = told(run(*command.split()), 2)
    assert said.endswith("cannot be undone (confirm it with --yes)")


def test_pause_and_resume_say_whether_something_changed(
    run: Run, enrolled: int
) -> None:
    for what in (["sequence", "WARM"], ["sender", "device-1"], ["enrollment", "1"]):
        pause = ["pause", *what, "--reason", "holiday"]
        assert run(*pause).stdout == "done\n"
        assert run(*pause).stdout == "nothing changed: it was so already\n"
        assert (
            "holiday" in run("explain", "contact", "1").stdout + run("senders").stdout
        )
        assert run("resume", *what).stdout == "done\n"
    assert run("pause", "all", "--reason", "storm", "--json").stdout == "true\n"
    assert run("resume", "all", "--json").stdout == "true\n"
    assert run("resume", "all", "--json").stdout == "false\n"


def test_an_exit_with_yes_ends_the_enrollment(run: Run, enrolled: int) -> None:
    assert run("exit", str(enrolled), "--reason", "moved", "--yes").stdout == "done\n"
    assert "\texited\t" in run("explain", "contact", "1").stdout
    assert "moved" in run("explain", "contact", "1").stdout


def test_a_suppressed_contact_says_so(run: Run, enrolled: int) -> None:
    run("suppress", "+60123456789", "--reason", "asked", "--yes")
    assert "suppress" in run("explain", "enroll", "WARM", "+60123456789").stdout
    assert run("unsuppress", "+60123456789", "--reason", "wrong").stdout == "done\n"


def test_json_gives_rows_as_objects_with_iso_times(run: Run, enrolled: int) -> None:
    [row] = json.loads(run("explain", "contact", "1", "--json").stdout)
    assert row["sequence"] == "WARM"
    assert row["due_at"] == "2026-01-05T09:00:00+00:00"
    [health] = json.loads(run("status", "--json").stdout)
    assert health["due_now"] == 1


def test_simulate_shows_a_table_and_a_line_of_time(run: Run, enrolled: int) -> None:
    out = run("simulate", "WARM", "--start", "2026-02-02 10:00").stdout.splitlines()
    assert out[0] == "step\tdue_at\tsend_at\tbody"
    assert out[1].startswith("1\t2026-02-02 10:00:00 ")
    line = [text.strip() for text in out[4:]]
    assert line[0].startswith("Mon 2026-02-02 10:00")
    assert line[0].endswith("● step 1  Hi there")
    assert line[1] == "┆ 12 h"
    assert line[2].endswith("● step 3  Again")


def test_status_is_one_line_for_each_number_when_piped(run: Run, enrolled: int) -> None:
    lines = dict(line.split("\t") for line in run("status").stdout.splitlines())
    assert (lines["due_now"], lines["is_paused"]) == ("1", "no")


def test_top_draws_within_80_columns(run: Run, enrolled: int) -> None:
    out = run("top", "--count", "1").stdout
    assert "due now 1" in out
    assert "device-1" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_healthcheck_tells_what_ails_the_engine(
    run: Run, db: Database, enrolled: int
) -> None:
    assert run("healthcheck").stdout == "healthy\n"
    assert told(run("healthcheck", "--runners", "1"), 1) == "0 runners alive"
    db.execute("select pgdrip.set_clock(pgdrip.clock() + interval '20 minutes')")
    assert run("healthcheck", "--overdue", "30 minutes").exit_code == 0
    said = told(run("healthcheck", "--overdue", "15m"), 1)
    assert said == "the oldest due message has waited 20 min"
    db.execute("update pgdrip.control set timeline = '000000FF'")
    assert told(run("healthcheck"), 1).startswith("the engine is locked")
    assert run("unlock", "--reason", "checked", "--yes").stdout == "done\n"
    assert run("healthcheck").exit_code == 0


def test_uncertain_and_failures_list_and_resolve_settles(
    run: Run, db: Database, enrolled: int
) -> None:
    db.execute("select from pgdrip.claim('a')")
    db.execute(
        "with d as (select array_agg(enrollment_id) as e, array_agg(token) as t"
        " from pgdrip.due) select pgdrip.begin_send(d.e, d.t),"
        " pgdrip.report(d.e, d.t, array['failed'], null, array['odd']) from d"
    )
    [row] = json.loads(run("uncertain", "--json").stdout)
    settled = run("resolve", str(row["token"]), "sent", "--yes")
    assert (settled.exit_code, settled.stdout) == (0, "advanced\n")
    assert json.loads(run("uncertain", "--json").stdout) == []
    assert len(json.loads(run("failures", "--json", "--since", "1h").stdout)) == 1
    [first, _] = json.loads(run("funnel", "WARM", "--json").stdout)
    assert first["sent"] == 1


def test_an_address_that_nobody_has_says_so(run: Run, enrolled: int) -> None:
    said = told(run("explain", "contact", "a@example.com"), 1)
    assert said.startswith("no contact has the address 'a@example.com'")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_pgdrip(shell: str) -> None:
    assert "_PGDRIP_COMPLETE" in invoke("completion", shell).stdout


def test_completion_completes_commands() -> None:
    asked = {"COMP_WORDS": "pgdrip pa", "COMP_CWORD": "1"}
    done = invoke(_PGDRIP_COMPLETE="bash_complete", **asked)
    assert "plain,pause" in done.stdout


# validate and plan


def test_validate_needs_no_database(tmp_path: Path) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text(SEQUENCE + SENDER)
    assert invoke("validate", file).stdout == "2 definitions, no mistake\n"
    file.write_text(SEQUENCE.replace("Again", "'{{nmae}}'"))
    said = told(invoke("validate", file), 3)
    assert said.startswith(f"{file}:8:37: steps[2].body: {{{{nmae}}}} is misspelt")


def test_plan_tells_every_difference_and_changes_nothing(
    run: Run, db: Database, enrolled: int, tmp_path: Path
) -> None:
    file = tmp_path / "next.yaml"
    sender = SENDER.replace("FILE", str(tmp_path / "log"))
    file.write_text(SEQUENCE + sender)
    same = run("plan", file)
    assert same.exit_code == 0
    assert same.stdout.splitlines() == [
        "sender device-1: unchanged",
        "sequence WARM: unchanged",
    ]
    file.write_text(
        SEQUENCE.replace("12 hours", "1 day").replace("Again", "And again")
        + sender
        + "rate_per_hour: 80\n---\nkind: sender\nname: device-2\nchannel: log\n"
    )
    different = run("plan", file)
    assert different.exit_code == 10
    assert different.stdout.splitlines() == [
        "sender device-1: changed",
        "    rate_per_hour: none → 80",
        "sender device-2: created",
        "sequence WARM: published",
        "    steps[2].body: Again → And again",
        "    steps[2].delay: 12 hours → 1 day",
        "    1 enrollment in flight under pin:"
        " 1 stay, 0 move, 0 on a step that is gone",
        "    1 enrollment in flight under follow:"
        " 0 stay, 1 move, 0 on a step that is gone",
        "    1 enrollment in flight under migrate:"
        " 0 stay, 1 move, 0 on a step that is gone",
    ]
    [changed, _, published] = json.loads(run("plan", file, "--json").stdout)
    assert changed["differences"] == ["rate_per_hour: none → 80"]
    assert published["in_flight"]["follow"]["moves"] == 1
    row = db.execute(
        "select (select count(*) from pgdrip.senders) as senders,"
        " (select count(*) from pgdrip.sequence_versions) as versions"
    ).fetchone()
    assert row == {"senders": 1, "versions": 1}


def test_what_is_exported_is_planned_as_unchanged(
    run: Run, enrolled: int, tmp_path: Path
) -> None:
    out = tmp_path / "out.yaml"
    assert run("export", "--output", out).exit_code == 0
    assert run("plan", out).exit_code == 0


def test_rows_are_exported_as_csv_and_json_lines(run: Run, enrolled: int) -> None:
    run("import", "-", stdin="phone,name\n+60123456780,=1+1\n")
    header, first, second = run("export", "contacts").stdout.splitlines()
    assert header.startswith("contact_id,pool,phone,email,name,timezone,trigger")
    assert first.startswith("1,default,+60123456789,,Alice,,WARMEXAMA,")
    assert ",'=1+1," in second
    lines = run("export", "contacts", "--format", "jsonl").stdout.splitlines()
    assert json.loads(lines[1])["name"] == "=1+1"
    assert run("export", "progress").stdout.count("\n") == 3
    assert run("export", "deliveries").stdout.startswith("at,enrollment_id,token,")


def test_apply_prints_the_calls_it_would_make(tmp_path: Path, db: Database) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text(SEQUENCE + SENDER)
    for statement in invoke("apply", file, "--show-sql").stdout.splitlines():
        db.execute(statement.encode())
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "insert into pgdrip.senders (name, channel) values ('device-1', 'log')"
        )
