"""What a runner counts, for Prometheus. Needs the extra `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pgdrip import __version__
from pgdrip.runner import Runner
from pgdrip.stats import BOUNDS, Durations

if TYPE_CHECKING:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )


def page(runner: Runner) -> Callable[[], tuple[str, bytes]] | None:
    """What gives content type and text of the page; None without the library."""
    try:
        import prometheus_client as prometheus
    except ImportError:
        return None
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(runner))
    prometheus.ProcessCollector(registry=registry)
    return lambda: (
        prometheus.CONTENT_TYPE_LATEST,
        prometheus.generate_latest(registry),
    )


class _Collector:
    """Reads the numbers when somebody asks for them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        stats = self._runner.stats
        yield _histogram("pgdrip_send_seconds", "Sends", "channel", stats.sends)
        yield _histogram("pgdrip_call_seconds", "Database", "function", stats.calls)

    def _gauges(self) -> Iterator[Metric]:
        runner = self._runner
        build = _gauge(
            "pgdrip_build_info", "The version that runs", "version", "runner"
        )
        build.add_metric([__version__, runner.settings.name], 1)
        yield build
        held = _gauge("pgdrip_in_flight", "Messages held, by state", "state")
        held.add_metric(["unbegun"], runner.sends.unbegun)
        held.add_metric(["sending"], len(runner.sends) - runner.sends.unbegun)
        held.add_metric(["unreported"], runner.unreported)
        yield held
        slots = _gauge("pgdrip_slots", "Messages it may hold")
        slots.add_metric([], runner.settings.slots)
        yield slots
        ready = _gauge("pgdrip_ready", "1 while it claims")
        ready.add_metric([], runner.is_ready)
        yield ready
        away = _gauge("pgdrip_gateway_away", "1 while nothing reaches it", "channel")
        for channel in runner.breakers.closed:
            away.add_metric([channel], 0)
        for channel in runner.breakers.away:
            away.add_metric([channel], 1)
        yield away

    def _counters(self) -> Iterator[Metric]:
        stats = self._runner.stats
        for name, text, number in (
            ("claimed", "Messages claimed", stats.claimed),
            ("given_back", "Messages given back before their send", stats.given_back),
            ("refused", "Messages begin_send did not grant", stats.refused),
            ("database_errors", "Turns a failed call ended", stats.database_errors),
        ):
            counter = _counter(f"pgdrip_{name}", text)
            counter.add_metric([], number)
            yield counter
        ended = _counter("pgdrip_sends", "Sends that ended", "channel", "outcome")
        for (channel, outcome), number in stats.outcomes.items():
            ended.add_metric([channel, outcome], number)
        yield ended
        told = _counter("pgdrip_verdicts", "What report made of them", "verdict")
        for verdict, number in stats.verdicts.items():
            told.add_metric([verdict], number)
        yield told


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, labels=labels)


def _histogram(
    name: str, text: str, label: str, measured: Mapping[str, Durations]
) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, f"{text}, in seconds", labels=[label])
    for value, durations in measured.items():
        buckets, below = [], 0
        for bound, count in zip((*BOUNDS, "+Inf"), durations.counts, strict=True):
            below += count
            buckets.append((str(bound), float(below)))
        family.add_metric([value], buckets, durations.total)
    return family
