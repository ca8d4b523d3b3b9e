"""How much of everything a run does, and the databases that its figures share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import fleet
from bench.cluster import Cluster
from bench.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Scale:
    """Of one run: rounds, seconds of a turn, enrollments of the fleet."""

    rounds: int
    seconds: float
    enrollments: int


USUAL = Scale(rounds=5, seconds=3.0, enrollments=1_000_000)
QUICK = Scale(rounds=3, seconds=0.5, enrollments=50_000)


@dataclass(slots=True)
class Bench:
    """What an experiment works with."""

    cluster: Cluster
    scale: Scale
    _kept: dict[Fleet, str] = field(default_factory=dict)

    @property
    def usual(self) -> Fleet:
        """The fleet of most figures: all of it due, limits high."""
        return Fleet(self.scale.enrollments, due=self.scale.enrollments)

    @contextmanager
    def copy(self, of: Fleet | None = None) -> Iterator[str]:
        """A copy of a fleet, which is loaded once; the DSN of its database."""
        of = of or self.usual
        if of not in self._kept:
            name = f"fleet_{len(self._kept) + 1}"
            fleet.load(self.cluster.create(name), of)
            self._kept[of] = name
        with self.cluster.copy(self._kept[of]) as dsn:
            yield dsn
