"""Outputs that are too large for a step's record are kept in a file, and later steps refer to them as to any other."""

import importlib
import os
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routines_core.db import Connection, limits
from routines_core.errors import StorageError
from routines_core.files.directory import DirectoryStore
from routines_engine.runs.worker import Worker
from routines_engine.steps.flow import StepFailedError
from routines_engine.steps.large_outputs import MAX_LARGE_BYTES
from routines_workflow.activity import ACTIVITIES
from support.flows import FakeServices, Journal, flow_of
from support.rows import Database, value
from support.run_secrets import give
from support.working import contained, run_of, task_of, until, until_ended, workflow_of, working

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
OUTPUTS = "SELECT outputs FROM routines.steps WHERE trajectory_id = %s AND name = %s"
LOAD = {"activity": "load_rows", "size": 3 * MIB}
ECHO_ROW = {"activity": "text_echo", "text_path": "load.outputs.rows[3].text"}


@pytest.fixture(autouse=True)
def activities() -> Generator[None]:
    """The greedy activities, also in this process."""
    known = set(ACTIVITIES)
    importlib.reload(importlib.import_module("support.greedy_activities"))
    yield
    for name in set(ACTIVITIES) - known:
        del ACTIVITIES[name]


def worker_of(kind: str, url: str, directory: Path, **settings: Any) -> AbstractAsyncContextManager[Worker]:
    return (working if kind == "inline" else contained)(url, data_dir=directory, **settings)


def file_of(directory: Path, path: str, collection_id: int = 1) -> Path:
    return directory / "files" / str(collection_id) / path


def files_in(directory: Path) -> list[str]:
    return [file.name for file in directory.glob("files/1/*")]


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inline", "processes"])
async def test_a_later_step_refers_into_outputs_of_three_mebibytes(
    connection: Connection, database: Database, tmp_path: Path, kind: str
) -> None:
    task = await task_of(connection, "t", workflow_of(("load", LOAD), ("echo", ECHO_ROW)))
    await limits.replace_limits(
        connection, {"run_step_bytes": 4096}, collection_id=await limits.find_collection(connection, "my-org")
    )
    run = await run_of(connection, task)
    async with worker_of(kind, database.url, tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, OUTPUTS, run, "echo") == {"text": "row 3 " + "x" * 1000}
    reference = await value(connection, OUTPUTS, run, "load")
    assert isinstance(reference, dict)
    content = file_of(tmp_path, reference["file_path"]).read_bytes()
    assert set(reference) == {"file_path", "bytes"}
    assert reference["bytes"] == len(content) > 3 * MIB
    assert msgspec.json.decode(content)["rows"][3] == {"id": 3, "text": "row 3 " + "x" * 1000}
    assert await value(connection, "SELECT has_file FROM routines.steps WHERE name = 'load'") is True
    assert await value(connection, "SELECT array_agg(path) FROM routines.file_uses WHERE trajectory_id = %s", run) == [
        reference["file_path"]
    ]
    assert await value(connection, "SELECT files FROM routines.collection_usage") == 1


async def test_a_step_process_that_ended_makes_no_difference(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    vanish = {"activity": "vanish", "fail_at": 1, "retry": {"max_attempts": 2, "backoff": 0}}
    steps = ("load", LOAD), ("before", ECHO_ROW), ("vanish", vanish), ("echo", ECHO_ROW)
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    async with contained(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, OUTPUTS, run, "echo") == await value(connection, OUTPUTS, run, "before")
    attempts = "SELECT jsonb_object_agg(name, attempt) FROM routines.steps"
    assert await value(connection, attempts) == {"load": 1, "before": 1, "vanish": 2, "echo": 1}


async def test_another_worker_that_resumes_the_run_sees_the_same(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    pause = {"activity": "pause_once", "value": str(tmp_path / "paused")}
    steps = ("load", LOAD), ("pause", pause), ("echo", ECHO_ROW)
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    async with working(database.url, data_dir=tmp_path):
        await until(connection, "SELECT count(*) = 2 FROM routines.steps")
    async with working(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, OUTPUTS, run, "echo") == {"text": "row 3 " + "x" * 1000}
    assert len(files_in(tmp_path)) == 1


async def test_a_secret_in_large_outputs_is_masked_in_the_file(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    load = {**LOAD, "names": ["TOKEN"]}
    run = await run_of(connection, await task_of(connection, "t", workflow_of(("load", load), ("echo", ECHO_ROW))))
    await give(connection, run, "TOKEN", "a-planted-secret")
    async with working(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    reference = await value(connection, OUTPUTS, run, "load")
    assert isinstance(reference, dict)
    content = file_of(tmp_path, reference["file_path"]).read_bytes()
    assert b"a-planted-secret" not in content
    assert content.count(b"row 3 ********") == 1
    assert await value(connection, OUTPUTS, run, "echo") == {"text": "row 3 ********" + "x" * 1000}


@pytest.mark.parametrize(
    ("values", "size", "cause"),
    [
        ({}, 17 * MIB, f"its outputs are larger than {MAX_LARGE_BYTES} bytes as JSON: keep large data in a file"),
        ({"files": 0}, 3 * MIB, "because the collection is at its limit files: it has 0 of 0 files"),
        ({"file_bytes": 2 * MIB}, 3 * MIB, "the collection is at its limit file_bytes: it has 0 of 2097152 bytes"),
    ],
)  # fmt: skip
async def test_outputs_that_may_not_be_saved_fail_the_step(
    connection: Connection, database: Database, tmp_path: Path, values: dict[str, int], size: int, cause: str
) -> None:
    run = await run_of(connection, await task_of(connection, "t", workflow_of(("load", {**LOAD, "size": size}))))
    await limits.replace_limits(connection, values, collection_id=await limits.find_collection(connection, "my-org"))
    async with working(database.url, data_dir=tmp_path):
        status, error = await until_ended(connection, run)
    assert status == "failed"
    assert str(error).startswith("step 'load' failed: ")
    assert cause in str(error)
    assert files_in(tmp_path) == []


async def test_millions_of_small_values_neither_stall_nor_exhaust_a_step_process(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    """The process may use 128 MiB and stand still for a second; masking so many numbers takes longer."""
    seventh = {"activity": "text_echo", "text": "{{ load.outputs.value[7] }}!"}
    numbers = {"activity": "load_numbers", "size": 2_000_000, "names": ["TOKEN"]}
    steps = ("load", numbers), ("echo", seventh)
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    await give(connection, run, "TOKEN", "a-planted-secret")
    async with contained(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, OUTPUTS, run, "echo") == {"text": "7!"}


@pytest.mark.parametrize("size", [MIB + 1, MIB])
async def test_large_files_of_a_step_process_are_in_the_worker_one_at_a_time(
    connection: Connection, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Small ones are not."""
    active, most = 0, 0
    save = DirectoryStore.save

    async def counted(store: DirectoryStore, collection_id: int, name: str, content: bytes) -> str:
        nonlocal active, most
        active += 1
        most = max(most, active)
        try:
            return await save(store, collection_id, name, content)
        finally:
            active -= 1

    monkeypatch.setattr(DirectoryStore, "save", counted)
    task = await task_of(
        connection, "t", workflow_of(("save", {"activity": "save_files", "names": list("abcdefgh"), "size": size}))
    )
    run = await run_of(connection, task)
    async with contained(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    assert (most == 1) is (size > MIB)


async def test_a_run_that_started_it_gets_the_reference_and_keeps_the_file(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    await task_of(connection, "child", workflow_of(("load", LOAD), item=""))
    emit = {"activity": "list_emit_await", "task": "child", "items": ["a"]}
    echo = {"activity": "text_echo", "text_path": "emit.outputs.results[0].load.file_path"}
    run = await run_of(connection, await task_of(connection, "parent", workflow_of(("emit", emit), ("echo", echo))))
    async with working(database.url, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    [path] = files_in(tmp_path)
    assert await value(connection, OUTPUTS, run, "echo") == {"text": path}
    uses = "SELECT count(DISTINCT trajectory_id) FROM routines.file_uses WHERE path = %s"
    assert await value(connection, uses, path) == 2


# --- references that were forged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumed", [False, True])
async def test_an_object_that_an_activity_returns_is_never_taken_for_a_reference(
    connection: Connection, database: Database, tmp_path: Path, *, resumed: bool
) -> None:
    victim = "0123456789abcdef0123456789abcdef-outputs.json"
    file_of(tmp_path, victim).parent.mkdir(parents=True)
    file_of(tmp_path, victim).write_bytes(b'{"file_path": "stolen", "rows": ["stolen"]}')
    steps = [
        ("load", {"activity": "forge", "value": victim}),
        *([("pause", {"activity": "pause_once", "value": str(tmp_path / "paused")})] if resumed else []),
        ("echo", {"activity": "text_echo", "text": "{{ load.outputs.file_path }}"}),
        ("rows", {"activity": "text_echo", "text": "{{ load.outputs.rows }}"}),
    ]
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    async with working(database.url, data_dir=tmp_path):
        if resumed:
            await until(connection, "SELECT count(*) = 2 FROM routines.steps")
        else:
            await until_ended(connection, run)
    async with working(database.url, data_dir=tmp_path):
        status, error = await until_ended(connection, run)
    assert (status, "load.outputs.rows is missing" in str(error)) == ("failed", True)
    assert await value(connection, OUTPUTS, run, "echo") == {"text": victim}
    assert await value(connection, "SELECT bool_or(has_file) FROM routines.steps") is False


async def test_not_even_a_changed_record_reads_a_file_of_another_collection(
    connection: Connection, database: Database, tmp_path: Path
) -> None:
    pause = {"activity": "pause_once", "value": str(tmp_path / "paused")}
    steps = ("load", LOAD), ("pause", pause), ("echo", ECHO_ROW)
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    async with working(database.url, data_dir=tmp_path):
        await until(connection, "SELECT count(*) = 2 FROM routines.steps")
    reference = await value(connection, OUTPUTS, run, "load")
    assert isinstance(reference, dict)
    file_of(tmp_path, "", 2).mkdir()
    os.rename(file_of(tmp_path, reference["file_path"]), file_of(tmp_path, reference["file_path"], 2))  # noqa: PTH104
    async with working(database.url, data_dir=tmp_path):
        status, error = await until_ended(connection, run)
    assert (status, error) == (
        "failed",
        f"step 'echo' failed: there is no file '{reference['file_path']}' in this collection",
    )


# --- when files are read ----------------------------------------------------------------------------------------------


class CountingServices(FakeServices):
    """Files in memory, with the paths in the order in which they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.failures = 0

    async def save_file(self, name: str, content: bytes) -> str:
        path = f"{len(self.files)}-{name}"
        self.files[path] = content
        return path

    async def read_file(self, path: str, max_bytes: int | None = None) -> bytes:
        self.read.append(path)
        if self.failures:
            self.failures -= 1
            raise StorageError("The bucket is unusable.")
        return await super().read_file(path, max_bytes)


def load(mebibytes: int) -> dict[str, Any]:
    return {"activity": "load_rows", "size": mebibytes * MIB}


def echo(*steps: str) -> dict[str, Any]:
    references = (f"{{{{ {step}.outputs.rows[0].id }}}}" for step in steps)
    return {"activity": "text_echo", "text": " ".join(["first:", *references])}


async def run_flow(services: CountingServices, *steps: tuple[str, dict[str, Any]]) -> Journal:
    journal = Journal()
    await flow_of(workflow_of(*steps), journal, services=services).run()
    return journal


async def test_a_file_is_read_once_and_only_if_a_step_refers_to_the_outputs() -> None:
    services = CountingServices()
    inputs = {"activity": "text_echo", "text": "{{ a.inputs.size }} bytes"}
    await run_flow(services, ("a", load(2)), ("b", load(2)), ("other", inputs), ("c", echo("b")), ("d", echo("b")))
    assert services.read == ["1-outputs.json"]


async def test_outputs_kept_in_memory_make_room_for_others() -> None:
    services = CountingServices()
    steps = [("a", load(9)), ("b", load(9)), *((f"e{n}", echo(step)) for n, step in enumerate("aabba"))]
    await run_flow(services, *steps)
    assert services.read == ["0-outputs.json", "1-outputs.json", "0-outputs.json"]


async def test_a_step_refers_to_sixteen_mebibytes_of_large_outputs_at_most() -> None:
    services = CountingServices()
    with pytest.raises(StepFailedError, match=r"the outputs of a, b hold \d+ bytes together, more than the 16777216"):
        await run_flow(services, ("a", load(9)), ("b", load(9)), ("echo", echo("a", "b")))
    assert services.read == []


async def test_inputs_stay_limited_to_one_mebibyte() -> None:
    whole = {"activity": "conditional_branch", "value_path": "a.outputs.rows"}
    with pytest.raises(StepFailedError, match="its inputs are larger than 1048576 bytes"):
        await run_flow(CountingServices(), ("a", load(3)), ("whole", whole))


async def test_a_file_store_that_is_unavailable_is_retried_as_the_step_says() -> None:
    services = CountingServices()
    services.failures = 1
    retried = {**echo("a"), "retry": {"max_attempts": 2, "backoff": 0}}
    journal = await run_flow(services, ("a", load(3)), ("echo", retried))
    assert journal.ends()[-1] == ("echo", "completed", {"text": "first: 0"})
    assert [record.failed_try for record in journal.records if record.failed_try] == ["The bucket is unusable."]
    services.failures = 1
    with pytest.raises(StepFailedError, match="step 'echo' failed: The bucket is unusable"):
        await run_flow(services, ("a", load(3)), ("echo", echo("a")))
