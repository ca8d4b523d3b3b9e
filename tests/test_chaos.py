"""Nothing lost, nothing twice: short runs of what `make chaos` plays at length."""

import asyncio
import re
from pathlib import Path

import pytest

from chaos import faults
from chaos.gateway import HONEST
from chaos.plans import PLANS
from chaos.verdict import Verdict, play
from chaos.world import Plan

SEED = 20260105


def played(plan: Plan, home: Path) -> Verdict:
    return asyncio.run(play(plan, home))


@pytest.mark.parametrize("name", ["park", "retry with keys"])
def test_nothing_is_lost_and_nothing_goes_out_twice(name: str, tmp_path: Path) -> None:
    verdict = played(PLANS[name](seed=SEED, seconds=10), tmp_path)
    assert verdict.complaints == [], verdict
    assert sum(verdict.faults.values()) >= 5
    assert verdict.seen.checks >= 10
    assert verdict.judged.accepted > 400


def outage_longer_than_leases(sabotage: str = "") -> Plan:
    return Plan(
        name="outage longer than leases",
        faults={faults.long_partition: 1},
        acts=dict(HONEST),
        pause=1.0,
        seconds=5,
        people=90,
        runners=3,
        per_tight=0,
        latency=0.1,
        sabotage=sabotage,
    )


def test_what_was_sent_before_an_outage_longer_than_the_leases_is_known_after_it(
    tmp_path: Path,
) -> None:
    verdict = played(outage_longer_than_leases(), tmp_path)
    assert verdict.complaints == [], verdict
    assert verdict.judged.late > 0
    assert verdict.judged.recovered == []
    assert verdict.judged.confirmed == verdict.judged.accepted


TESTS = Path(__file__).parent
MATRIX = re.findall(
    r"^\| (F\d\d) \|.*\| (.*?) \|$",
    (TESTS.parent / "docs/faults.md").read_text(),
    re.MULTILINE,
)


def test_the_matrix_has_every_fault() -> None:
    assert [number for number, _ in MATRIX] == [f"F{n:02}" for n in range(1, 45)]


@pytest.mark.parametrize(("number", "proofs"), MATRIX, ids=dict(MATRIX))
def test_the_matrix_names_tests_that_there_are(number: str, proofs: str) -> None:
    names = re.findall(
        r"^def test_(\w+)", "".join(p.read_text() for p in TESTS.glob("*.py")), re.M
    )
    for word in re.findall(r"`(.*?)`", proofs):
        is_file = (TESTS / word).is_file()
        assert is_file or any(word in name for name in names), f"no test has {word}"
    for plan in re.findall(r"\*(.*?)\*", proofs):
        assert plan in PLANS
