"""The tests' own ground: throw-away servers, clones, and pgTAP under pytest."""

import os
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow

import pgtap
from conftest import Clock, Extension
from databases import Databases, NoDatabase, choose
from pgdrip.errors import DatabaseUnavailable
from pgdrip.postgres import Server, find_binaries
from pgtap import pgtap_source, run_tap

Connection = psycopg.Connection[DictRow]


@pytest.fixture(scope="module")
def binaries() -> Path:
    found = find_binaries("embedded")
    assert found, "pip install 'pgdrip[embedded]'"
    return found


def home_of(dsn: str) -> Path:
    return Path(str(conninfo_to_dict(dsn)["host"]))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_elsewhere(binaries: Path, *, keep: bool) -> "subprocess.Popen[str]":
    """A process that starts a server, prints its DSN and two commands, and waits."""
    program = (
        "import pathlib, sys; from pgdrip.postgres import Server;"
        f" server = Server(pathlib.Path(sys.argv[1]), keep={keep});"
        " print(server.dsn, server.psql_command(), server.stop_command(), sep='\\n',"
        " flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(binaries)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_server_and_its_data_end_with_the_process_that_started_it(
    binaries: Path,
) -> None:
    process = start_elsewhere(binaries, keep=False)
    dsn = next_line(process)
    psycopg.connect(dsn).close()
    process.kill()
    process.communicate()
    wait_until(lambda: not home_of(dsn).exists())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_a_kept_server_outlives_its_process_until_its_stop_command(
    binaries: Path,
) -> None:
    process = start_elsewhere(binaries, keep=True)
    dsn, psql, stop = (next_line(process) for _ in range(3))
    process.kill()
    process.communicate()
    said = subprocess.check_output([*shlex.split(psql), "-Atc", "select 'here'"])
    assert said == b"here\n"
    subprocess.run(stop, shell=True, check=True)
    wait_until(lambda: not home_of(dsn).exists())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_nobody_else_can_reach_a_server(binaries: Path) -> None:
    with Server(binaries) as server, psycopg.connect(server.dsn) as connection:
        assert stat.S_IMODE(home_of(server.dsn).stat().st_mode) == 0o700
        row = connection.execute("show listen_addresses").fetchone()
    assert row == ("",)


def test_a_server_takes_nothing_from_pg_variables(
    binaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGDATA"):
        monkeypatch.setenv(name, "1")
    with Server(binaries) as server:
        psycopg.connect(server.dsn).close()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    binaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr("pgdrip.postgres._DIRECTORY", folder)
        with pytest.raises(DatabaseUnavailable, match="no_such_setting"):
            Server(binaries, settings={"no_such_setting": "1"})
        assert os.listdir(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_binaries_that_the_servers_user_cannot_reach_are_copied(
    binaries: Path, tmp_path: Path
) -> None:
    package = binaries.parents[1]
    for path in (package, package.with_name(f"{package.name}.libs")):
        (tmp_path / path.name).symlink_to(path)
    tmp_path.chmod(0o700)
    hidden = tmp_path / package.name / binaries.parent.name / binaries.name
    with Server(hidden) as server:
        psycopg.connect(server.dsn).close()
        assert (home_of(server.dsn) / package.name).is_dir()


def test_an_unknown_or_unreachable_choice_is_refused_not_replaced() -> None:
    with pytest.raises(NoDatabase, match="say docker, local, embedded"):
        choose({"PGDRIP_PG": "oracle"})
    with pytest.raises(NoDatabase, match="/nowhere"):
        choose({"PGDRIP_TEST_DATABASE_URL": "postgresql:///x?host=/nowhere"})


def test_a_named_database_comes_first_and_a_forced_kind_before_it(
    server: Databases,
) -> None:
    named = {"PGDRIP_TEST_DATABASE_URL": server.dsn}
    assert choose(named).description.startswith("PGDRIP_TEST_DATABASE_URL: ")
    forced = choose(named | {"PGDRIP_PG": "embedded"})
    assert forced.description.startswith("embedded: ")
    assert forced.description.endswith("(as PGDRIP_PG says)")


def test_clones_are_separate_and_gone_afterwards(server: Databases) -> None:
    with server.clone() as one, server.clone() as other:
        with psycopg.connect(one) as connection:
            connection.execute("create table public.mine ()")
        with psycopg.connect(other) as connection:
            assert connection.execute("select to_regclass('mine')").fetchone() == (
                None,
            )
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(one)


def test_the_server_can_run_jobs_by_pg_cron(
    server: Databases, extension: Extension
) -> None:
    with psycopg.connect(server.dsn) as connection:
        extension(connection, "pg_cron")
        schedule = "select cron.schedule('probe', '* * * * *', 'select 1') > 0"
        assert connection.execute(schedule).fetchone() == (True,)
        connection.rollback()


def test_the_clock_stands_still_at_its_start(db: Connection, clock: Clock) -> None:
    start = "select pgdrip.clock() = timestamptz '2026-01-05 09:00+00' as is_start"
    assert db.execute(start).fetchone() == {"is_start": True}
    assert clock.now().timestamp() == 1767603600


def tap(connection: Connection, *assertions: str, plan: str = "no_plan()") -> list[str]:
    """What is wrong with a file of these assertions."""
    lines = ["begin", f"select {plan}", *(f"select {a}" for a in assertions)]
    script = ";\n".join([*lines, "select * from finish()", "rollback;"])
    return run_tap(connection, script.encode())[1]


def test_pgtap_files_pass_only_when_every_assertion_does(db: Connection) -> None:
    assert tap(db, "pass('one')", "is(2, 2, 'two')", plan="plan(2)") == []
    (failed,) = tap(db, "pass('one')", "is(1, 2, 'two')")
    assert failed.startswith("not ok 2 - two")
    assert "want: 2" in failed


def test_an_assertion_marked_as_to_do_may_fail(db: Connection) -> None:
    assert tap(db, "todo('later', 1)", "is(1, 2, 'two')") == []


def test_an_error_in_a_pgtap_file_fails_it_and_tells_where(db: Connection) -> None:
    complaints = tap(db, "pass('one')", "1 / 0", "pass('two')")
    assert "division by zero" in complaints[0]
    assert complaints[0].endswith("after: ok 1 - one")


def test_a_wrong_plan_or_none_fails_a_pgtap_file(db: Connection) -> None:
    assert tap(db, "pass('one')", plan="plan(2)") == [
        "made 1 assertions, planned ['1..2']"
    ]
    assert run_tap(db, b"select 1")[1] == ["made 0 assertions, planned []"]


def test_an_open_transaction_fails_a_pgtap_file(db: Connection) -> None:
    script = b"begin; select plan(1); select pass('one'); select * from finish();"
    assert run_tap(db, script)[1] == ["the file leaves its transaction open"]


def test_missing_pgtap_fails_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgtap, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="apt-get install"):
        pgtap_source()


def test_pgtap_comes_from_the_machine_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgtap, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "pgdrip").mkdir()
    (tmp_path / "pgdrip" / "pgtap.sql").write_text("kept")
    assert pgtap_source() == b"kept"
    (tmp_path / "system" / "15").mkdir(parents=True)
    for name in ("pgtap--1.2.0.sql", "pgtap--1.10.0.sql", "pgtap--1.2.0--1.10.0.sql"):
        (tmp_path / "system" / "15" / name).write_text(name)
    assert pgtap_source() == b"pgtap--1.10.0.sql"
