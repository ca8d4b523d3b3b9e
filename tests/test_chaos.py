"""Nothing lost, nothing twice: short runs of what `make chaos` plays at length."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos import faults, soak
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


def test_what_a_soak_holds_against_the_ledger_on_its_way_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(soak.plan(minutes=0.2, seed=SEED), pause=2)
    played, verdict = asyncio.run(soak.play(plan, tmp_path))
    assert verdict.complaints == [], verdict
    assert [one.broken for one in played.samples if one.broken] == []
    assert played.samples[-1].accepted > 50
    assert (2, 2) in [one.connections for one in played.samples]
    assert len(capsys.readouterr().out.splitlines()) >= 12


def sample(minute: int, **measured: Any) -> soak.Sample:
    flat: dict[str, Any] = dict(faults=minute, accepted=9, rows=9, dead=9, retired=0)
    flat |= dict(memory=(50_000,), connections=(2,), files=(25,), size=1_000_000)
    return soak.Sample(seconds=60 * minute, **flat | {"broken": ()} | measured)


FLAT = [sample(minute) for minute in range(61)]


def test_a_soak_takes_what_goes_up_and_down_for_flat() -> None:
    waves = [sample(minute, files=(20 + minute % 7,)) for minute in range(61)]
    assert soak.grown(waves, soak.WARM_UP)[1] == []


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"memory": (52_501,)}, "memory of runner 1 has grown to 1.050"),
        ({"size": 2_000_000}, "table of due steps has grown to 2.000"),
    ],
)
def test_a_soak_sees_what_has_once_grown(measured: Any, said: str) -> None:
    samples = [*FLAT[:30], sample(30, **measured), *FLAT[31:]]
    [complaint] = soak.grown(samples, soak.WARM_UP)[1]
    assert complaint.startswith(said)


@pytest.mark.parametrize("measure", ["connections", "files"])
def test_a_soak_sees_one_more_with_every_fourth_fault(measure: str) -> None:
    leaking = [sample(minute, **{measure: (25 + minute // 2,)}) for minute in range(61)]
    [complaint] = soak.grown(leaking, soak.WARM_UP)[1]
    assert complaint.startswith(f"{measure} of runner 1 went from")


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
