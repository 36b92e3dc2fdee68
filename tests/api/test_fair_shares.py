"""Limited resources of a process are shared: a collection that holds much never keeps out one that holds nothing."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from routines_api.app import Api, create_app
from routines_api.http import access, work
from routines_api.http.access import CONNECTIONS, RESERVED_CONNECTIONS, place_of
from routines_api.http.errors import CollectionBusyError, ServiceBusyError, WorkBudgetError
from routines_api.http.run_waiter import RunWaiter
from routines_api.http.work import SMALL_BYTES, Work
from routines_core.db import Connection, open_pool
from routines_core.fair_gate import FairGate
from support.rows import Database, api_settings, make_key, value

WORKFLOW: dict[str, Any] = {"init_params": {}, "steps": [], "step_configs": {}}


@asynccontextmanager
async def serving(database: Database, **settings: Any) -> AsyncGenerator[Api]:
    app = create_app(api_settings(**settings), database.url)
    async with open_pool(database.url, "routines-api", size=CONNECTIONS) as app.state.pool:
        yield app


def client_of(app: Api, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers, timeout=30)


async def test_connections_that_one_collection_holds_leave_some_for_another(
    connection: Connection, database: Database
) -> None:
    """Another collection is answered at once while all connections of the first one wait for a lock."""
    alpha, beta = await make_key(connection, "alpha"), await make_key(connection, "beta")
    async with serving(database) as app, client_of(app, alpha) as greedy, client_of(app, beta) as modest:
        assert (await greedy.post("/api/v1/tasks/alpha", json={"name": "t", "workflow": WORKFLOW})).status_code == 201
        assert (await modest.get("/api/v1/tasks/beta")).status_code == 200
        async with connection.transaction(force_rollback=True):
            await connection.execute("SELECT FROM routines.tasks FOR UPDATE")
            change = {"description": "waits"}
            waiting = [asyncio.create_task(greedy.put("/api/v1/tasks/alpha/t", json=change)) for _ in range(40)]
            gate = app.state.services.connections
            async with asyncio.timeout(20):
                while gate.in_use < CONNECTIONS - 1 - RESERVED_CONNECTIONS:  # noqa: ASYNC110 - it is polled
                    await asyncio.sleep(0.01)
                for _ in range(5):
                    assert (await modest.get("/api/v1/tasks/beta")).status_code == 200
        statuses = {answer.status_code for answer in await asyncio.gather(*waiting)}
        assert 200 in statuses


async def test_a_busy_collection_gets_429_and_a_collection_without_a_place_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "ROOM_SECONDS", 0.01)
    gate = FairGate(2, reserve=1)
    assert gate.try_enter("a")
    with pytest.raises(CollectionBusyError):
        async with place_of(gate, "a"):
            pass
    async with place_of(gate, "b"):
        with pytest.raises(ServiceBusyError):
            async with place_of(gate, "c"):
                pass


async def test_seats_of_run_sync_are_left_for_other_collections(connection: Connection, database: Database) -> None:
    """205 requests of one collection wait or are answered 202; another collection still gets several seats."""
    alpha, beta = await make_key(connection, "alpha"), await make_key(connection, "beta")
    async with serving(database, run_sync_seconds=60) as app, client_of(app, alpha) as a, client_of(app, beta) as b:
        for client, name in ((a, "alpha"), (b, "beta")):
            await client.post(f"/api/v1/tasks/{name}", json={"name": "t", "workflow": WORKFLOW})
        hogs = [asyncio.create_task(a.post("/api/v1/run-sync/alpha/t")) for _ in range(205)]
        seats = app.state.services.run_waiter.seats
        async with asyncio.timeout(60):
            while seats.in_use < 150 or sum(task.done() for task in hogs) < 55:  # noqa: ASYNC110 - it is polled
                await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(b.post("/api/v1/run-sync/beta/t")) for _ in range(5)]
        async with asyncio.timeout(20):
            while seats.in_use < 155:  # noqa: ASYNC110 - it is polled
                await asyncio.sleep(0.02)
        await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert sorted({answer.status_code for answer in await asyncio.gather(*hogs)}) == [200, 202]
        assert seats.in_use == 0


async def test_a_seat_is_given_back_when_the_client_leaves(database: Database) -> None:
    waiter = RunWaiter(FairGate(1, reserve=0))
    async with open_pool(database.url, "tests", size=1) as pool:
        waiting = asyncio.create_task(waiter.wait(pool, "a", 1, 60))
        await asyncio.sleep(0)
        assert not await waiter.wait(pool, "b", 2, 60)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiter.seats.in_use == 0


# --- processor time ---------------------------------------------------------------------------------------------------


def spin(seconds: float) -> str:
    ends_at = time.thread_time() + seconds
    while time.thread_time() < ends_at:
        pass
    return "done"


async def test_a_key_that_has_used_up_its_processor_time_is_refused_until_it_has_some_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = Work(seconds_per_minute=0.05)
    given: dict[str, Any] = {"owner": 1, "size": 1, "place": place_of}
    assert await budget.run(lambda: spin(0.06), key_id=1, **given) == "done"
    with pytest.raises(WorkBudgetError) as refused:
        await budget.run(lambda: spin(0), key_id=1, **given)
    assert 0 < refused.value.retry_after_seconds < 120
    assert await budget.run(lambda: spin(0), key_id=2, **given) == "done"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert await budget.run(lambda: spin(0), key_id=1, **given) == "done"


async def test_work_on_a_large_body_leaves_the_event_loop_free_and_is_charged() -> None:
    budget, longest = Work(seconds_per_minute=0.6), 0.0
    task = asyncio.create_task(budget.run(lambda: spin(0.5), key_id=1, owner=1, size=SMALL_BYTES + 1, place=place_of))
    while not task.done():
        began_at = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - began_at)
    assert await task == "done"
    assert longest < 0.45
    assert budget.seconds_left(1) < 0.4


async def test_one_collections_large_bodies_leave_a_thread_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ROOM_SECONDS", 60)
    budget, order = Work(seconds_per_minute=60), list[str]()

    async def check(owner: int, name: str) -> None:
        await budget.run(lambda: spin(0.03), key_id=owner, owner=owner, size=SMALL_BYTES + 1, place=place_of)
        order.append(name)

    hogs = [asyncio.create_task(check(1, "alpha")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.gather(*hogs, check(2, "beta"))
    assert order.index("beta") <= 2


async def test_a_workflow_beyond_the_budget_answers_429(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SMALL_BYTES", 0)
    key = await make_key(connection, "my-org")
    step = {"activity": "text_echo", "text": "{{a}}" * 12_000}
    body = {"name": "t", "workflow": {"init_params": {}, "steps": ["s"], "step_configs": {"s": step}}}
    async with serving(database, work_seconds_per_minute=0.02) as app, client_of(app, key) as client:
        answers = [await client.post("/api/v1/tasks/my-org", json=body) for _ in range(20)]
        assert (await client.get("/api/v1/tasks/my-org")).status_code == 200
    assert answers[0].status_code == 400
    refused = answers[-1]
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:routines:problem:too-much-work")
    assert int(refused.headers["retry-after"]) >= 1
    assert await value(connection, "SELECT count(*) FROM routines.tasks") == 0
