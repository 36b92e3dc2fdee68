"""`routines tasks apply` makes a task match its file."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from routines_core.db import Connection
from support.rows import Database, value

pytestmark = pytest.mark.slow

TASK = {"name": "greet", "description": "Says hello.", "workflow": {"init_params": {"b": 1, "a": 2}, "steps": []}}


def apply(database: Database, task: Any, collection: str = "my-org") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routines_cli.main", "tasks", "apply", "-", "--collection", collection],
        input=task if isinstance(task, str) else json.dumps(task),
        env={**os.environ, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_new_task_is_created_with_its_collection_and_keeps_the_order_of_keys(
    database: Database, connection: Connection
) -> None:
    done = apply(database, TASK)
    assert (done.returncode, done.stdout) == (0, "my-org/greet is at version 1\n"), done.stderr
    assert done.stderr == "my-org is a new collection.\n"
    assert apply(database, TASK).stderr == ""
    assert await value(connection, "SELECT workflow::text FROM routines.task_versions") == (
        '{"init_params":{"b":1,"a":2},"steps":[]}'
    )


async def test_only_a_changed_workflow_creates_a_version(database: Database, connection: Connection) -> None:
    apply(database, TASK)
    assert apply(database, {**TASK, "description": "new"}).stdout == "my-org/greet is at version 1\n"
    assert apply(database, {**TASK, "workflow": {}}).stdout == "my-org/greet is at version 2\n"
    assert await value(connection, "SELECT description FROM routines.tasks") == "Says hello."


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("{", "not valid JSON"),
        ({"name": "greet"}, "workflow: is required"),
        ({**TASK, "x": 1}, "x: unknown field"),
        ({**TASK, "workflow": {"steps": ["a"]}}, "workflow.steps.0: the step 'a' has no entry in step_configs"),
    ],
)
def test_a_file_that_breaks_a_rule_is_reported_in_one_line(database: Database, task: Any, sentence: str) -> None:
    done = apply(database, task)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert sentence in done.stderr


def test_a_collection_name_that_is_not_a_slug_is_reported_in_one_line(database: Database) -> None:
    done = apply(database, TASK, collection="No Slug")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
