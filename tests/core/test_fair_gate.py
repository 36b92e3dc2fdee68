"""The fair gate: a collection that holds much never keeps out one that holds nothing."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.fair_gate import FairGate, GateFullError


async def test_one_owner_alone_gets_all_places_but_the_reserve() -> None:
    gate = FairGate(size=5, reserve=2)
    assert [gate.try_enter("a") for _ in range(5)] == [True, True, True, False, False]
    assert [gate.try_enter(owner) for owner in ("b", "b", "c", "d")] == [True, False, True, False]


async def test_a_place_that_is_left_goes_to_the_owner_with_the_fewest() -> None:
    gate, order = FairGate(size=2, reserve=0), list[str]()
    assert gate.try_enter("a")
    assert gate.try_enter("a")

    async def wait(owner: str) -> None:
        async with gate.place(owner):
            order.append(owner)

    waiting = [asyncio.create_task(wait(owner)) for owner in ("a", "a", "b", "c")]
    await asyncio.sleep(0)
    gate.leave("a")
    await asyncio.gather(*waiting)
    assert order[:2] == ["b", "c"]


async def test_waiting_ends_with_an_error_after_its_time() -> None:
    gate = FairGate(size=1, reserve=0)
    assert gate.try_enter("a")
    with pytest.raises(GateFullError):
        async with gate.place("b", 0.01):
            pass
    gate.leave("a")
    async with gate.place("b", 0.01):
        assert gate.held_by("b") == gate.in_use == 1


async def test_an_owner_with_too_many_waiting_is_refused_at_once() -> None:
    gate = FairGate(size=1, reserve=0, most_waiting=1)
    assert gate.try_enter("a")
    waiting = asyncio.create_task(_hold(gate, "a"))
    await asyncio.sleep(0)
    with pytest.raises(GateFullError):
        async with gate.place("a"):
            pass
    gate.leave("a")
    await waiting
    assert gate.in_use == 0


async def test_a_cancelled_wait_loses_no_place() -> None:
    gate = FairGate(size=1, reserve=0)
    assert gate.try_enter("a")
    waiting = asyncio.create_task(_hold(gate, "b"))
    await asyncio.sleep(0)
    gate.leave("a")  # grants the place in the moment of the cancellation
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.in_use == 0
    assert gate.try_enter("c")


async def _hold(gate: FairGate, owner: str) -> None:
    async with gate.place(owner):
        pass


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60), st.integers(1, 6), st.integers(0, 3))
async def test_no_sequence_exceeds_the_size_or_starves_an_owner_that_holds_none(
    moves: list[tuple[str, bool]], size: int, reserve: int
) -> None:
    gate = FairGate(size=size, reserve=min(reserve, size - 1))
    held: dict[str, int] = dict.fromkeys("abcd", 0)
    for owner, enters in moves:
        if enters:
            free = size - sum(held.values())
            expected = free > (gate.reserve if held[owner] else 0)
            assert gate.try_enter(owner) is expected
            held[owner] += expected
        elif held[owner]:
            gate.leave(owner)
            held[owner] -= 1
        assert gate.in_use == sum(held.values()) <= size


async def test_every_waiter_is_served_in_the_end() -> None:
    gate = FairGate(size=3, reserve=1)
    served = 0

    async def work(owner: int) -> None:
        nonlocal served
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(gate.place(owner))
            await asyncio.sleep(0)
            served += 1

    await asyncio.gather(*(work(number % 7) for number in range(200)))
    assert (served, gate.in_use) == (200, 0)
