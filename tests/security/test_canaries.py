"""Thirty secret values go in wherever one is taken; none comes out.

Real processes under load, with runs that succeed, fail, crash and are cancelled. A new endpoint that takes a
secret gets a line in `plant`. That something is seen at all is shown by a control value for each place.
"""

import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from routines_core.db.keys import parse_token
from security.canaries import Canaries, new_value, spellings
from security.witness import Witness, receiver
from service import ROUTINES, Service, wait_until

pytestmark = pytest.mark.slow

PLANTED = 30
ROUTINES_PATH = "/routines/demo/{task}"
CONTROL = f"control{secrets.token_hex(8)}"
"""No secret: found wherever the test must be able to see."""
STEPS = [f"s{number}" for number in range(150)]
WORKFLOWS: dict[str, dict[str, Any]] = {
    "succeeds": {"steps": ["s0"], "step_configs": {"s0": {"activity": "text_echo", "text": CONTROL}}},
    "fails": {"steps": ["s0"], "step_configs": {"s0": {"activity": "text_echo", "text_path": "init_params.none"}}},
    "lasts": {
        "steps": STEPS,
        "step_configs": {step: {"activity": "text_echo", "text": "x"} for step in STEPS},
    },
}


@pytest.mark.parametrize("encoding", ["raw", "base64", "hex", "url", "json"])
def test_a_planted_leak_is_found_in_each_encoding(encoding: str) -> None:
    canaries = Canaries()
    value = canaries.new("here")
    for spelled in spellings(value)[encoding]:
        for before in (b"", b"x", b"xy", b"xyz"):
            assert ("here #0", encoding, "there") in canaries.hits("there", before + spelled + b"z")
    assert not canaries.hits("there", new_value().encode())


def test_a_leak_in_base64_is_found_wherever_it_begins() -> None:
    import base64

    canaries = Canaries()
    value = canaries.new("here").encode()
    for lead in range(5):
        for trail in range(5):
            leaked = base64.b64encode(b"a" * lead + value + b"z" * trail)
            assert canaries.hits("there", leaked) == [("here #0", "base64", "there")]


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    service = Service(tmp_path, ROUTINES_LEASE_SECONDS="1", ROUTINES_LOG_FORMAT="json", SEEN_BY_TEST=CONTROL)
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()


def test_no_secret_comes_out_anywhere(service: Service) -> None:
    canaries, witness = Canaries(), Witness(service)
    key = api_key(service, canaries)
    canaries.plant("encryption key", (service.data_dir / "encryption.key").read_text().strip().partition(":")[2])
    with receiver(witness) as hook, witness.client(key) as client, witness.sampling(), load(witness, key):
        for name, workflow in WORKFLOWS.items():
            assert client.post("/tasks/demo", json={"name": name, "workflow": workflow}).status_code == 201
        plant(client, canaries, hook)
        plant_what_is_refused(client, canaries, service)
        for _ in range(4):
            api_key(service, canaries)
        run_everything(service, client)
        show_controls(service)
    witness.look_at_what_is_kept()
    assert len(canaries.planted) >= PLANTED
    assert {place for place in witness.seen if CONTROL.encode() not in witness.seen[place]} <= {"cmdline", "logs"}
    assert b"routines_cli.main worker" in witness.seen["cmdline"].replace(b"\0", b" ")
    assert b"run ended" in witness.seen["logs"]
    assert b'"error": "UndefinedColumn"' in witness.seen["logs"]
    assert witness.samples > 20
    leaks = [hit for place, found in witness.seen.items() for hit in canaries.hits(place, bytes(found))]
    assert leaks == []


def api_key(service: Service, canaries: Canaries) -> str:
    """A new key of the collection demo, its secret part planted."""
    made = subprocess.run(
        [*ROUTINES, "keys", "create", "--collection", "demo"],
        cwd=service.directory,
        env=service.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    canaries.plant("API key", parse_token(made.stdout.strip()).secret)
    return made.stdout.strip()


def plant(client: httpx.Client, canaries: Canaries, hook: str) -> None:
    """Secrets in every place that takes one."""
    for task in WORKFLOWS:
        path = ROUTINES_PATH.format(task=task)
        body = {
            "name": "r",
            "cadence": {"type": "manual"},
            "secret_params": {"A": canaries.new("secret_params"), "B": canaries.new("secret_params, replaced")},
            "webhook_url": hook,
            "webhook_secret": canaries.new("webhook_secret, replaced"),
        }
        for _ in range(2):  # the second is the answer that was kept
            made = client.post(path, json=body, headers={"Idempotency-Key": f"make-{task}"})
            assert made.status_code == 201
        change = {
            "secret_params": {"A": "********", "B": canaries.new("secret_params of PATCH")},
            "webhook_secret": canaries.new("webhook_secret of PATCH"),
        }
        assert client.patch(f"{path}/r", json=change).status_code == 200
    described = client.get(client.base_url.copy_with(path="/openapi.json")).json()["paths"]
    if "/api/v1/collections/{collection}/environment" in described:
        variables = {f"V{number}": canaries.new("environment") for number in range(3)}
        answer = client.patch("/collections/demo/environment", json={"environment_variables": variables})
        assert answer.status_code == 200
    if "/api/v1/run/{collection}/{task}" in described:
        for task in WORKFLOWS:
            body = {
                "secret_params": {"A": canaries.new("secret_params of a run")},
                "webhook_url": hook,
                "webhook_secret": canaries.new("webhook_secret of a run"),
            }
            assert client.post(f"/run/demo/{task}", json=body).status_code == 200


def plant_what_is_refused(client: httpx.Client, canaries: Canaries, service: Service) -> None:
    """Secrets in requests that break a rule, and in keys that open nothing."""
    path = ROUTINES_PATH.format(task="succeeds")
    new = lambda: canaries.new("refused")  # noqa: E731 - short, for the table below
    refused: list[Any] = [
        {"name": "x", "cadence": {"type": "daily"}, "secret_params": {"A": new()}},
        {"name": "r", "cadence": {"type": "manual"}, "webhook_secret": new()},  # taken
        {"name": "x", "cadence": {"type": "manual"}, "secret_params": {"A": {"deep": new()}}},
        {"name": "x", "cadence": {"type": "manual"}, "webhook_secret": [new()]},
        {"name": "x", "cadence": {"type": "manual"}, "secret_params": [new()]},
        {"name": "x", "cadence": {"type": "manual"}, "secret_params": {"A": new() + "\0"}},
        {"name": "x", "cadence": {"type": "manual"}, "webhook_secret": new(), "init_params_overrides": {"no": 1}},
        {"name": "x", "cadence": {"type": "manual"}, "secret_params": {"A": new() * 5000}},
    ]
    for body in refused:
        assert client.post(path, json=body).status_code in {400, 409, 413}, body
    broken = f'{{"name": "x", "webhook_secret": "{new()}'.encode()
    assert client.post(path, content=broken, headers={"Content-Type": "application/json"}).status_code == 400
    assert client.post(path, content=broken, headers={"Content-Type": "text/plain"}).status_code == 415
    service.execute("ALTER TABLE routines.secrets RENAME COLUMN ciphertext TO away")  # a fault of the service itself
    body = {"name": "x", "cadence": {"type": "manual"}, "secret_params": {"A": new()}, "webhook_secret": new()}
    assert client.post(path, json=body).status_code == 500
    service.execute("ALTER TABLE routines.secrets RENAME COLUMN away TO ciphertext")
    for token in (f"rtn_1_{secrets.token_urlsafe(32)}", f"rtn_99_{secrets.token_urlsafe(32)}", secrets.token_hex(20)):
        canaries.plant("a key that opens nothing", token)
        assert client.get("/collections", headers={"Authorization": f"Bearer {token}"}).status_code == 401


@contextmanager
def load(witness: Witness, key: str) -> Generator[None]:
    """Another client that reads and changes all the while."""
    stop = threading.Event()

    def ask() -> None:
        with witness.client(key) as client:
            while not stop.wait(0.01):
                client.get("/routines/demo")
                client.get("/db/trajectories/demo/succeeds")
                client.patch("/routines/demo/hello/every-hour", json={"secret_params": {"LOAD": "short-lived"}})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run_everything(service: Service, client: httpx.Client) -> None:
    """A run of each kind: one that succeeds, one that fails, one whose worker is killed, one that is cancelled."""
    run = {task: client.post(f"{ROUTINES_PATH.format(task=task)}/r/run-now").json() for task in ("succeeds", "fails")}
    crashed = client.post(f"{ROUTINES_PATH.format(task='lasts')}/r/run-now").json()["trajectory_id"]
    wait_until(lambda: status(service, crashed) == "running")
    os.kill(service.part("worker"), signal.SIGKILL)
    cancelled = client.post(f"{ROUTINES_PATH.format(task='lasts')}/r/run-now").json()["trajectory_id"]
    service.execute(f"UPDATE routines.trajectories SET status = 'cancelled', ended_at = now() WHERE id = {cancelled:d}")
    wait_until(lambda: not service.execute("SELECT 1 FROM routines.trajectories WHERE ended_at IS NULL"), seconds=60)
    ended = {task: status(service, answer["trajectory_id"]) for task, answer in run.items()}
    assert ended == {"succeeds": "completed", "fails": "failed"}
    assert status(service, cancelled) == "cancelled"
    assert service.execute(f"SELECT crashes FROM routines.trajectories WHERE id = {crashed:d}") == [(1,)]
    for task in WORKFLOWS:
        for found in client.get(f"/db/trajectories/demo/{task}").json()["trajectories"]:
            client.get(f"/db/trajectory/demo/{task}/{found['trajectory_id']}")


def status(service: Service, run: int) -> str:
    [(found,)] = service.execute(f"SELECT status FROM routines.trajectories WHERE id = {run:d}")
    return str(found)


def show_controls(service: Service) -> None:
    """The control value where only somebody at psql would put it: in a session, and in the server's log."""
    service.execute(f"SELECT pg_sleep(0.3), '{CONTROL}'")
    service.execute(f"DO $$ BEGIN RAISE LOG '{CONTROL}'; END $$")
