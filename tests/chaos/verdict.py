"""What one run came to, in numbers and in complaints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chaos.judge import Judgement, judge
from chaos.world import Plan, Seen, World

LONGEST_TRANSACTION = 1.0  # seconds that a runner may hold one between statements
SHOWN = 5  # of each complaint

RULES = {
    "lost": "L1 the database says sent, the gateway never accepted",
    "unexpected": "L2 accepted, unknown to the database",
    "duplicated": "L3 accepted more than once",
    "unaccounted": "L4 accepted, neither sent nor uncertain",
    "disordered": "L5 earlier than its delay after the step before",
    "too_many": "L6 more than the rate within an hour",
    "forgotten": "acknowledged, not enrolled",
    "unsettled": "neither ended nor parked",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str
    seed: int
    faults: dict[str, int]
    seen: Seen
    judged: Judgement
    complaints: list[str]

    @classmethod
    def of(cls, world: World, judged: Judgement) -> Self:
        plan, seen = world.plan, world.seen
        said = {rule: getattr(judged, rule) for rule in RULES}
        may_repeat = plan.on_uncertain == "retry" and not plan.keeps_keys
        if may_repeat and len(judged.duplicated) <= judged.ambiguous:
            del said["duplicated"]
        complaints = [
            f"{RULES[rule]}: {len(found)}, such as {', '.join(found[:SHOWN])}"
            for rule, found in said.items()
            if found
        ]
        if len(judged.recovered) > judged.ambiguous:
            complaints.append(
                f"L7 {len(judged.recovered)} were accepted and are uncertain,"
                f" {judged.ambiguous} may be"
            )
        if judged.uncertain > judged.ambiguous + judged.unanswered:
            complaints.append(f"too many are uncertain: {judged.uncertain}")
        if seen.drained_in is None:
            complaints.append(f"not drained after {plan.drain:g} s")
        if seen.longest_transaction > LONGEST_TRANSACTION:
            complaints.append(
                f"a transaction was held for {seen.longest_transaction:.1f} s"
            )
        complaints += [f"check(): {one}" for one in seen.violations[:SHOWN]]
        complaints += seen.odd_exits
        complaints += [f"left in the spool: {name}" for name in seen.spooled]
        faults = dict(world.injector.done.most_common())
        return cls(plan.name, plan.seed, faults, seen, judged, complaints)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in self.faults.items())
        lines = [f"{self.name}, seed {self.seed}: {faults or 'no faults'}"]
        lines += [f"  ✗ {complaint}" for complaint in self.complaints] or ["  ✓"]
        return "\n".join(lines)


async def play(plan: Plan, home: Path) -> Verdict:
    """Play one plan in an empty directory; what came of it."""
    async with World(plan, home) as world:
        await world.play()
        return Verdict.of(world, await judge(world))


def table(verdicts: Sequence[Verdict]) -> str:
    """One line for each run."""
    head = (
        f"{'plan':<22}{'seed':>5}{'faults':>7}{'accepted':>9}{'sent':>6}"
        f"{'L1':>4}{'L2':>4}{'L3':>4}{'L4':>4}{'L5':>4}{'L6':>4}{'L7':>5}"
        f"{'uncertain':>10}{'may be':>7}{'check':>6}{'drained':>8}{'':>3}"
    )
    return "\n".join([head, *map(_line, verdicts)])


def _line(verdict: Verdict) -> str:
    judged, seen = verdict.judged, verdict.seen
    rules = [judged.lost, judged.unexpected, judged.duplicated, judged.unaccounted]
    rules += [judged.disordered, judged.too_many]
    drained = "never" if seen.drained_in is None else f"{seen.drained_in:.1f} s"
    return (
        f"{verdict.name:<22}{verdict.seed:>5}{sum(verdict.faults.values()):>7}"
        f"{judged.accepted:>9}{judged.confirmed:>6}"
        + "".join(f"{len(found):>4}" for found in rules)
        + f"{len(judged.recovered):>5}{judged.uncertain:>10}{judged.ambiguous:>7}"
        f"{len(seen.violations):>6}{drained:>8}"
        f"{'✗' if verdict.complaints else '✓':>3}"
    )
