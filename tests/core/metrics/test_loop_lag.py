"""A program whose event loop stands still shows for how long."""

import asyncio
import time

from routines_core.metrics.loop_lag import INTERVAL_SECONDS
from routines_core.metrics.program import ProgramMetrics

NAME = "routines_process_event_loop_lag_seconds"
STALL_SECONDS = 0.5
SLOW = 0.2
"""A bucket that a stall exceeds, even if it had begun by the moment of a check."""


def observed(metrics: ProgramMetrics, part: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(f"{NAME}_{part}", {"program": metrics.program, **labels})
    assert value is not None
    return value


def slow_checks(metrics: ProgramMetrics) -> float:
    return observed(metrics, "count") - observed(metrics, "bucket", le=str(SLOW))


async def until_checked(metrics: ProgramMetrics, times: int) -> None:
    before = observed(metrics, "count")
    async with asyncio.timeout(20):
        while observed(metrics, "count") < before + times:  # noqa: ASYNC110 - nothing tells of a check
            await asyncio.sleep(INTERVAL_SECONDS / 4)


async def test_a_stall_of_the_loop_is_observed_with_its_length() -> None:
    metrics = ProgramMetrics("worker")
    async with metrics.loop_lag.observed():
        await until_checked(metrics, 1)
        slow, lag = slow_checks(metrics), observed(metrics, "sum")
        time.sleep(STALL_SECONDS)  # noqa: ASYNC251 - the stall
        await until_checked(metrics, 1)
    assert slow_checks(metrics) > slow
    assert observed(metrics, "sum") - lag >= STALL_SECONDS - INTERVAL_SECONDS


async def test_a_loop_that_waits_has_no_lag() -> None:
    metrics = ProgramMetrics("worker")
    async with metrics.loop_lag.observed():
        await until_checked(metrics, 5)
        cpu_before = time.thread_time()
        await until_checked(metrics, 5)
    assert time.thread_time() - cpu_before < 5 * INTERVAL_SECONDS / 2  # checking costs little
    assert observed(metrics, "bucket", le="0.05") > 0


async def test_nothing_is_observed_once_the_program_stops() -> None:
    metrics = ProgramMetrics("worker")
    async with metrics.loop_lag.observed():
        await until_checked(metrics, 1)
    count = observed(metrics, "count")
    async with ProgramMetrics("other").loop_lag.observed():
        await asyncio.sleep(3 * INTERVAL_SECONDS)
    assert observed(metrics, "count") == count


def test_it_is_shown_from_the_start() -> None:
    assert observed(ProgramMetrics("api"), "count") == 0
