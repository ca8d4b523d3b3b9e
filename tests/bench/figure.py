"""What a figure is: rounds of one measure, and what was asked of their median."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.plan import Bench


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table; `values` are the rounds, in `unit`."""

    name: str
    values: Sequence[float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    notes: Sequence[str] = ()
    """What the rounds were beside: rates, costs, scales; each a few words."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_reached(self) -> bool | None:
        """None where nothing was asked."""
        if self.at_least is not None:
            return self.median >= self.at_least
        if self.at_most is not None:
            return self.median <= self.at_most
        return None

    def measured(self) -> str:
        low, high = min(self.values), max(self.values)
        spread = f" ({short(low)} to {short(high)})" if len(self.values) > 1 else ""
        return f"{short(self.median)}{spread} {self.unit}"

    def asked(self) -> str:
        if self.at_least is not None:
            return f"≥ {short(self.at_least)}"
        return f"≤ {short(self.at_most)}" if self.at_most is not None else ""

    def verdict(self) -> str:
        return {True: "reached", False: "not reached", None: ""}[self.is_reached]


def short(number: float) -> str:
    """Three digits that count."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


@dataclass(slots=True)
class Points:
    """A line of the plot: rates over something that grows."""

    name: str
    x: str
    points: list[tuple[float, float]] = field(default_factory=list)


Found = Figure | Points
Experiment = Callable[["Bench"], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An experiment, by the words that ONLY= finds it by."""

    name: str
    run: Experiment
    is_large: bool = False


ENTRIES: list[Entry] = []


def experiment(
    name: str, *, is_large: bool = False
) -> Callable[[Experiment], Experiment]:
    """Enter an experiment into the program, in the order of their definition."""

    def enter(run: Experiment) -> Experiment:
        ENTRIES.append(Entry(name, run, is_large))
        return run

    return enter


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def rates(values: Sequence[float], what: str) -> str:
    """A note: the median of rates, and their range."""
    low, high = min(values), max(values)
    return f"{what} {statistics.median(values):,.0f}/s ({low:,.0f} to {high:,.0f})"
