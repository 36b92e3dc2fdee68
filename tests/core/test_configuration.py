"""docs/run/configuration.md lists what the settings are, no more and no less."""

import re

import pytest

from routines_core.errors import ConfigurationError
from routines_core.settings import Settings, load_settings
from support.service import ROOT


def documented() -> dict[str, str]:
    """Default by variable, as the first table of the page says."""
    page = (ROOT / "docs" / "run" / "configuration.md").read_text("utf-8").partition("Also read from")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \|[^|]*\| `?([^|`]*)`? \|", page, flags=re.MULTILINE)
    return {name: default.strip() for name, default in rows}


def spelled(default: object) -> str:
    """Return a default as it is written in the environment."""
    if default is None:
        return "not set"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_page_lists_every_variable_with_its_default() -> None:
    fields = Settings.model_fields.values()
    assert documented() == {str(field.alias): spelled(field.default) for field in fields}


def test_variables_named_like_a_field_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "FILES", "TEMPORAL_ADDRESS", "TEMPORAL_API_KEY"):
        monkeypatch.setenv(name, "1234")
    settings = load_settings()
    assert not settings.model_fields_set & {"host", "port", "files", "temporal_address", "temporal_api_key"}
    assert Settings(port=99).port == 99


def test_an_empty_token_or_port_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTINES_METRICS_TOKEN", "")
    monkeypatch.setenv("ROUTINES_METRICS_PORT", "")
    assert (load_settings().metrics_token, load_settings().metrics_port) == (None, None)


def test_a_short_token_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTINES_METRICS_TOKEN", "short-secret")
    with pytest.raises(ConfigurationError, match="ROUTINES_METRICS_TOKEN") as raised:
        load_settings()
    assert "short-secret" not in str(raised.value)


def test_an_error_names_the_variable_but_not_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTINES_WORKER_CONCURRENCY", "very-secret")
    with pytest.raises(ConfigurationError, match="ROUTINES_WORKER_CONCURRENCY") as raised:
        load_settings()
    assert "very-secret" not in str(raised.value)
