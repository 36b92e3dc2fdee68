"""Hooks loaded by schemathesis: before each call, recreate what an earlier case may have renamed or deleted."""

import os
from typing import Any

import httpx
import schemathesis

URL = os.environ["ROUTINES_TEST_URL"]
CLIENT = httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {os.environ['ROUTINES_TEST_KEY']}"})
TASKS, ROUTINES = "/api/v1/tasks/my-org", "/api/v1/routines/my-org/echo"
TASK = {"workflow": {"init_params": {"text": "hello"}}}
ROUTINE = {"cadence": {"type": "manual"}}
RECREATED: dict[str, tuple[str, dict[str, Any]]] = {
    "updateRoutine": (ROUTINES, {"name": "kept", **ROUTINE}),
    "deleteRoutine": (ROUTINES, {"name": "doomed", **ROUTINE}),
    "updateTask": (TASKS, {"name": "spare", **TASK}),
    "deleteTask": (TASKS, {"name": "doomed", **TASK}),
}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    made = RECREATED.get(case.operation.definition.raw.get("operationId"))
    if made:
        CLIENT.post(made[0], json=made[1])
