"""The histogram that records many observations in one call shows the same as the library's own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from routines_core.metrics.distribution import DELAY_BUCKETS, Distribution

OBSERVED = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(DELAY_BUCKETS), st.integers(0, 2**20).map(lambda n: n / 128)), st.integers(1, 9)
    )
)


@given(OBSERVED)
def test_it_shows_the_same_as_a_histogram_that_observes_each_value(observed: list[tuple[float, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution(ours, "waited_seconds", "How long.", DELAY_BUCKETS)
    histogram = Histogram("waited_seconds", "How long.", registry=theirs, buckets=DELAY_BUCKETS)
    for value, times in observed:
        distribution.observe(value, times=times)
        for _ in range(times):
            histogram.observe(value)
    assert lines(ours) == pytest.approx(lines(theirs))


def lines(registry: CollectorRegistry) -> dict[str, float]:
    text = [line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in text}


def test_each_combination_of_labels_is_its_own_series() -> None:
    registry = CollectorRegistry()
    distribution = Distribution(registry, "ran_seconds", "How long.", (1, 2), ["status"])
    distribution.observe(0.5, "completed")
    distribution.observe(9, "failed", times=3)
    told: Any = registry.get_sample_value
    assert told("ran_seconds_count", {"status": "completed"}) == 1
    assert told("ran_seconds_sum", {"status": "failed"}) == 27
    assert told("ran_seconds_bucket", {"status": "failed", "le": "2.0"}) == 0


def test_a_name_cannot_be_registered_twice() -> None:
    registry = CollectorRegistry()
    Distribution(registry, "ran_seconds", "How long.")
    with pytest.raises(ValueError, match="Duplicated"):
        Distribution(registry, "ran_seconds", "How long.")
