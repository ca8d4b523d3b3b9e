"""The demo from end to end on a few contacts; `make demo` plays all of them."""

import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from pgdrip.cli import main
from pgdrip.demo import Demo
from pgdrip.receiver import busiest_hour

NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)


def play(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pgdrip", "demo", "--contacts", "60", *options],
        capture_output=True,
        text=True,
        # PGHOSTADDR as on a machine where it names a database that must stay as it is.
        env=os.environ | {"COLUMNS": "80", "PGHOSTADDR": "127.0.0.1"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def said() -> str:
    return play()


def test_the_demo_sends_every_step_exactly_once_and_says_so(said: str) -> None:
    assert "60 contacts" in said
    assert "240 of 240 messages" in said
    for fact in (
        "The receiver got each of 240 steps exactly once",
        "No sender passed 80 messages in any rolling hour",
        "check() found nothing: every invariant holds",
    ):
        assert f"✓ {fact}" in said
    assert "✗" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_step_is_due_its_delay_after_the_one_before_was_sent(said: str) -> None:
    times = re.findall(r"\d+ Jan \d\d:\d\d:\d\d", said)
    moments = [datetime.strptime(f"2026 {t}", "%Y %d %b %H:%M:%S") for t in times]
    due, sent = moments[0::2], moments[1::2]
    assert len(due) == len(sent) == 4
    for step in range(1, 4):
        assert due[step] - sent[step - 1] >= timedelta(hours=12)


def test_a_kept_demo_can_be_queried_by_the_lines_it_prints() -> None:
    said = play("--keep")
    lines = [line.strip() for line in said.splitlines()]
    [connect] = [line for line in lines if "/psql " in line or line.startswith("psql")]
    [stop] = [line for line in lines if line.startswith("kill ")]
    statements = said[said.index("select ") : said.index("When you are done")]
    try:
        shown = subprocess.run(
            [*shlex.split(connect), "-X", "-v", "ON_ERROR_STOP=1"],
            input=statements,
            capture_output=True,
            text=True,
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "Ready to send" in shown.stdout
    finally:
        subprocess.run(stop, shell=True, check=True)


def test_a_message_received_twice_or_never_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tamper(self: Demo) -> None:
        self.receiver.ledger[0] = self.receiver.ledger[1]

    monkeypatch.setattr(Demo, "_show_timeline", tamper)
    result = CliRunner().invoke(main, ["demo", "--contacts", "5"])
    assert result.exit_code == 7
    said = " ".join(result.stdout.split())
    assert (
        "✗ The receiver got each of 20 steps exactly once 1 missing 1 sent twice"
        " 1 keys used twice 1 not as the database says ✓"
    ) in said
    assert result.stderr.startswith("pgdrip: the demo did not end as it must")


@pytest.mark.parametrize(
    ("minutes", "most"),
    [([], 0), ([0], 1), ([0, 59], 2), ([0, 60], 1), ([30, 59, 60, 89, 90], 4)],
)
def test_the_busiest_hour_may_begin_anywhere(minutes: list[int], most: int) -> None:
    times = [NINE + timedelta(minutes=minute) for minute in minutes]
    assert busiest_hour(reversed(times)) == most
