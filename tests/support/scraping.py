"""A page of metrics as Prometheus reads it."""

from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Page:
    """What one scrape showed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels; a name that is not there fails."""
        named = [sample for sample in self.samples if sample.name == name]
        family = name.removesuffix("_total").removesuffix("_count").removesuffix("_sum").removesuffix("_bucket")
        assert named or family in self.families, f"{name} is not on the page"
        return sum(sample.value for sample in named if labels.items() <= sample.labels.items())

    def has(self, name: str, **labels: str) -> bool:
        """Whether there is such a sample."""
        return any(sample.name == name and labels.items() <= sample.labels.items() for sample in self.samples)


def scrape(url: str, token: str | None = None) -> Page:
    """The page behind this URL of /metrics; it must answer in the time that Prometheus waits."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(url, headers=headers, timeout=10)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Page(answer.text)


def awaited(url: str, condition: Callable[[Page], Any], wait_until: Callable[..., None], seconds: float = 60) -> Page:
    """The first page for which this holds."""
    found: list[Page] = []

    def holds() -> object:
        found[:] = [scrape(url)]
        return condition(found[0])

    wait_until(holds, seconds)
    return found[0]
