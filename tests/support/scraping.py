"""Read a page of metrics the way Prometheus does."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Page:
    """One scrape of a metrics endpoint."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with this name and these labels; fails if the page has no such metric."""
        named = [sample for sample in self.samples if sample.name == name]
        family = name.removesuffix("_total").removesuffix("_count").removesuffix("_sum").removesuffix("_bucket")
        assert named or family in self.families, f"the page has no metric {name}"
        return sum(sample.value for sample in named if labels.items() <= sample.labels.items())

    def has(self, name: str, **labels: str) -> bool:
        """Return whether the page has such a sample."""
        return any(sample.name == name and labels.items() <= sample.labels.items() for sample in self.samples)


def scrape(url: str, token: str | None = None) -> Page:
    """Fetch the page at this /metrics URL, within the time that Prometheus would wait."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(url, headers=headers, timeout=10, verify=False)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Page(answer.text)


def scrape_until(
    url: str, condition: Callable[[Page], Any], wait_until: Callable[..., None], seconds: float = 60
) -> Page:
    """Scrape until the condition holds, and return that page."""
    found: list[Page] = []

    def holds() -> object:
        with suppress(httpx.TransportError):  # the program may not be listening yet
            found[:] = [scrape(url)]
            return condition(found[0])
        return False

    wait_until(holds, seconds)
    return found[0]
