"""The command line: one line for whatever goes wrong, and the exit code it deserves."""

import asyncio
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import stage
from commands import CONTACT, SENDER, SEQUENCE, Database, Run, invoke, on, told
from pgdrip import __version__
from pgdrip.console import table
from pgdrip.contacts import CHUNK, import_csv
from pgdrip.engine import Engine

PASSWORD = "hunter2"
LOGIN = f"me:{PASSWORD}"


@pytest.fixture
def run(dsn: str) -> Run:
    return on(dsn)


def start(
    *arguments: str, dsn: str = "", stdin: int | None = None, closed: int | None = None
) -> Popen[bytes]:
    command = [sys.executable, "-m", "pgdrip", *arguments]
    if closed:
        command = ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", *command]
    environment = os.environ | {"PGDRIP_DSN": dsn}
    return Popen(command, env=environment, stdin=stdin, stdout=PIPE, stderr=PIPE)


def count(db: Database, table: str) -> int:
    row = db.execute(f"select count(*) as n from pgdrip.{table}").fetchone()
    assert row is not None
    return int(row["n"])


@pytest.fixture
def warm(run: Run, tmp_path: Path) -> Path:
    """A database with one sequence, one sender; the file its messages are logged to."""
    log, definitions = tmp_path / "log.jsonl", tmp_path / "warm.yaml"
    definitions.write_text(SEQUENCE + SENDER.replace("FILE", str(log)))
    assert run("apply", definitions).exit_code == 0
    return log


# What stands in the way


def test_without_a_database_named_nothing_is_tried() -> None:
    assert told(invoke("check"), 3).startswith("no database given")


def test_a_connection_string_that_cannot_be_read_is_not_repeated() -> None:
    result = invoke("check", PGDRIP_DSN=f"postgresql://{LOGIN}@[x")
    assert told(result, 3).startswith("the connection string cannot be read")
    assert PASSWORD not in result.output


def test_a_password_on_the_command_line_is_warned_of() -> None:
    dsn = f"host=/nowhere password={PASSWORD}"
    visible = invoke("--dsn", dsn, "check")
    assert visible.exit_code == 4
    assert "everyone on this machine can read" in visible.stderr
    assert PASSWORD not in visible.output
    assert "everyone" not in invoke("check", PGDRIP_DSN=dsn).output


@pytest.mark.parametrize("command", [["check"], ["migrate"], ["run"]])
def test_a_database_that_is_not_there_is_exit_4(command: list[str]) -> None:
    result = invoke(*command, PGDRIP_DSN="host=/nowhere connect_timeout=1")
    assert result.exit_code == 4
    assert "pgdrip: " in result.stderr


def test_a_database_without_the_schema_is_exit_5(empty: str) -> None:
    assert "pgdrip migrate" in told(invoke("check", PGDRIP_DSN=empty), 5)


def test_a_role_without_rights_is_exit_8(dsn: str) -> None:
    other = make_conninfo(dsn, options="-c role=pg_monitor")
    assert "permission denied" in told(invoke("check", PGDRIP_DSN=other), 8)


def test_a_read_only_database_is_exit_4(dsn: str, warm: Path, run: Run) -> None:
    run("import", "-", stdin=CONTACT)
    other = make_conninfo(dsn, options="-c default_transaction_read_only=on")
    told(invoke("enroll", "WARM", "1", PGDRIP_DSN=other), 4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["check", "--nonsense"],
        ["enroll", "WARM", "first"],
        ["enroll", "WARM", "0"],
        ["enroll", "WARM", "99999999999999999999"],
        ["explain", "contact"],
        ["explain", "contact", "nobody"],
        ["failures", "--since", "-1h"],
        ["failures", "--limit", "0"],
        ["resolve", "first", "sent", "--yes"],
        ["resolve", "1", "perhaps", "--yes"],
        ["simulate", "WARM", "--start", "soon"],
        ["export", "secrets"],
        ["export", "--format", "csv"],
        ["pause", "sequence", "WARM"],
        ["apply"],
        ["apply", "no-such-file.yaml"],
        ["import", "no-such-file.csv"],
        ["import", "."],
        ["run", "--slots", "0"],
        ["demo", "--contacts", "0"],
        ["import", "-", "--region", "XX"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    arguments: list[str], run: Run
) -> None:
    assert told(run(*arguments, stdin="phone\n"), 2)


def test_a_closed_pipe_is_no_traceback() -> None:
    process = start("--help")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_a_closed_standard_output_is_no_failure(dsn: str) -> None:
    process = start("check", dsn=dsn, closed=1)
    assert (process.communicate()[1], process.returncode) == (b"", 0)


def test_a_closed_standard_error_stops_no_runner(dsn: str) -> None:
    process = start("run", "--once", dsn=dsn, closed=2)
    assert (process.communicate()[0], process.returncode) == (b"", 0)


def test_a_defect_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdrip.cli.schema.database", lambda dsn: 1 // 0)
    assert told(invoke("migrate"), 1).startswith("unexpected ZeroDivisionError")


# migrate, apply


def test_migrate_says_what_it_applied_and_then_nothing_more(empty: str) -> None:
    first = invoke("migrate", PGDRIP_DSN=empty)
    assert first.exit_code == 0
    assert first.stdout.startswith("applied 0001.control\n")
    again = invoke("migrate", PGDRIP_DSN=empty)
    assert (again.exit_code, again.stdout) == (0, "schema version 1\n")
    told = json.loads(invoke("migrate", "--json", PGDRIP_DSN=empty).stdout)
    assert told == {"applied": [], "version": "1"}


def test_apply_publishes_once_and_then_says_unchanged(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text(SEQUENCE + SENDER)
    first = run("apply", file)
    assert first.stdout.splitlines() == [
        "kind\tname\toutcome\tnote",
        "sender\tdevice-1\tcreated\t",
        "sequence\tWARM\tcreated\tversion 1",
    ]
    assert first.exit_code == 0
    again = run("apply", file).stdout.splitlines()
    assert [line.split("\t")[2] for line in again[1:]] == ["unchanged", "unchanged"]


@pytest.mark.parametrize(
    "text",
    [
        SEQUENCE.replace("channel: log", "channel: pigeon"),
        SEQUENCE + "window: {from: 09:00, to: '21:00', zone: Mars/Base}\n",
        SEQUENCE + "cap: {max: 1, per: 99999 weeks}\n",
        "kind: sender\nname: device-2\nchannel: log\ngroup: nobody\n",
    ],
)
@pytest.mark.parametrize("command", ["apply", "plan"])
def test_what_only_the_database_can_refuse_has_its_place_too(
    run: Run, db: Database, tmp_path: Path, text: str, command: str
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(SENDER)
    bad.write_text(f"# a comment\n{text}")
    with stage.unchanged(db):
        assert told(run(command, good, bad), 3).startswith(f"{bad}:")


def test_the_mistakes_of_a_file_are_a_line_each(
    run: Run, db: Database, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("kind: sender\nname: a\nchannel: log\nburst: x\nrate_per_hour: y\n")
    with stage.unchanged(db):
        result = run("apply", file)
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        f"pgdrip: {file}:4:8: burst: 'x' is not a whole number",
        f"pgdrip: {file}:5:16: rate_per_hour: 'y' is not a whole number",
    ]


# import

SOME_BAD = (
    "phone,name,timezone,trigger\n"
    "+60 12-345 6781,Alice,Asia/Kuala_Lumpur,WARM;HOT\n"
    "6.01E+10,Bob,,WARM\n"
    "+60123456783,Carol,Mars/Base,WARM\n"
    "+60123456784,Dave,,\n"
)


def test_import_takes_the_good_lines_and_tells_the_bad_ones(
    run: Run, db: Database, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "contacts.csv", tmp_path / "rejects.csv"
    file.write_text(SOME_BAD)
    result = run("import", file, "--rejects", rejects)
    assert result.exit_code == 6
    assert result.stdout == ""
    *bad, last = result.stderr.splitlines()
    assert bad[0].startswith("pgdrip: line 3: phone: a spreadsheet shortened")
    assert bad[1].startswith("pgdrip: line 4: timezone: timezone 'Mars/Base' is not")
    assert last == (
        f"pgdrip: 2 lines rejected, 2 contacts imported (all are in {rejects})"
    )
    written = rejects.read_text().splitlines()
    assert written[0] == "line,column,reason"
    assert [line.split(",")[:2] for line in written[1:]] == [
        ["3", "phone"],
        ["4", "timezone"],
    ]
    stored = db.execute(
        "select phone, name, array(select trigger from pgdrip.contact_triggers t"
        " where t.contact_id = c.contact_id order by 1) as triggers"
        " from pgdrip.contacts c order by phone"
    ).fetchall()
    assert stored == [
        {"phone": "+60123456781", "name": "Alice", "triggers": ["HOT", "WARM"]},
        {"phone": "+60123456784", "name": "Dave", "triggers": []},
    ]


def test_a_strict_import_with_a_bad_line_imports_nothing(
    run: Run, db: Database
) -> None:
    with stage.unchanged(db):
        result = run("import", "-", "--strict", stdin=SOME_BAD)
    assert result.exit_code == 6
    assert "2 lines rejected, 0 contacts imported" in result.stderr
    fine = run("import", "-", "--strict", stdin=CONTACT)
    assert (fine.exit_code, fine.stdout) == (0, "1 contact imported\n")


def test_an_import_answers_in_json(run: Run) -> None:
    result = run("import", "-", "--json", stdin="phone\n+60123456789\nbad\n")
    assert result.exit_code == 6
    found = json.loads(result.stdout)
    [reject] = found.pop("rejects")
    assert found == {"contacts": 1}
    assert (reject["line"], reject["column"]) == (3, "phone")
    assert told(result, 6) == "1 line rejected, 1 contact imported"


@pytest.mark.parametrize("rejects", ["no-such-folder/rejects.csv", "contacts.csv"])
def test_rejects_that_cannot_be_written_are_refused_before_the_import(
    run: Run, db: Database, tmp_path: Path, rejects: str
) -> None:
    file = tmp_path / "contacts.csv"
    file.write_text(SOME_BAD)
    with stage.unchanged(db):
        done = run("import", file, "--rejects", tmp_path / rejects)
    assert "--rejects" in told(done, 2)
    assert file.read_text() == SOME_BAD


def test_the_first_twenty_rejects_are_shown_and_the_rest_counted(run: Run) -> None:
    result = run("import", "-", stdin="phone\n" + "bad\n" * 25)
    assert len(result.stderr.splitlines()) == 21
    assert "25 lines rejected, 0 contacts imported" in result.stderr
    assert "the first 20 are above" in result.stderr


def test_a_region_makes_national_numbers_international(run: Run, db: Database) -> None:
    assert run("import", "-", "--region", "MY", stdin="phone\n012-345 6789\n")
    row = db.execute("select phone from pgdrip.contacts").fetchone()
    assert row == {"phone": "+60123456789"}


def refused(run: Run, text: str) -> list[str]:
    """Return the lines that an import refuses, without the program's name."""
    result = run("import", "-", stdin=text)
    assert result.exit_code == 6
    *bad, _ = result.stderr.splitlines()
    return [line.removeprefix("pgdrip: ") for line in bad]


def test_the_same_address_twice_in_a_file_is_told(run: Run, db: Database) -> None:
    told = refused(
        run,
        "phone,email\n+60 123456789,\n+60123456780,a@example.com\n+60123456789,\n"
        ",A@Example.com\n",
    )
    assert told == [
        "line 4: phone: the same phone as line 2",
        "line 5: email: the same email as line 3",
    ]
    assert count(db, "contacts") == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "phone,email\n+60123456781,a@example.com\n+60123456782,a@example.com\n"
            "+60123456782,b@example.com\n",
            ["line 3: email: the same email as line 2"],
        ),
        (
            "phone,email\n+60123456781,a@example.com\n+60123456781,b@example.com\n"
            "+60123456783,b@example.com\n+60123456783,c@example.com\n",
            [
                "line 3: phone: the same phone as line 2",
                "line 5: phone: the same phone as line 4",
            ],
        ),
        (
            "phone,sender\n+60123456781,nobody\n+60123456781,\n",
            ["line 2: sender: no sender is named 'nobody'"],
        ),
    ],
)
def test_a_rejected_line_takes_no_address_from_a_good_one(
    run: Run, text: str, told: list[str]
) -> None:
    assert refused(run, text) == told


def test_each_rejected_line_names_its_column(run: Run, db: Database) -> None:
    long = "x" * 1001
    told = refused(
        run,
        "phone,email,name,timezone,trigger,note\n"
        f"+60123456781,,{long},,,\n"
        ",no address,,,,\n"
        '+60123456782,,,,"A,B",\n'
        f"+60123456783,,,,,{'x' * 20000}\n"
        "+60123456784,,Ann,Asia/Tokyo,A; B ;,fine\n",
    )
    assert [line.split(": ")[1] for line in told] == [
        *("name", "email", "trigger", "attributes"),
    ]
    row = db.execute(
        "select name, attributes, array(select trigger from pgdrip.contact_triggers"
        " order by trigger) as triggers from pgdrip.contacts"
    ).fetchall()
    assert row == [
        {"name": "Ann", "attributes": {"note": "fine"}, "triggers": ["A", "B"]}
    ]


def test_known_contacts_are_found_by_either_address(run: Run, db: Database) -> None:
    run("import", "-", stdin="phone,email\n+60123456781,\n,b@example.com\n")
    told = refused(
        run,
        "phone,email,name\n+60123456781,a@example.com,A\n,B@example.com,B\n"
        "+60123456781,c@example.com,C\n",
    )
    assert told == ["line 4: phone: the same phone as line 2"]
    told = refused(run, "phone,email\n+60123456781,b@example.com\n")
    assert told == [
        "line 2: email: phone and email belong to two contacts, 1 and 2",
    ]
    told = refused(run, "phone,email\n+60123456781,\n,a@example.com\n")
    assert told == ["line 3: email: the same contact as line 2"]
    rows = db.execute("select phone, email, name from pgdrip.contacts order by name")
    assert [tuple(row.values()) for row in rows] == [
        ("+60123456781", "a@example.com", "A"),
        (None, "B@example.com", "B"),
    ]


def test_an_address_that_comes_meanwhile_is_a_known_one(
    dsn: str, db: Database, connect: Callable[[], Database]
) -> None:
    other = connect()
    with other.transaction():
        other.execute("select pgdrip.upsert_contact('+60123456789', p_name => 'first')")
        importing = start("import", "-", dsn=dsn, stdin=PIPE)
        assert importing.stdin
        importing.stdin.write(b"phone,name\n+60123456789,second\n")
        importing.stdin.close()
        _until(lambda: _is_waiting_for_a_lock(db))
    assert importing.wait() == 0
    rows = db.execute("select name from pgdrip.contacts").fetchall()
    assert rows == [{"name": "second"}]
    for pipe in (importing.stdout, importing.stderr):
        assert pipe
        pipe.close()


def _is_waiting_for_a_lock(db: Database) -> bool:
    return bool(
        db.execute(
            "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ).fetchone()
    )


def test_lines_that_psql_copied_are_merged_and_judged(db: Database) -> None:
    with db.transaction():
        db.execute("select pgdrip.stage_import()")
        db.execute(
            "insert into pg_temp.import_lines (phone, email, name) values"
            " ('+60123456781', null, E'A\nB'), ('0123', null, 'C'), (null, null, 'D'),"
            " ('+60123456782', null, ' E '), ('+60 123', null, 'F'),"
            " ('+60123456783999999999', null, 'G')"
        )
        row = db.execute("select pgdrip.merge_import() as stored").fetchone()
        assert row == {"stored": 2}
        bad = db.execute(
            "select line, field, left(reason, 12) as reason from pg_temp.import_lines"
            " where reason is not null order by line"
        ).fetchall()
    assert [tuple(one.values()) for one in bad] == [
        (2, "phone", "phone '0123'"),
        (3, None, "phone and em"),
        (5, "phone", "phone '+60 1"),
        (6, "phone", "phone '+6012"),
    ]
    names = db.execute("select name from pgdrip.contacts order by name").fetchall()
    assert names == [{"name": "A B"}, {"name": "E"}]
    with pytest.raises(psycopg.Error, match="there are no lines to merge"):
        db.execute("select pgdrip.merge_import()")


def test_a_session_imports_again_and_after_temporary_tables_of_its_own(
    db: Database,
) -> None:
    db.execute("create temp table own (a integer); insert into own values (1)")
    for number in (1, 2):
        with db.transaction():
            db.execute("select pgdrip.stage_import()")
            db.execute(
                "insert into pg_temp.import_lines (phone) values (%s)",
                [f"+6012345678{number}"],
            )
            row = db.execute("select pgdrip.merge_import() as stored").fetchone()
            assert row == {"stored": 1}
    assert count(db, "contacts") == 2


def test_importing_again_updates_and_adds_nothing(run: Run, db: Database) -> None:
    run("import", "-", stdin=CONTACT)
    run("import", "-", stdin=CONTACT.replace("Alice", "Alicia"))
    row = db.execute("select name from pgdrip.contacts").fetchall()
    assert row == [{"name": "Alicia"}]
    assert count(db, "contact_triggers") == 1


async def _import(dsn: str, stream: io.RawIOBase) -> None:
    async with await Engine.connect(dsn) as engine:
        await import_csv(engine, io.BufferedReader(stream))


def test_a_file_that_breaks_off_midway_leaves_nothing(dsn: str, db: Database) -> None:
    class Broken(io.RawIOBase):
        """Three chunks of contacts, then the disk fails."""

        lines = iter([b"phone\n", *(b"+60%09d\n" % n for n in range(CHUNK // 4))])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            line = next(self.lines, None)
            if line is None:
                raise OSError("disk failure")
            buffer[: len(line)] = line
            return len(line)

    with pytest.raises(OSError, match="disk failure"):
        asyncio.run(_import(dsn, Broken()))
    assert count(db, "contacts") == 0


def test_an_interrupted_import_is_exit_130_and_leaves_nothing(
    dsn: str, db: Database
) -> None:
    process = start("import", "-", dsn=dsn, stdin=PIPE)
    assert process.stdin
    assert process.stderr
    numbers = b"".join(b"+60%09d\n" % n for n in range(CHUNK // 4))
    process.stdin.write(b"phone\n" + numbers)
    process.stdin.flush()
    _until(lambda: _is_copying(db))
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 130
    assert b"Traceback" not in said
    assert b"pgdrip: interrupted" in said
    assert count(db, "contacts") == 0
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe
        pipe.close()


def _is_copying(db: Database) -> bool:
    return bool(
        db.execute(
            "select 1 from pg_stat_progress_copy where tuples_processed > 0"
            " and datname = current_database()"
        ).fetchone()
    )


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("waited 10 s in vain")


# enroll, run, check, explain


def test_a_contact_enrolls_and_is_explained(run: Run, warm: Path) -> None:
    run("import", "-", stdin=CONTACT.replace("WARMEXAMA", ""))
    assert run("enroll", "WARM", "1").stdout == "enrollment 1\n"
    header, row = run("explain", "contact", "1").stdout.splitlines()
    assert header.startswith("sequence\tenrollment_id\tstatus\tstep\tdue")
    assert row.startswith("WARM\t1\tactive\t1\t2026-01-0")


@pytest.mark.parametrize(
    "arguments",
    [
        ["enroll", "NONE", "1"],
        ["enroll", "NO\x85NE", "1"],
        ["enroll", "WARM", "99"],
        ["explain", "contact", "99"],
        ["explain", "contact", "+60999999999"],
        ["pause", "sequence", "NONE", "--reason", "x"],
        ["retry", "99", "--reason", "x"],
    ],
)
def test_what_is_not_there_is_one_line_with_a_hint(
    run: Run, warm: Path, db: Database, arguments: list[str]
) -> None:
    run("import", "-", stdin=CONTACT)
    with stage.unchanged(db):
        assert told(run(*arguments), 1).endswith(")")


def test_run_once_sends_what_is_due(run: Run, warm: Path, db: Database) -> None:
    run("import", "-", stdin=CONTACT)
    result = run("run", "--once", "--channel", "log")
    assert result.exit_code == 0
    [line] = warm.read_text().splitlines()
    assert '"body": "Hi Alice"' in line
    assert count(db, "deliveries") == 1


def test_run_refuses_a_channel_it_does_not_have(run: Run) -> None:
    assert "no channel is called pigeon" in told(run("run", "--channel", "pigeon"), 3)


def test_check_is_exit_7_when_an_invariant_is_broken(
    run: Run, warm: Path, db: Database
) -> None:
    run("import", "-", stdin=CONTACT)
    run("enroll", "WARM", "1")
    assert run("check").stdout == "every invariant holds\n"
    db.execute("delete from pgdrip.due")
    broken = run("check")
    assert told(broken, 7) == "1 violation"
    assert broken.stdout.splitlines()[1].startswith("NO_STUCK_ENROLLMENT\t1\t")


def test_without_a_command_help_is_shown() -> None:
    result = invoke()
    assert result.exit_code == 0
    assert "import" in result.stdout
    assert invoke("--version").stdout == f"pgdrip {__version__}\n"


def test_rows_too_wide_for_the_terminal_are_shown_one_below_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def words() -> list[str]:
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split()

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table(["name", "why"], [("WARM", "now"), ("HOT", "\x1b[2J")])
    assert words() == ["name", "why", "─" * 16, "WARM", "now", "HOT", "\\x1b[2J"]
    table(["name", "why"], [("WARM", "x" * 40), ("HOT", "now")])
    assert "".join(words()) == f"nameWARMwhy{'x' * 40}nameHOTwhynow"
