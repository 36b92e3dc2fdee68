"""The metrics of one process: its registry and the page that shows it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from copy import copy

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from routines_core.distribution import installed_version
from routines_core.log_stream import lost_lines
from routines_core.metrics.loop_lag import LoopLag

MEDIA_TYPE = "text/plain; version=0.0.4"
"""The text format that every version of Prometheus reads, in UTF-8."""

Refresh = Callable[[], Awaitable[None]]
"""Called before a page is rendered; must not raise and must take bounded time."""

disable_created_metrics()  # they would double the series of every counter


class ProgramMetrics(Collector):
    """The metrics of one process; each program adds its own to the registry.

    Args:
        program: api, ticker or worker.

    Attributes:
        registry: Private to the process, so metrics that libraries add to the global registry are not shown.
        refreshes: Called before each page.
        loop_lag: How late the program's event loop is; the program starts to observe it.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.registry = CollectorRegistry()
        self.refreshes: list[Refresh] = []
        built = Gauge(
            "routines_build_info", "Always 1; the version is a label.", ["program", "version"], registry=self.registry
        )
        built.labels(program, installed_version()).set(1)
        self._loop_failures = Counter(
            "routines_process_loop_failures_total",
            "Times that a loop of the program failed and was tried again, by kind: away, refused, bug.",
            ["program", "loop", "kind"],
            registry=self.registry,
        )
        self.registry.register(_ProcessMetrics(program))
        self.loop_lag = LoopLag(self.registry, program)

    def loop_failed(self, loop: str, kind: str) -> None:
        """Count a failure of one of the program's loops: see Bulkhead."""
        self._loop_failures.labels(self.program, loop, kind).inc()

    async def page(self) -> bytes:
        """Refresh the metrics and render them in the Prometheus text format."""
        await asyncio.gather(*(refresh() for refresh in self.refreshes))
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """Merge the registry's metrics by name.

        Returns:
            Each metric once, with the samples of all collectors that provide it.
        """
        families: dict[str, Metric] = {}
        for family in self.registry.collect():
            if family.name not in families:
                families[family.name] = copy(family)
            else:
                families[family.name].samples = [*families[family.name].samples, *family.samples]
        return families.values()


class _ProcessMetrics(Collector):
    """CPU, memory and open files of this process, if the system provides them, labelled with the program."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._process = ProcessCollector(namespace="routines", registry=None)

    def collect(self) -> Iterable[Metric]:
        for family in self._process.collect():
            family.samples = [sample._replace(labels={"program": self._program}) for sample in family.samples]
            yield family
        lost = CounterMetricFamily(
            "routines_process_log_lines_lost", "Lines of the log that could not be written.", labels=["program"]
        )
        lost.add_metric([self._program], lost_lines())
        yield lost
