"""Plant the canaries: every request that takes a secret, and workflows that show what they are given.

A new endpoint that takes a secret gets a line here.
"""

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx

from routines_core.db.feeds import parse_feed_token
from routines_core.db.keys import checksum, parse_token
from security.canaries import Canaries
from support.service import ROOT, ROUTINES, Service

CONTROL = f"control{secrets.token_hex(8)}"
"""Not a secret: the test must find it in every place it can observe."""
SECRET = "{{ secret_params.A }}"
VARIABLE = "{{ environment.V0 }}"


def install_leaky_activities(directory: Path) -> dict[str, str]:
    """Install `leaky.py` as a package of activities; return the environment variables by which a service finds it."""
    about = directory / "leaky-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[routines.activities]\nleaky = leaky\n")
    shutil.copy(Path(__file__).with_name("leaky.py"), directory)
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(directory)])}


def workflows(gate: Path, echo: str) -> dict[str, dict[str, Any]]:
    """Return workflows by the name of their task.

    `echo` is a URL that sends back what it receives; the task `lasts` waits for the file `gate`.
    """
    steps: dict[str, list[dict[str, Any]]] = {
        "succeeds": [
            {"activity": "text_echo", "text": CONTROL},
            {"activity": "leaky_show", "value_path": "secret_params.A", "name": "B"},
            {"activity": "leaky_show", "value_path": "environment.V0", "name": "V1"},
            {"activity": "text_echo", "text": f"Bearer {SECRET}, {VARIABLE}"},
            {"activity": "text_template", "template": "{{ secret_params.B }} of {{ x }}", "variables": {"x": VARIABLE}},
            {"activity": "text_concatenate", "texts_path": ["secret_params.A", "environment.V2", "s3.outputs.text"]},
            {
                "activity": "http_request",
                "url": echo,
                "method": "POST",
                "params": {"q": SECRET},
                "json": {"key": SECRET, "keys": [VARIABLE, f"Bearer {SECRET}"]},
            },
            {"activity": "webhook_notify", "url": echo, "payload": {"key": SECRET}, "secret_path": "environment.V1"},
        ],
        "lasts": [
            {"activity": "leaky_show", "value_path": "secret_params.B", "name": "V2"},
            {"activity": "leaky_wait", "value": f"{SECRET} {VARIABLE}", "file": str(gate)},
            {"activity": "leaky_show", "value_path": "s1.outputs.value", "name": "A"},
        ],
    }
    failures: dict[str, dict[str, Any]] = {
        "raises": {
            "activity": "leaky_raise",
            "value_path": "secret_params.A",
            "retry": {"max_attempts": 2, "backoff": 0},
        },
        "raises-a-variable": {"activity": "leaky_raise", "value": f"{VARIABLE} {SECRET}"},
        "refused-address": {
            "activity": "http_request",
            "url": f"http://127.0.0.1:1/{SECRET}",
            "params": {"q": VARIABLE},
        },
        "invalid-url": {"activity": "http_request", "url": f"http://127.0.0.1:{SECRET}/"},
        "invalid-header": {"activity": "http_request", "url": echo, "headers": {"Authorization": f"Bearer {SECRET}"}},
        "invalid-method": {"activity": "http_request", "url": echo, "method": SECRET},
        "passes-it-on": {"activity": "list_emit_await", "task": "succeeds", "items": [SECRET]},
    }
    steps |= {name: [{"activity": "text_echo", "text": VARIABLE}, step] for name, step in failures.items()}
    return {name: _workflow(listed) for name, listed in steps.items()}


def _workflow(listed: list[dict[str, Any]]) -> dict[str, Any]:
    configs = {f"s{number}": config for number, config in enumerate(listed)}
    return {"init_params": {"note": CONTROL}, "steps": list(configs), "step_configs": configs}


def api_key(service: Service, canaries: Canaries, *command: str) -> str:
    """Create a key with `routines keys` and this command, and plant its secret part."""
    made = subprocess.run(
        [*ROUTINES, "keys", *(command or ("create", "--collection", "demo"))],
        cwd=service.directory,
        env=service.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    token = made.stdout.split()[-1]
    canaries.plant("API key", parse_token(token).secret)
    return token


def plant_environment(client: httpx.Client, canaries: Canaries) -> None:
    """Plant environment values of the collection, and replace one of them."""
    for names in (("V0", "V1", "V2", "GONE"), ("V2",)):
        variables: dict[str, Any] = {name: canaries.new(f"environment {name}") for name in names}
        for change in (variables, {"V0": "********", "GONE": None}):
            answer = client.patch("/collections/demo/environment", json={"environment_variables": change})
            assert answer.status_code == 200


def plant_routine(client: httpx.Client, canaries: Canaries, hook: str, task: str) -> None:
    """Create the routine `r` of a task twice under one Idempotency-Key, then change it."""
    path = f"/routines/demo/{task}"
    body = {
        "name": "r",
        "cadence": {"type": "manual"},
        "secret_params": {"A": canaries.new("secret_params"), "B": canaries.new("secret_params, replaced")},
        "webhook_url": hook,
        "webhook_secret": canaries.new("webhook_secret, replaced"),
    }
    for _ in range(2):  # the second answer is the stored one
        made = client.post(path, json=body, headers={"Idempotency-Key": f"make-{task}"})
        assert made.status_code == 201
    change = {
        "secret_params": {"A": "********", "B": canaries.new("secret_params of PATCH")},
        "webhook_secret": canaries.new("webhook_secret of PATCH"),
    }
    assert client.patch(f"{path}/r", json=change).status_code == 200


def plant_feed(client: httpx.Client, canaries: Canaries, service: Service, key: str) -> None:
    """Read a calendar feed while it exists, while the service fails and once it was revoked, and an unknown one."""
    with httpx.Client(base_url=client.base_url, headers={"Authorization": f"Bearer {key}"}) as unrecorded:
        made = unrecorded.post("/ics/demo").json()  # the only answer that may have the token
    canaries.plant("feed", parse_feed_token(made["token"]).secret)
    unchecked = f"rtf_99_{secrets.token_urlsafe(32)}"
    unknown = canaries.plant("an unknown feed", unchecked + checksum(unchecked))
    assert client.get(f"/ics/{unknown}.ics").status_code == 404
    assert client.get(f"/ics/{made['token']}.ics").status_code == 200
    service.execute("ALTER TABLE routines.feeds RENAME COLUMN filled_at TO away")
    assert client.get(f"/ics/{made['token']}.ics").status_code == 500
    service.execute("ALTER TABLE routines.feeds RENAME COLUMN away TO filled_at")
    assert [feed["id"] for feed in client.get("/ics/demo").json()] == [made["id"]]
    assert client.delete(f"/ics/demo/{made['id']}").status_code == 204
    assert client.get(f"/ics/{made['token']}.ics").status_code == 404


def secrets_of_a_run(canaries: Canaries, hook: str, where: str) -> dict[str, Any]:
    """Return the secret fields of a run request, and the webhook that its secret signs."""
    return {
        "secret_params": {name: canaries.new(f"secret_params of {where}") for name in "AB"},
        "webhook_url": hook,
        "webhook_secret": canaries.new(f"webhook_secret of {where}"),
    }


def start_runs(client: httpx.Client, canaries: Canaries, hook: str, task: str) -> list[int]:
    """Start runs by both endpoints, as JSON and in both kinds of forms, each sent twice under one Idempotency-Key."""
    found: list[int] = []
    for endpoint in ("run", "run-sync"):
        for kind in ("json", "multipart", "urlencoded"):
            body = secrets_of_a_run(canaries, hook, f"{endpoint}, {kind}")
            sent = {"json": body} if kind == "json" else {"data": as_form(body)}
            if kind == "multipart":
                sent["files"] = [("files", ("a.txt", b"a file"))]
            for _ in range(2):
                headers = {"Idempotency-Key": f"{endpoint}-{kind}"}
                answer = client.post(f"/{endpoint}/demo/{task}", headers=headers, **sent)
                assert answer.status_code == 200, answer.text
                found.append(answer.json()["trajectory_id"])
    return found[::2]


def as_form(body: dict[str, Any]) -> dict[str, str]:
    """Encode a body as form fields: values that are not strings become JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}


def plant_in_rejected_requests(client: httpx.Client, canaries: Canaries, service: Service) -> None:
    """Send secrets in requests that break a rule, and use keys that are not valid."""
    path, run, environment = "/routines/demo/succeeds", "/run/demo/succeeds", "/collections/demo/environment"
    new = lambda: canaries.new("refused")  # noqa: E731 - short, for the table below
    cadence = {"type": "manual"}
    refused: list[tuple[str, Any]] = [
        (path, {"name": "x", "cadence": {"type": "daily"}, "secret_params": {"A": new()}}),
        (path, {"name": "r", "cadence": cadence, "webhook_secret": new()}),  # taken
        (path, {"name": "x", "cadence": cadence, "secret_params": {"A": {"deep": new()}}}),
        (path, {"name": "x", "cadence": cadence, "webhook_secret": [new()]}),
        (path, {"name": "x", "cadence": cadence, "secret_params": [new()]}),
        (path, {"name": "x", "cadence": cadence, "secret_params": {"A": new() + "\0"}}),
        (path, {"name": "x", "cadence": cadence, "webhook_secret": new(), "init_params_overrides": {"no": 1}}),
        (path, {"name": "x", "cadence": cadence, "secret_params": {"A": new() * 5000}}),
        (run, {"secret_params": {"A": [new()]}}),
        (run, {"secret_params": {"A": new()}, "webhook_secret": 1}),
        (run, {"secret_params": {"A": new()}, "init_params": {"no": 1}}),
        (run, {"webhook_secret": {"deep": new()}}),
        (environment, {"environment_variables": {"V0": [new()]}}),
        (environment, {"environment_variables": {"V0": new(), "NEVER": "********"}}),
        (environment, {"environment_variables": {"0": new()}}),
    ]
    for where, body in refused:
        answer = client.request("PATCH" if where == environment else "POST", where, json=body)
        assert answer.status_code in {400, 409, 413}, (where, body)
    broken = f'{{"name": "x", "webhook_secret": "{new()}'.encode()
    assert client.post(path, content=broken, headers={"Content-Type": "application/json"}).status_code == 400
    assert client.post(path, content=broken, headers={"Content-Type": "text/plain"}).status_code == 415
    for form in ({"secret_params": f'{{"A": "{new()}'}, {"secret_params": new()}, {"webhook_secret": new(), "x": "y"}):
        assert client.post(run, data=form).status_code == 400
        assert client.post(run, data=form, files=[("files", ("a.txt", b"a file"))]).status_code == 400
    plant_in_a_fault(client, canaries, service)
    for token in (f"rtn_1_{secrets.token_urlsafe(32)}", f"rtn_99_{secrets.token_urlsafe(32)}", secrets.token_hex(20)):
        canaries.plant("an invalid key", token)
        assert client.get("/collections", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def plant_in_a_fault(client: httpx.Client, canaries: Canaries, service: Service) -> None:
    """Send secrets in requests that fail inside the service."""
    service.execute("ALTER TABLE routines.secrets RENAME COLUMN ciphertext TO away")
    body = {
        "name": "x",
        "cadence": {"type": "manual"},
        "secret_params": {"A": canaries.new("fault")},
        "webhook_secret": canaries.new("fault"),
    }
    assert client.post("/routines/demo/succeeds", json=body).status_code == 500
    variables = {"environment_variables": {"V9": canaries.new("fault")}}
    assert client.patch("/collections/demo/environment", json=variables).status_code == 500
    service.execute("ALTER TABLE routines.secrets RENAME COLUMN away TO ciphertext")
