"""Run an unchanged client of the platform against the whole service: it runs, polls and reads only over HTTP."""

import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from support.service import Service, wait_until

pytestmark = pytest.mark.slow
WORKFLOW = {
    "init_params": {"names": ["ada", "bob"]},
    "step_configs": {
        "join": {"activity": "text_concatenate", "texts_path": "init_params.names", "separator": " and "},
        "greet": {"activity": "text_echo", "text_path": "join.outputs.text"},
    },
    "steps": ["join", "greet"],
}


def poll(client: httpx.Client, workflow_id: str) -> dict[str, Any]:
    """Return the trajectory once it has ended, using the id after the last `--` of the workflow id."""
    path = f"/db/trajectory/demo/greet/{workflow_id.rpartition('--')[2]}"
    wait_until(lambda: client.get(path).json()["status"] in {"completed", "failed", "cancelled"})
    return client.get(path).json()


def test_a_client_can_run_poll_read_wait_and_label(service: Service) -> None:
    with service.client() as client:
        assert client.post("/tasks/demo/", json={"name": "greet", "workflow": WORKFLOW}).status_code == 201

        # A multipart form with files, as requests.post(url, data=…, files=…) sends it.
        files = [("files", ("cv.txt", b"curriculum")), ("files", ("photo.png", b"\x89PNG"))]
        started = client.post("/run/demo/greet", data={"init_params": '{"names": ["eve"]}'}, files=files).json()
        trajectory = poll(client, started["workflow_id"])
        assert (trajectory["status"], trajectory["name"]) == ("completed", "demo/greet")
        assert trajectory["steps"]["greet"]["outputs"] == {"text": "eve"}
        assert (trajectory["completed_steps"], trajectory["total_steps"]) == (2, 2)
        assert len(trajectory["init_params"]["file_paths"]) == 2
        stored = [path.name for path in (service.data_dir / "files").glob("*/*")]
        assert sorted(stored) == sorted(trajectory["init_params"]["file_paths"])

        # run-sync returns the final status and the result in one response.
        answer = client.post("/run-sync/demo/greet", data={"init_params": "{}"})
        assert answer.status_code == 200
        assert answer.json()["result"] == {"join": {"text": "ada and bob"}, "greet": {"text": "ada and bob"}}

        log = client.get(f"/workflows-logs/{answer.json()['workflow_id']}").json()
        assert [event["event"] for event in log["events"]][:3] == ["run_created", "run_started", "step_started"]
        assert log["events"][-1]["event"] == "run_completed"

        page = client.get("/db/trajectories/demo/greet?limit=10&page=1").json()
        assert [run["status"] for run in page["trajectories"]] == ["completed", "completed"]
        assert client.get("/db/stats/demo/greet").json()["success_rate"] == 1

        run = trajectory["trajectory_id"]
        labelled = client.post(
            f"/trajectory/demo/greet/{run}/labels", json={"key": "rating", "value": "good", "author": "eve"}
        )
        [label] = labelled.json()["labels"]
        assert datetime.fromisoformat(label.pop("created")).tzinfo is not None
        assert label == {"key": "rating", "value": "good", "author": "eve"}
        assert client.post("/trajectory/demo/greet/statuses", json={str(run): "archived"}).status_code == 200
        assert client.get(f"/db/trajectory/demo/greet/{run}").json()["status"] == "archived"


def test_a_run_cancelled_before_a_worker_claims_it_never_runs(service: Service) -> None:
    with service.client() as client:
        client.post("/tasks/demo/", json={"name": "greet", "workflow": WORKFLOW})
        run = client.post("/run/demo/greet", json={}).json()["trajectory_id"]
        cancelled = client.post("/trajectory/demo/greet/statuses", json={str(run): "cancelled"})
        # If the worker was quicker, the answer says so.
        found = poll(client, f"flow-demo-greet--{run}")
        assert (cancelled.status_code, found["status"]) in {(200, "cancelled"), (409, "completed")}


def test_a_refused_client_gets_the_reason_even_while_it_sends_large_files(service: Service) -> None:
    files = {"files": ("large.bin", bytes(8 * 1024 * 1024))}
    with service.client() as client:
        for path in ("/run/other/hello", "/run/demo/none"):
            begun = time.monotonic()
            assert client.post(path, files=files).status_code == 404
            assert time.monotonic() - begun < 30
        assert client.post("/run/demo/hello", files=files, headers={"Authorization": "Bearer x"}).status_code == 401
