"""What a runner counts: plain numbers, free of whoever reads them."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

BOUNDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds


@dataclass(slots=True)
class Durations:
    """How many took up to each of BOUNDS, the last: longer; and the sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Stats:
    """Everything since the start of the runner.

    `outcomes` by channel and outcome, `verdicts` as report() gave them, `sends` by
    channel, `calls` by database function.
    """

    claimed: int = 0
    given_back: int = 0
    refused: int = 0
    database_errors: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    sends: defaultdict[str, Durations] = field(
        default_factory=lambda: defaultdict(Durations)
    )
    calls: defaultdict[str, Durations] = field(
        default_factory=lambda: defaultdict(Durations)
    )

    @contextmanager
    def timed(self, function: str) -> Iterator[None]:
        """Measure a call of the database, also one that fails."""
        began_at = monotonic()
        try:
            yield
        finally:
            self.calls[function].add(monotonic() - began_at)
