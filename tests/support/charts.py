"""Render the chart in deploy/helm with Helm's own library, if it is installed: `make charts`."""

import importlib
import os
from typing import Any

import pytest
import yaml

from support.service import ROOT

CHART = ROOT / "deploy" / "helm" / "routines"
_WARNING = 2
"""Helm's number for a warning; errors are above."""


class ChartError(Exception):
    """Helm refused the values."""


def library(name: str) -> Any:
    """Import a library of the extra `charts`, or skip the test."""
    if os.environ.get("ROUTINES_TEST_CHARTS") == "required":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="the extra charts is not installed: run `make charts`")


def render(values: dict[str, Any], name: str = "routines") -> list[dict[str, Any]]:
    """Return the objects that an installation with these values creates.

    Raises:
        ChartError: The values do not fit the schema, or a template refuses them.
    """
    helm = library("helm_python")
    try:
        with helm.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            made: dict[str, str] = chart.render(values, name=name, namespace="default", is_install=True)
    except helm.HelmError as error:
        raise ChartError(str(error)) from None
    texts = [text for path, text in made.items() if path.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def lint(values: dict[str, Any]) -> list[str]:
    """Return what `helm lint --strict` finds."""
    report = library("helm_python").lint(CHART, values, strict=True)
    return [*report["errors"], *(each["error"] for each in report["messages"] if each["severity"] >= _WARNING)]


def validate(made: dict[str, Any], version: str) -> None:
    """Check an object against the schema that this version of Kubernetes has for it; unknown fields are errors."""
    library("kubernetes_validate").validate(made, version, strict=True)
