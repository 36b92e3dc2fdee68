"""The budget of bytes: bounded per owner and in all, given back, and fair to owners that hold little."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from routines_api.http.byte_budget import ByteBudget
from routines_core.fair_gate import GateFullError


async def test_an_owner_gets_its_share_and_the_rest_stays_for_others() -> None:
    budget = ByteBudget(total=100, per_owner=60)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(budget.hold("a", 60, 0.01))
        with pytest.raises(GateFullError):
            await stack.enter_async_context(budget.hold("a", 1, 0.01))
        assert budget.is_spent_by("a", 1)
        await stack.enter_async_context(budget.hold("b", 40, 0.01))
        with pytest.raises(GateFullError):
            await stack.enter_async_context(budget.hold("c", 1, 0.01))
        assert not budget.is_spent_by("c", 1)
    assert budget.in_use == 0


async def test_a_size_over_the_budget_takes_all_of_it_and_an_empty_body_takes_nothing() -> None:
    budget = ByteBudget(total=100, per_owner=60)
    async with budget.hold("a", 1000, 0.01), budget.hold("a", 0, 0.01):
        assert budget.held_by("a") == 60


async def test_the_owner_that_holds_least_is_served_first_and_a_cancelled_wait_loses_nothing() -> None:
    budget, order = ByteBudget(total=100, per_owner=100), list[str]()

    async def wait(owner: str) -> None:
        async with budget.hold(owner, 50, 10):
            order.append(owner)

    async with AsyncExitStack() as outer:
        await outer.enter_async_context(budget.hold("a", 20, 1))
        async with budget.hold("a", 80, 1):
            waiting = [asyncio.create_task(wait(owner)) for owner in ("a", "b", "c")]
            await asyncio.sleep(0)
            waiting[2].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["b", "a"]
    assert budget.in_use == 0
    async with budget.hold("d", 100, 0.01):
        pass
