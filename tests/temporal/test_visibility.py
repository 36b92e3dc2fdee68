"""What people see in Temporal: attributes, summaries and links of runs, versions and metrics of workers."""

import asyncio
import urllib.request
from urllib.parse import quote

import pytest
from temporalio.api.operatorservice.v1 import RemoveSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from routines_core.db import Connection
from routines_core.db.keys import parse_token
from routines_core.db.tick import tick
from routines_core.db.trajectories import find_trajectory
from routines_core.distribution import installed_version
from routines_engine.temporal import search_attributes
from routines_engine.temporal.search_attributes import TYPES, register
from support.rows import CATCHUP, Database, at, make_key, make_routine, value
from support.service import free_port
from support.temporal_working import temporal_id_of, temporal_working
from support.working import run_of, task_of, until, until_ended, workflow_of

ECHO = workflow_of(("one", {"activity": "text_echo", "text": "hi"}))


SLOT = "RoutinesScheduledFor BETWEEN '2026-05-04T08:59:59Z' AND '2026-05-04T09:00:01Z'"


async def found(temporal: Client, query: str) -> list[str]:
    """Return the ids of the workflows that a query finds, once there are any: the list lags behind."""
    async with asyncio.timeout(20):
        while True:
            if ids := [each.id async for each in temporal.list_workflows(query)]:
                return ids
            await asyncio.sleep(0.1)


async def test_a_run_is_found_in_temporal_by_its_collection_task_routine_trigger_and_slot(
    connection: Connection, database: Database, temporal: Client
) -> None:
    task = await task_of(connection, "report", ECHO)
    await make_routine(connection, task, at("2026-05-04 09:00"), name="mornings")
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    run = int(str(await value(connection, "SELECT id FROM routines.trajectories")))
    other = await run_of(connection, task)
    async with temporal_working(database.url, temporal, public_url="https://routines.example.com/"):
        assert await until_ended(connection, run) == ("completed", None)
        assert await until_ended(connection, other) == ("completed", None)
    scheduled, by_hand = [await temporal_id_of(connection, each, "report") for each in (run, other)]
    assert set(await found(temporal, "RoutinesCollection = 'my-org' AND RoutinesTask = 'report'")) == {
        scheduled,
        by_hand,
    }
    assert await found(temporal, "RoutinesRoutine = 'mornings'") == [scheduled]
    assert await found(temporal, "RoutinesTrigger = 'api'") == [by_hand]
    assert await found(temporal, SLOT) == [scheduled]
    seen = await temporal.get_workflow_handle(scheduled).describe()
    assert await seen.static_summary() == "my-org/report by mornings for 2026-05-04 09:00 UTC"
    link = f"[Run {run}](https://routines.example.com/console/#/runs/report/{run})"
    assert await seen.static_details() == link
    assert await (await temporal.get_workflow_handle(by_hand).describe()).static_summary() == "my-org/report (api)"


async def test_the_api_and_its_clients_get_a_link_to_a_run_on_temporal(
    connection: Connection, database: Database, temporal: Client
) -> None:
    task = await task_of(connection, "t", ECHO)
    on_temporal = await run_of(connection, task)
    async with temporal_working(database.url, temporal):
        assert await until_ended(connection, on_temporal) == ("completed", None)
    not_on_temporal = await run_of(connection, task)
    key = parse_token(await make_key(connection, "my-org")).key_id
    where = {"key_id": key, "task": "t"}

    async def link_of(run: int, ui: str | None) -> str | None:
        return (await find_trajectory(connection, **where, trajectory_id=run, temporal_ui=ui)).temporal_url

    ui = "https://temporal.example.com/namespaces/routines"
    temporal_id = quote(await temporal_id_of(connection, on_temporal, "t"), safe="")
    assert await link_of(on_temporal, ui) == f"{ui}/workflows/{temporal_id}"
    assert await link_of(on_temporal, None) is None
    assert await link_of(not_on_temporal, ui) is None


async def test_a_namespace_without_the_attributes_has_its_runs_without_them(
    connection: Connection, database: Database, temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where the program may not register them, and where somebody has removed them."""
    run = await run_of(connection, await task_of(connection, "t", ECHO))

    async def registered(_: Client) -> bool:
        return True

    monkeypatch.setattr("routines_engine.temporal.program.register", registered)
    async with temporal_working(database.url, temporal) as worker:
        assert await until_ended(connection, run) == ("completed", None)
        assert not worker._submitter.has_attributes
    elsewhere = await Client.connect(temporal.service_client.config.target_host, namespace="absent")
    assert not await register(elsewhere)


async def test_missing_attributes_are_registered_again(temporal: Client) -> None:
    assert await register(temporal)
    request = RemoveSearchAttributesRequest(search_attributes=["RoutinesTask"], namespace=temporal.namespace)
    await temporal.operator_service.remove_search_attributes(request)
    assert list(await search_attributes._missing(temporal)) == ["RoutinesTask"]
    assert await register(temporal)
    assert not await search_attributes._missing(temporal)
    assert len(TYPES) == 5


async def test_workers_of_a_deployment_execute_runs_once_their_version_is_the_current_one(
    connection: Connection, database: Database, temporal: Client
) -> None:
    task = await task_of(connection, "t", workflow_of(("one", {"activity": "text_echo", "text": "hi"})))
    async with temporal_working(database.url, temporal, temporal_deployment="routines"):
        await make_current(temporal, "routines")
        run = await run_of(connection, task)
        assert await until_ended(connection, run) == ("completed", None)
        handle = temporal.get_workflow_handle(await temporal_id_of(connection, run, "t"))
        assert await handle.result() == "completed"
        seen = await handle.describe()
    found = seen.raw_description.workflow_execution_info.versioning_info
    assert found.deployment_version.build_id == installed_version()


async def make_current(temporal: Client, deployment: str) -> None:
    """Make this version of Routines the current one of a deployment, once a worker has shown itself."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=temporal.namespace, deployment_name=deployment, build_id=installed_version(),
        ignore_missing_task_queues=True,
    )  # fmt: skip
    async with asyncio.timeout(20):
        while True:
            try:
                await temporal.workflow_service.set_worker_deployment_current_version(request)
            except RPCError:
                await asyncio.sleep(0.2)
            else:
                return


async def test_the_sdks_metrics_are_served_where_the_setting_says(
    connection: Connection, database: Database, temporal: Client
) -> None:
    address = f"127.0.0.1:{free_port()}"
    run = await run_of(connection, await task_of(connection, "t", ECHO))
    async with temporal_working(database.url, temporal, temporal_metrics=address):
        assert await until_ended(connection, run) == ("completed", None)
        await until(connection, "SELECT count(*) = 0 FROM routines.dispatches")
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{address}/metrics").read().decode())
    assert "temporal_local_activity_execution_latency" in page or "temporal_workflow_completed" in page
