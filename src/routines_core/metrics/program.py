"""The metrics of one process: a registry of its own, and the page that shows it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from copy import copy
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4"
"""The text format that every Prometheus reads, in UTF-8."""

Refresh = Callable[[], Awaitable[None]]
"""What is done before a page is shown; it raises nothing, and takes a bounded time."""

disable_created_metrics()  # a second series for each counter, which nobody asks for


class ProgramMetrics(Collector):
    """What one process shows; each program adds its own to the registry.

    Args:
        program: api, ticker or worker.

    Attributes:
        registry: Its own: nothing that a library puts into the global one is shown.
        refreshes: What is done before each page.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.registry = CollectorRegistry()
        self.refreshes: list[Refresh] = []
        built = Gauge(
            "routines_build_info", "Always 1; the version is a label.", ["program", "version"], registry=self.registry
        )
        built.labels(program, version("routines")).set(1)
        self.registry.register(_ProcessFigures(program))

    async def page(self) -> bytes:
        """Every metric in the text format of Prometheus."""
        await asyncio.gather(*(refresh() for refresh in self.refreshes))
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """Every metric once, with the samples of all collectors that have it."""
        families: dict[str, Metric] = {}
        for family in self.registry.collect():
            if family.name not in families:
                families[family.name] = copy(family)
            else:
                families[family.name].samples = [*families[family.name].samples, *family.samples]
        return families.values()


class _ProcessFigures(Collector):
    """CPU, memory and files of this process, as far as the system tells; the program is a label."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._process = ProcessCollector(namespace="routines", registry=None)

    def collect(self) -> Iterable[Metric]:
        for family in self._process.collect():
            family.samples = [sample._replace(labels={"program": self._program}) for sample in family.samples]
            yield family
