"""A channel of somebody else's package, installed and used as people would."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stage import Db, begin, claim, every, lead, live, one, report, sender, sequence

PACKAGE = Path(__file__).parent / "third_party"
FOLDERS = ("outgoing", "checked", "sent", "failed")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but the package in it."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index"),
            *("--no-deps", "--no-build-isolation", "--target", target, PACKAGE),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def pgdrip(installed: Path, dsn: str, tmp_path: Path) -> Run:
    """Runs the command line on the test's database, with the package installed."""

    def run(
        *arguments: str, path: Path = installed
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pgdrip", "--dsn", dsn, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(path)},
        )

    return run


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of an smsd that is not running."""
    for folder in FOLDERS:
        (tmp_path / "spool" / folder).mkdir(parents=True)
    return tmp_path / "spool"


@pytest.fixture
def stage(db: Db, installed: Path, spool: Path) -> Db:
    """The channel made known to the database; a sender, a sequence and a lead on it."""
    db.execute((installed / "pgdrip_smstools/smstools.sql").read_bytes())
    sender(db, "modem", channel="smstools", config={"spool": str(spool)})
    sequence(db, channel="smstools")
    lead(db)
    return db


def files(spool: Path) -> list[str]:
    return [path.name for path in spool.rglob("*") if path.is_file()]


def uncertain(db: Db) -> str:
    """Begin a send of which nobody knows what became; the file it would be."""
    [message] = claim(db)
    begin(db, [message])
    report(db, [message], "uncertain")
    return "pgdrip.{enrollment_id}.{step}.{token}".format(**message)


def test_a_message_goes_out_through_the_installed_channel(
    stage: Db, spool: Path, pgdrip: Run
) -> None:
    done = pgdrip("run", "--once", "--channel", "smstools")
    assert done.returncode == 0, done.stderr
    [path] = (spool / "outgoing").iterdir()
    assert path.read_text() == "To: 60110000001\nAlphabet: UTF-8\n\nOne"
    assert files(spool) == [path.name]
    reference = one(stage, "select channel, provider_id from pgdrip.provider_refs")
    assert reference == {"channel": "smstools", "provider_id": path.name}
    assert [row["step"] for row in live(stage)] == [3]


def test_without_the_package_there_is_no_such_channel(
    stage: Db, pgdrip: Run, tmp_path: Path
) -> None:
    done = pgdrip("run", "--once", "--channel", "smstools", path=tmp_path)
    assert done.returncode == 3
    assert "no channel is called smstools" in done.stderr


def test_the_fault_of_a_sender_fails_no_message(
    stage: Db, spool: Path, pgdrip: Run
) -> None:
    (spool / "outgoing").rmdir()
    assert pgdrip("run", "--once", "--channel", "smstools").returncode == 0
    assert files(spool) == []
    [row] = live(stage)
    assert (row["step"], row["attempt"], row["parked_reason"]) == (1, 0, None)
    assert every(stage, "select name, health from pgdrip.senders") == [
        {"name": "modem", "health": "down"}
    ]


def test_the_channel_can_be_probed(stage: Db, spool: Path, pgdrip: Run) -> None:
    (spool / "outgoing").rmdir()
    assert pgdrip("probe").returncode == 0
    health = "select health from pgdrip.senders"
    assert one(stage, health) == {"health": "down"}
    (spool / "outgoing").mkdir()
    assert pgdrip("probe").returncode == 0
    assert one(stage, health) == {"health": "healthy"}


@pytest.mark.parametrize(
    ("folder", "event", "code", "steps"),
    [
        ("outgoing", "sent", None, [3]),
        ("checked", "sent", None, [3]),
        ("sent", "sent", None, [3]),
        ("failed", "failed", "modem_failed", []),
    ],
)
def test_an_uncertain_send_is_settled_by_where_its_file_is(
    stage: Db,
    spool: Path,
    pgdrip: Run,
    folder: str,
    event: str,
    code: str | None,
    steps: list[int],
) -> None:
    (spool / folder / uncertain(stage)).touch()
    done = pgdrip("reconcile", "--older-than", "0")
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in live(stage)] == steps
    assert every(stage, "select event, code from pgdrip.deliveries") == [
        {"event": "uncertain", "code": None},
        {"event": event, "code": code},
    ]


def test_an_uncertain_send_without_a_file_is_due_again(
    stage: Db, spool: Path, pgdrip: Run
) -> None:
    uncertain(stage)
    assert pgdrip("reconcile", "--older-than", "0").returncode == 0
    [row] = live(stage)
    assert (row["step"], row["parked_reason"], row["token"]) == (1, None, None)


def test_the_example_of_the_documentation_makes_a_channel_known(db: Db) -> None:
    docs = (Path(__file__).parents[1] / "docs/channels.md").read_text()
    [statements] = re.findall(r"```sql\n(-- Once.*?)```", docs, re.DOTALL)
    db.execute(statements.encode())
    sender(db, "modem", channel="smstools")
    found = one(db, "select pgdrip.error_class('smstools', 'spool_full') as class")
    assert found == {"class": "transient"}


def test_what_the_channel_cannot_carry_is_refused(stage: Db) -> None:
    steps = [{"day": 1, "body": "Hi", "html": "<p>Hi</p>"}]
    with pytest.raises(Exception, match="channel smstools cannot send html"):
        sequence(stage, "HTML", trigger="HTML", channel="smstools", steps=steps)
