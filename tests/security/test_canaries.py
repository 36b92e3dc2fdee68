"""Plant more than eighty secret values in every place that takes one, and show that none leaks.

The test runs real processes under load. Their runs succeed, fail in several ways, crash and are cancelled; their steps
are given secrets and show, raise and log them. A control value shows for each place that the test can see leaks there.
"""

import base64
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from security.canaries import Canaries, new_value, spellings
from security.planting import (
    CONTROL,
    api_key,
    install_leaky_activities,
    plant_environment,
    plant_feed,
    plant_in_rejected_requests,
    plant_routine,
    secrets_of_a_run,
    start_runs,
    workflows,
)
from security.witness import Witness, receiver
from support.service import Service, wait_until

pytestmark = pytest.mark.slow

PLANTED = 80
UNTOUCHED = {"cmdline", "commands", "logs"}
"""Places that never hold the control value; another check shows that the test can see into them."""


@pytest.mark.parametrize("encoding", ["raw", "base64", "hex", "url", "json"])
def test_a_planted_leak_is_found_in_each_encoding(encoding: str) -> None:
    canaries = Canaries()
    value = canaries.new("here")
    for spelled in spellings(value)[encoding]:
        for before in (b"", b"x", b"xy", b"xyz"):
            assert ("here #0", encoding, "there") in canaries.hits("there", before + spelled + b"z")
    assert not canaries.hits("there", new_value().encode())


def test_a_leak_in_base64_is_found_wherever_it_begins() -> None:
    canaries = Canaries()
    value = canaries.new("here").encode()
    for lead in range(5):
        for trail in range(5):
            leaked = base64.b64encode(b"a" * lead + value + b"z" * trail)
            assert canaries.hits("there", leaked) == [("here #0", "base64", "there")]


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    service = Service(
        tmp_path,
        ROUTINES_LEASE_SECONDS="3",
        ROUTINES_LOG_FORMAT="json",
        ROUTINES_WEBHOOK_ALLOW_PRIVATE="true",
        SEEN_BY_TEST=CONTROL,
        **install_leaky_activities(tmp_path / "packages"),
    )
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()


@pytest.mark.timeout(600)  # on a busy machine
def test_no_secret_leaks_anywhere(service: Service) -> None:
    canaries, witness = Canaries(), Witness(service)
    key = api_key(service, canaries)
    canaries.plant("encryption key", (service.data_dir / "encryption.key").read_text().strip().partition(":")[2])
    service.execute("ALTER SYSTEM SET log_min_duration_statement = 0")  # log every statement
    service.execute("SELECT pg_reload_conf()")
    with receiver(witness) as url, witness.client(key) as client, witness.sampling(), load(witness, key):
        gate = service.directory / "gate"
        tasks = workflows(gate, f"{url}/echo")
        for name, workflow in tasks.items():
            made = client.post("/tasks/demo", json={"name": name, "workflow": workflow})
            assert made.status_code == 201, made.text
        plant_environment(client, canaries)
        plant_feed(client, canaries, service, key)
        for name in ("succeeds", "lasts"):
            plant_routine(client, canaries, f"{url}/hook", name)
        plant_in_rejected_requests(client, canaries, service)
        for _ in range(3):
            api_key(service, canaries)
        api_key(service, canaries, "rotate", key.split("_")[1])
        run_and_fail(service, client, canaries, f"{url}/hook", list(tasks))
        crash_and_cancel(service, client, canaries, f"{url}/hook", gate)
        read_everything(client, list(tasks))
        show_controls(service)
        witness.run("doctor")
        witness.run("keys", "list")
    witness.record_logs_and_dump()
    assert len(canaries.planted) >= PLANTED
    assert {place for place in witness.seen if CONTROL.encode() not in witness.seen[place]} <= UNTOUCHED
    assert not [hit for place, found in witness.seen.items() for hit in canaries.hits(place, bytes(found))]
    show_that_all_was_seen(witness)


def show_that_all_was_seen(witness: Witness) -> None:
    """Check that each place holds what it must, and that the mask stands where a secret would."""
    assert b"routines_cli.main worker" in witness.seen["cmdline"].replace(b"\0", b" ")
    for said in (
        b"run ended",
        b"delivery attempted",
        b'"error": "UndefinedColumn"',
        b"it went wrong",
        b"never retrieved",
    ):
        assert said in witness.seen["logs"], said
    assert b"routines.secrets" in witness.seen["server's log"]
    assert b"X-Mise-Signature" in witness.seen["webhooks"]
    for place in ("answers", "webhooks", "dump"):
        assert b"Bearer ********" in witness.seen[place]
        assert b"no such key: ********" in witness.seen[place]
    assert witness.samples > 20


@contextmanager
def load(witness: Witness, key: str) -> Generator[None]:
    """Run another client that reads and changes things until the end of the block."""
    stop = threading.Event()

    def ask() -> None:
        with witness.client(key) as client:
            while not stop.wait(0.02):
                client.get("/routines/demo")
                client.get("/db/trajectories/demo/succeeds?limit=3")
                client.patch("/routines/demo/hello/every-hour", json={"secret_params": {"LOAD": "short-lived"}})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run_and_fail(service: Service, client: httpx.Client, canaries: Canaries, hook: str, tasks: list[str]) -> None:
    """Start runs that succeed, in each way, and one of each kind that fails; wait until all webhooks are delivered."""
    runs = start_runs(client, canaries, hook, "succeeds")
    runs.append(client.post("/routines/demo/succeeds/r/run-now").json()["trajectory_id"])
    failing = [task for task in tasks if task not in {"succeeds", "lasts"}]
    for task in failing:
        answer = client.post(f"/run-sync/demo/{task}", json=secrets_of_a_run(canaries, hook, task)).json()
        assert answer["trajectory"]["status"] == "failed", answer
    wait_until(lambda: not service.execute("SELECT 1 FROM routines.trajectories WHERE ended_at IS NULL"), seconds=60)
    assert {status(service, run) for run in runs} == {"completed"}
    wait_for_webhooks(service, len(runs) + len(failing))


def crash_and_cancel(service: Service, client: httpx.Client, canaries: Canaries, hook: str, gate: Path) -> None:
    """Cancel a run while its step holds a secret; kill the worker of another such run, which then ends elsewhere."""
    before = len(service.execute("SELECT 1 FROM routines.webhook_deliveries"))
    body = secrets_of_a_run(canaries, hook, "a run that is cancelled")
    cancelled = client.post("/run/demo/lasts", json=body).json()["trajectory_id"]
    crashed = client.post("/routines/demo/lasts/r/run-now").json()["trajectory_id"]
    holding_secret = "SELECT 1 FROM routines.steps WHERE activity = 'leaky_wait' AND status = 'running'"
    wait_until(lambda: len(service.execute(holding_secret)) == 2)
    answer = client.post("/trajectory/demo/lasts/statuses", json={str(cancelled): "cancelled"})
    assert answer.status_code == 200
    wait_for_webhooks(service, before + 1)  # a webhook still being sent would have to wait for its lease
    os.kill(service.program_pid("worker"), signal.SIGKILL)
    gate.touch()
    wait_until(lambda: status(service, crashed) == "completed", seconds=60)
    assert status(service, cancelled) == "cancelled"
    assert service.execute(f"SELECT crashes > 0 FROM routines.trajectories WHERE id = {crashed:d}") == [(True,)]
    wait_for_webhooks(service, before + 2)
    [delivery] = client.get("/routines/demo/lasts/r/deliveries").json()
    assert client.post(f"/routines/demo/lasts/r/deliveries/{delivery['id']}/redeliver").status_code == 200
    wait_for_webhooks(service, before + 2)


def wait_for_webhooks(service: Service, count: int) -> None:
    """Wait until this many webhooks are delivered and none is due."""
    states = "SELECT delivered_at IS NOT NULL AND next_attempt_at IS NULL FROM routines.webhook_deliveries"
    wait_until(lambda: service.execute(states) == [(True,)] * count, seconds=60)


def status(service: Service, run: int) -> str:
    [(found,)] = service.execute(f"SELECT status FROM routines.trajectories WHERE id = {run:d}")
    return str(found)


def read_everything(client: httpx.Client, tasks: list[str]) -> None:
    """Read everything the API shows about the collection and each of its runs."""
    paths = ["/collections", "/collections/demo", "/collections/demo/environment", "/tasks/demo", "/step-templates"]
    paths.append(str(client.base_url.copy_with(path="/metrics")))
    for routine in ("/routines/demo/succeeds/r", "/routines/demo/lasts/r"):
        suffixes = ("", "/runs", "/deliveries", "/occurrences", "/next", "/why?at=2026-05-04T09:00:00Z")
        paths += [f"{routine}{suffix}" for suffix in suffixes]
    for task in tasks:
        paths += [f"/{what}/demo/{task}" for what in ("tasks", "routines", "db/stats", "db/trajectories")]
        paths.append(f"/tasks/demo/{task}/init-params-schema")
        for found in client.get(f"/db/trajectories/demo/{task}?limit=100").json()["trajectories"]:
            run, label = found["trajectory_id"], {"key": "seen", "value": CONTROL, "author": "test"}
            assert client.post(f"/trajectory/demo/{task}/{run}/labels", json=label).status_code == 200
            paths += [f"/db/trajectory/demo/{task}/{run}", f"/workflows-logs/{found['workflow_id']}"]
    assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


def show_controls(service: Service) -> None:
    """Put the control value where only a person at psql would: in a session, and in the server's log."""
    service.execute(f"SELECT pg_sleep(0.5), '{CONTROL}'")
    service.execute(f"DO $$ BEGIN RAISE LOG '{CONTROL}'; END $$")
