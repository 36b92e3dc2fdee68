"""The chart in deploy/helm renders to what Kubernetes accepts, and gives each program only what it needs.

Helm itself renders it, as a library (`make charts`). What no test shows is how it runs in a cluster.
"""

import json
import re
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from routines_api.server import STOP_SECONDS
from routines_core.settings import Settings
from support.charts import CHART, ChartError, lint, render, validate
from support.service import ROOT

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
FILES = {"files": {"url": "s3://bucket/files"}}
EVERYTHING = {
    **FILES,
    "admin": {"enabled": True},
    "temporal": {"enabled": True, "address": "temporal:7233", "apiKey": {"secret": "temporal"}},
    "metrics": {
        "token": {"secret": "metrics-token"},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    },
    "tracing": {"endpoint": "http://collector:4318"},
    "config": {"ROUTINES_KEEP_TRAJECTORIES_DAYS": "30"},
    "serviceAccountName": "routines",
    "imagePullSecrets": [{"name": "registry"}],
}
PROGRAMS = ("api", "ticker", "worker")
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that are not Kubernetes' own, so that their schemas are not at hand."""
KUBERNETES = "1.33"


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a kind by name, without the release's."""
    found = [each for each in objects if each["kind"] == kind]
    return {each["metadata"]["name"].removeprefix("routines").removeprefix("-"): each for each in found}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod of each Deployment and Job by its name."""
    return {
        name: each["spec"]["template"]
        for kind in ("Deployment", "Job")
        for name, each in named(objects, kind).items()
    }  # fmt: skip


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["spec"]["containers"]
    return found


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of a pod: text, or the name of the secret that a value comes from."""
    return {
        each["name"]: each["value"] if "value" in each else each["valueFrom"]["secretKeyRef"]["name"]
        for each in container(pod)["env"]
    }


@pytest.fixture(scope="module")
def default() -> list[dict[str, Any]]:
    return render(FILES)


@pytest.fixture(scope="module")
def everything() -> list[dict[str, Any]]:
    return render(EVERYTHING)


@pytest.mark.parametrize("values", [FILES, EVERYTHING], ids=["default", "everything"])
def test_kubernetes_knows_every_field(values: dict[str, Any]) -> None:
    for each in render(values):
        if each["kind"] not in OF_THE_OPERATOR:
            validate(each, KUBERNETES)


@pytest.mark.parametrize("values", [FILES, EVERYTHING], ids=["default", "everything"])
def test_helm_finds_no_fault(values: dict[str, Any]) -> None:
    assert lint(values) == []


def test_it_renders_a_job_that_migrates_first_and_a_deployment_for_each_program(default: list[dict[str, Any]]) -> None:
    assert set(named(default, "Deployment")) == set(PROGRAMS)
    migrate = named(default, "Job")["migrate"]
    assert migrate["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    commands = {name: container(pod)["args"] for name, pod in pods(default).items()}
    assert commands == {name: [name] for name in (*PROGRAMS, "migrate")}
    assert set(named(default, "PodDisruptionBudget")) == set(PROGRAMS)


def test_each_program_has_its_own_login_and_only_those_that_need_them_get_the_keys(
    everything: list[dict[str, Any]],
) -> None:
    found = {name: environment(pod) for name, pod in pods(everything).items()}
    logins = {name: variables["DATABASE_URL"] for name, variables in found.items()}
    assert logins == {
        "api": "routines-api",
        "ticker": "routines-ticker",
        "worker": "routines-worker",
        "temporal-worker": "routines-worker",
        "migrate": "routines-owner",
        "admin": "routines-owner",
    }
    with_keys = {name for name, pod in pods(everything).items() if "routines-encryption-keys" in str(pod)}
    assert with_keys == {"api", "worker", "temporal-worker", "admin"}
    assert with_keys == {name for name, each in found.items() if "ROUTINES_ENCRYPTION_KEYS_FILE" in each}
    assert {name for name, each in found.items() if "ROUTINES_FILES" in each} == with_keys - {"admin"}


def test_every_variable_is_one_that_programs_read(everything: list[dict[str, Any]]) -> None:
    known = {str(field.alias) for field in Settings.model_fields.values()} | {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    for name, pod in pods(everything).items():
        assert set(environment(pod)) <= known, name
        names = [each["name"] for each in container(pod)["env"]]
        assert len(names) == len(set(names)), name
    Settings.model_validate({**environment(pods(everything)["worker"]), "ROUTINES_METRICS_TOKEN": "t" * 16})


def test_every_pod_is_confined(everything: list[dict[str, Any]]) -> None:
    for pod in pods(everything).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container(pod)["resources"]["limits"]["memory"]
    # The user that the image makes.
    assert "--uid 10001 --gid 10001" in (ROOT / "Dockerfile").read_text("utf-8")


def test_probes_ask_the_api_itself_and_the_other_programs_on_their_management_port(
    everything: list[dict[str, Any]],
) -> None:
    for name in (*PROGRAMS, "temporal-worker"):
        found = container(pods(everything)[name])
        asked = {kind: found[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")}
        paths = [("/livez", "http"), ("/readyz", "http")] if name == "api" else [("/health", "metrics")] * 2
        assert [(each["path"], each["port"]) for each in asked.values()] == paths
        ports = {each["name"]: each["containerPort"] for each in found["ports"]}
        assert ports["metrics"] == 9464
        # No restart for an outage of the database that lasts minutes.
        if name != "api":
            probe = found["livenessProbe"]
            assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


def test_a_pod_has_time_for_its_pre_stop_hook_and_for_its_program_to_stop(everything: list[dict[str, Any]]) -> None:
    for name in (*PROGRAMS, "temporal-worker"):
        pod = pods(everything)[name]
        hook = container(pod).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert pod["spec"]["terminationGracePeriodSeconds"] > int(hook[1]) + 2 * STOP_SECONDS, name
    assert container(pods(everything)["api"])["lifecycle"]


def test_services_and_budgets_select_the_pods_of_their_program(everything: list[dict[str, Any]]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(everything).items()}
    for name, each in named(everything, "PodDisruptionBudget").items():
        assert each["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for name, each in named(everything, "Service").items():
        program = name.removesuffix("-metrics")
        matching = [other for other, found in labels.items() if each["spec"]["selector"].items() <= found.items()]
        assert matching == [program]
    for name, each in named(everything, "Deployment").items():
        assert each["spec"]["selector"]["matchLabels"].items() <= labels[name].items()


def test_the_monitor_finds_every_metrics_port_and_names_jobs_as_the_alerts_do(everything: list[dict[str, Any]]) -> None:
    [monitor] = named(everything, "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = {
        name for name, each in named(everything, "Service").items() if wanted <= each["metadata"]["labels"].items()
    }
    assert found == {f"{name}-metrics" for name in (*PROGRAMS, "temporal-worker")}
    [endpoint] = monitor["spec"]["endpoints"]
    [relabeling] = endpoint["relabelings"]
    for component, job in (("api", "routines-api"), ("temporal-worker", "routines-worker")):
        made = re.fullmatch(relabeling["regex"], component)
        assert made
        assert relabeling["replacement"].replace("$1", made[1]) == job
    assert endpoint["authorization"]["credentials"] == {"name": "metrics-token", "key": "token"}


def test_the_alerts_are_those_of_the_docs(everything: list[dict[str, Any]]) -> None:
    [rule] = named(everything, "PrometheusRule").values()
    page = (ROOT / "docs" / "run" / "prometheus" / "routines.rules.yml").read_text("utf-8")
    assert (CHART / "files" / "routines.rules.yml").read_text("utf-8") == page, "run `make docs`"
    assert rule["spec"] == yaml.safe_load(page)


def test_what_needs_the_operator_or_temporal_is_off_by_default(default: list[dict[str, Any]]) -> None:
    assert not OF_THE_OPERATOR & {each["kind"] for each in default}
    assert "temporal" not in str(default).lower()


def test_temporal_workers_are_told_where_temporal_is(everything: list[dict[str, Any]]) -> None:
    found = environment(pods(everything)["temporal-worker"])
    assert found["ROUTINES_ENGINE"] == "temporal"
    assert found["ROUTINES_TEMPORAL_ADDRESS"] == "temporal:7233"
    assert found["ROUTINES_TEMPORAL_API_KEY"] == "temporal"
    assert "ROUTINES_ENGINE" not in environment(pods(everything)["worker"])


def test_a_digest_wins_over_the_tag_and_the_version_is_the_default() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == project["version"]
    digest = f"sha256:{'a' * 64}"
    for image, expected in (
        ({}, f"routines:{project['version']}"),
        ({"tag": "1.2"}, "routines:1.2"),
        ({"tag": "1.2", "digest": digest}, f"routines@{digest}"),
    ):
        found = {container(pod)["image"] for pod in pods(render({**FILES, "image": image})).values()}
        assert found == {expected}


def test_files_are_in_a_bucket_or_on_a_volume_and_one_of_them_is_required() -> None:
    found = pods(render({"files": {"existingClaim": "shared"}}))
    claims = {name for name, pod in found.items() if "'claimName': 'shared'" in str(pod)}
    assert claims == {"api", "worker"}
    assert environment(found["api"])["ROUTINES_FILES"] == "/files"
    for files in ({}, {"url": "s3://bucket", "existingClaim": "shared"}):
        with pytest.raises(ChartError, match=r"files\.url"):
            render({"files": files})


@pytest.mark.parametrize(
    "values",
    [
        {"ticker": {"replica": 3}},
        {"ticker": {"replicas": "3"}},
        {"image": {"digest": "latest"}},
        {"database": {"owner": {"secret": ""}}},
        {"files": {"url": "gs://bucket"}},
        {"config": {"ROUTINES_PORT": 8080}},
        {"worker": {"concurrency": 5000}},
        {"unknown": {}},
    ],
)
def test_a_value_that_is_wrong_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ChartError):
        render({**FILES, **values})


def test_the_schema_accepts_the_defaults_and_knows_every_value() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)
