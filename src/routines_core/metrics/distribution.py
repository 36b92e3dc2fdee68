"""A histogram that records many equal observations in one call and costs a hot path almost nothing."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 1800, 3600)
"""Seconds, from a millisecond to an hour: for delays."""
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: for statements and requests."""


@dataclass(eq=False)
class _Series:
    counts: list[int]
    total: float = 0.0


class Distribution(Collector):
    """A histogram of one process. Not thread-safe: observe on the event loop only.

    Args:
        registry: Registry that exposes it.
        name: Name including the unit, for example `routines_ticker_batch_duration_seconds`.
        documentation: Help text.
        buckets: Upper bounds, ascending; `+Inf` is added.
        labels: Label names; a histogram without labels is shown from the start.
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
        """Record a value, `times` times."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._empty()
        series.counts[bisect_left(self._bounds, value)] += times
        series.total += value * times

    def describe(self) -> Iterable[Metric]:
        """Yield the metric without samples; the registry asks for its name."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric with its samples."""
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
