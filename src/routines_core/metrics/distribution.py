"""A histogram that takes many equal observations at once, and that costs a hot path next to nothing."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800, 3600)
"""Seconds, from a millisecond to an hour: for what may be late."""
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: for statements and requests."""


@dataclass(eq=False)
class _Series:
    counts: list[int]
    total: float = 0.0


class Distribution(Collector):
    """A histogram of one process. Not for threads: observe on the event loop alone.

    Args:
        registry: Where it is shown.
        name: With its unit, as `routines_ticker_batch_duration_seconds`.
        documentation: What is observed.
        buckets: Upper bounds, ascending; one above them all is added.
        labels: Names of its labels; without any it is shown from the start.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        buckets: Sequence[float] = DURATION_BUCKETS,
        labels: Sequence[str] = (),
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(buckets)
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], _Series] = {}
        if not labels:
            self._series[()] = self._empty()
        registry.register(self)

    def observe(self, value: float, *labels: str, times: int = 1) -> None:
        """Count a value, once or several times."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._empty()
        series.counts[bisect_left(self._bounds, value)] += times
        series.total += value * times

    def describe(self) -> Iterable[Metric]:
        """Its name, for the registry."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        """Its samples."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, series in list(self._series.items()):
            seen, buckets = 0, list[tuple[str, float]]()
            for name, count in zip(names, series.counts, strict=True):
                seen += count
                buckets.append((name, seen))
            family.add_metric(labels, buckets, series.total)
        yield family

    def _empty(self) -> _Series:
        return _Series([0] * (len(self._bounds) + 1))
