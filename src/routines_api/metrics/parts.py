"""Pages of other programs, shown with the API's own: so that one scrape of `routines up` tells of all its parts."""

import asyncio
import ssl
from collections.abc import Iterable

import httpx
import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

TIMEOUT_SECONDS = 1.0
"""How long a part may take to show its page."""

_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Every page is asked for without TLS: to read the system's certificates each time would cost more than the rest."""

log = structlog.get_logger("metrics")


class Parts(Collector):
    """The pages of these programs as they were when they were last asked.

    Args:
        given: `name=URL`, several with commas between; None: there are none.
        token: What their pages ask for; None: nothing.

    Attributes:
        names: Of the parts.
    """

    def __init__(self, given: str | None, token: str | None) -> None:
        pairs = (part.partition("=") for part in (given or "").split(",") if part)
        self._urls = {name: url for name, _, url in pairs}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pages: dict[str, list[Metric]] = {}
        self.names = list(self._urls)

    async def refresh(self) -> None:
        """Ask each of them, all at once."""
        client = httpx.AsyncClient(
            trust_env=False, headers=self._headers, timeout=TIMEOUT_SECONDS, verify=_NO_AUTHORITIES
        )
        async with client:
            pages = await asyncio.gather(*(self._page(client, name) for name in self.names))
        self._pages = {name: page for name, page in zip(self.names, pages, strict=True) if page is not None}

    async def _page(self, client: httpx.AsyncClient, name: str) -> list[Metric] | None:
        """What a part shows; None: it shows nothing."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = (await client.get(self._urls[name])).raise_for_status()
            return list(text_string_to_metric_families(answer.text))
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            log.info("a part shows no metrics", part=name, error=type(error).__name__)
            return None

    def describe(self) -> Iterable[Metric]:
        """No names: the parts say what they have."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Whether each showed its page, and what stood there."""
        up = GaugeMetricFamily("routines_part_up", "1 where a part of `routines up` showed its page.", labels=["part"])
        for name in self.names:
            up.add_metric([name], float(name in self._pages))
        yield up
        for page in self._pages.values():
            yield from page
