"""The description of the API: whole, valid, usable, and kept by the running service, as schemathesis finds.

`make nightly` asks ten times as much, ROUTINES_TEST_CASES=20000. One worker: with two, CPython 3.11 at times loses
count of its recursion in schemathesis itself.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from litestar.routes import HTTPRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from routines_api.app import create_app
from routines_api.openapi.description import REFERENCE, describe
from support.rows import Database, api_settings
from support.serving import TASK, api_process, new_key

CASES = int(os.environ.get("ROUTINES_TEST_CASES", "2000"))
"""The least that are asked of the service, in as many runs of schemathesis as that takes."""
EXAMPLES = 90
"""--max-examples of a run: by all phases and operations about 2,300 cases."""
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return json.loads(json.dumps(describe(create_app(api_settings(), ""))))


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_the_description_is_valid_openapi_3_1(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(described).iter_errors()) == []


def test_the_routes_described_are_the_routes_served(described: dict[str, Any]) -> None:
    served = {
        (route.path_format, method.lower())
        for route in create_app(api_settings(), "").routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"
    }
    assert {(path, method) for path, method, _ in operations(described)} == served - {
        ("/openapi.json", "get"),
        ("/docs", "get"),
        ("/metrics", "get"),
    }


def test_each_operation_has_an_id_of_its_own_a_summary_and_a_description(described: dict[str, Any]) -> None:
    found = [operation for _, _, operation in operations(described)]
    assert len({operation["operationId"] for operation in found}) == len(found)
    assert all(operation["summary"] and operation["description"] for operation in found)


def test_each_operation_describes_all_its_errors_as_problem_documents(described: dict[str, Any]) -> None:
    for path, method, operation in operations(described):
        wanted = {"431"}
        if operation["security"]:
            wanted |= {"400", "401", "404", "429", "503"}
        if "requestBody" in operation:
            wanted |= {"408", "409", "413", "415"}
        errors = {code: answer for code, answer in operation["responses"].items() if code >= "400"}
        assert (path, method, wanted - set(errors)) == (path, method, set())
        for answer in errors.values():
            assert answer["content"]["application/problem+json"]["schema"] == {"$ref": REFERENCE + "Problem"}


def test_only_health_needs_no_key(described: dict[str, Any]) -> None:
    keyless = [operation["operationId"] for _, _, operation in operations(described) if not operation["security"]]
    assert keyless == ["getHealth"]


def test_each_parameter_has_a_description(described: dict[str, Any]) -> None:
    for _, _, operation in operations(described):
        assert all(parameter["description"] for parameter in operation["parameters"])


def test_each_schema_has_a_description_and_an_example_that_is_valid_against_it(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        assert (name, bool(schema.get("description")), bool(schema.get("examples"))) == (name, True, True)
        whole = {"$ref": REFERENCE + name, "components": {"schemas": schemas}}
        validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for example in schema["examples"]:
            assert (name, [error.message for error in validator.iter_errors(example)]) == (name, [])


def test_each_array_says_what_it_holds(described: dict[str, Any]) -> None:
    """Code generators drop a schema that does not."""
    fields = [
        field
        for schema in described["components"]["schemas"].values()
        for field in schema.get("properties", {}).values()
    ]
    arrays = [field for field in fields if field.get("type") == "array"]
    assert arrays
    assert all("items" in field for field in arrays)


def test_a_field_of_a_change_has_no_default(described: dict[str, Any]) -> None:
    for name in ("RoutinePatch", "TaskUpdate"):
        fields = described["components"]["schemas"][name]["properties"]
        assert [field for field, rules in fields.items() if "default" in rules] == []


@pytest.fixture
def environment(database: Database, tmp_path: Path) -> Generator[dict[str, str]]:
    """What schemathesis.toml and its hooks read: a service with a task and a routine, and how to reach it."""
    key = new_key(database, "my-org")
    with api_process(database.url, data_dir=tmp_path, run_sync_seconds=0) as process:
        with process.client(key) as client:
            assert client.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": TASK}).status_code == 201
            kept = {"name": "kept", "cadence": {"type": "manual"}}
            assert client.post("/api/v1/routines/my-org/echo", json=kept).status_code == 201
            assert client.post("/api/v1/run/my-org/echo").json()["trajectory_id"] == 1
        variables = {"URL": process.url, "KEY": key, "HOOKS": str(HERE / "schemathesis_hooks.py")}
        yield {**os.environ, **{f"ROUTINES_TEST_{name}": text for name, text in variables.items()}}
        assert process.is_healthy()


@pytest.mark.slow
@pytest.mark.timeout(60 * 60)
def test_the_running_service_answers_as_it_is_described(environment: dict[str, str], tmp_path: Path) -> None:
    """All checks but what schemathesis.toml explains: no 5xx, no answer off its schema."""
    asked = 0
    while asked < CASES:
        # The first run is the same each time; those of a long night are not.
        seed = [] if asked else ["--seed", "1"]
        asked += cases_of_a_run(environment, tmp_path, seed)


def cases_of_a_run(environment: dict[str, str], directory: Path, options: list[str]) -> int:
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")]
    options = [*options, "--max-examples", str(EXAMPLES), "--workers", "1", "--no-color", "--warnings", "off"]
    ran = subprocess.run(
        [*command, "run", f"{environment['ROUTINES_TEST_URL']}/openapi.json", *options],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
    generated = re.search(r"(\d+) generated", ran.stdout)
    assert generated, ran.stdout[-5000:]
    return int(generated[1])
