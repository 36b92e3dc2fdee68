"""docs/run/metrics.md lists exactly the metrics that exist, and the alerts use no others."""

import re
import shutil
import subprocess
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from routines_api.metrics.api import ApiMetrics
from routines_api.metrics.database import SHOWN, DatabaseMetrics
from routines_core.db import metrics as db
from routines_core.db.runs import StepRecord
from routines_core.metrics.program import ProgramMetrics
from routines_engine.metrics import WorkerMetrics
from routines_ticker.metrics import TickerMetrics
from support.service import ROOT

PAGE = (ROOT / "docs" / "run" / "metrics.md").read_text("utf-8")
RULES = ROOT / "docs" / "run" / "prometheus" / "routines.rules.yml"
CONFIG = ROOT / "docs" / "run" / "prometheus" / "prometheus.yml"
FIRED = ROOT / "tests" / "docs" / "routines.rules.test.yml"
OF_PROMETHEUS = {"up"}
"""What Prometheus itself knows about each target."""


class Row(NamedTuple):
    kind: str
    labels: frozenset[str]


def documented() -> dict[str, Row]:
    """Return type and labels of each metric, as the tables give them."""
    rows = re.findall(r"^\| `(routines_\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \| [^|]+ \|$", PAGE, flags=re.MULTILINE)
    return {name: Row(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


FOUND = {
    "routines": db.RoutineMetrics(1, 2, 3),
    "skips": db.SkipMetrics(1, 2, 3, 4, 5, 6, 7, 8),
    "runs": db.RunMetrics(1, 2, 3),
    "deliveries": db.DeliveryMetrics(1, 2),
    "alerts": db.AlertMetrics(1, 2, 3),
    "programs": db.ConnectedPrograms(1, 2),
    "snapshots": db.SnapshotMetrics(1),
    "schema": db.SchemaMetrics(1),
}


def programs() -> list[ProgramMetrics]:
    """Each program's metrics, once it has done everything that it counts."""
    api, ticker, worker = (
        ApiMetrics(""),
        TickerMetrics(),
        WorkerMetrics(),
    )
    scope: Any = {"method": "GET", "path_template": "/health"}
    api.end(scope, api.begin(), 200)
    api.refused("busy")
    database: DatabaseMetrics = api.database
    database._found = FOUND
    worker.run_ended("completed", 1.0)
    worker.stepped(StepRecord("one", 0, "completed", "text_echo", {}))
    for program in (api, ticker, worker):
        program.loop_failed("a loop", "away")
    return [api, ticker, worker]


def families() -> dict[str, Metric]:
    return {family.name: family for program in programs() for family in program.collect()}


def shown() -> dict[str, Row]:
    """Return type and labels of each metric, as the code has them."""
    rows: dict[str, Row] = {}
    for family in families().values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        rows[name] = Row(family.type, labels)
    return rows


def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    assert documented() == shown()


def test_every_metric_of_the_database_has_its_statement_and_is_shown() -> None:
    assert set(SHOWN) == set(db.KINDS) == set(FOUND)


def test_names_have_the_prefix_and_base_units() -> None:
    for name in shown():
        assert re.fullmatch(r"routines_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent)(_|$)", name)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def test_alerts_use_existing_metrics_and_labels() -> None:
    known = {**shown()}
    for name, row in shown().items():
        if row.kind == "histogram":
            known |= {f"{name}_{part}": Row(part, row.labels | {"le"}) for part in ("bucket", "sum", "count")}
    for rule in rules():
        used = re.findall(r"\b(routines_\w+|up)\b(?:\{([^}]*)\})?", rule["expr"])
        assert used, rule
        for name, matchers in used:
            assert name in {*known, *OF_PROMETHEUS}, rule["alert"]
            if name in known:
                assert set(re.findall(r"(\w+)(?:=|!)~?", matchers)) <= known[name].labels, rule["alert"]


def test_each_alert_has_a_unique_name_a_severity_and_a_summary() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule["alert"].startswith("Routines")
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_the_page_explains_exactly_the_alerts_that_page() -> None:
    explained = set(re.findall(r"`(Routines\w+)`", PAGE.partition("## What to page on")[2].partition("\n## ")[0]))
    assert explained == {rule["alert"] for rule in rules() if rule["labels"]["severity"] == "page"}


def test_the_example_configuration_scrapes_every_program_and_reads_the_rules() -> None:
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    assert {job["job_name"] for job in config["scrape_configs"]} == {f"routines-{p.program}" for p in programs()}
    assert config["rule_files"] == [RULES.name]


def test_prometheus_accepts_the_rules_and_fires_them_as_the_cases_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checks = (["check", "rules", RULES], ["check", "config", "--syntax-only", CONFIG], ["test", "rules", FIRED])
    for arguments in checks:
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
