"""Which Temporal server is meant: ROUTINES_TEMPORAL_* wins over TEMPORAL_* and over Temporal's own file."""

from pathlib import Path

import pytest
from temporalio.client import TLSConfig

from routines_core.errors import ConfigurationError
from routines_core.settings import Settings
from routines_engine.temporal.target import target_of

PROFILE = """
[profile.default]
address = "localhost:7001"
namespace = "of-the-file"

[profile.cloud]
address = "cloud.example.com:7233"
namespace = "of-the-cloud"
api_key = "key-of-the-file"
[profile.cloud.grpc_meta]
x-team = "routines"

[profile.broken]
address = "localhost:7001"
[profile.broken.tls]
client_cert_path = "/nonexistent/cert.pem"
"""


@pytest.fixture(autouse=True)
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporal's configuration file, and none of the variables of the machine that runs the test."""
    for name in ("ADDRESS", "NAMESPACE", "API_KEY", "PROFILE", "TLS"):
        monkeypatch.delenv(f"TEMPORAL_{name}", raising=False)
    file = tmp_path / "temporal.toml"
    file.write_text(PROFILE, "utf-8")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    return file


def test_the_default_profile_is_used_if_nothing_else_is_set() -> None:
    target = target_of(Settings())
    assert (target.address, target.namespace, target.tls) == ("localhost:7001", "of-the-file", False)


def test_a_named_profile_brings_its_key_tls_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "cloud")
    target = target_of(Settings())
    assert (target.address, target.namespace, target.api_key) == (
        "cloud.example.com:7233", "of-the-cloud", "key-of-the-file",
    )  # fmt: skip
    assert target.tls is True or isinstance(target.tls, TLSConfig)
    assert dict(target.metadata) == {"x-team": "routines"}
    assert "key-of-the-file" not in repr(target)


def test_variables_of_temporal_win_over_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:7002")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "of-the-environment")
    target = target_of(Settings())
    assert (target.address, target.namespace) == ("127.0.0.1:7002", "of-the-environment")


def test_single_settings_of_routines_win_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "of-the-environment")
    assert target_of(Settings(temporal_namespace="ours")).namespace == "ours"


def test_with_an_address_of_routines_nothing_of_temporals_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the key for one server is never sent to another."""
    monkeypatch.setenv("TEMPORAL_PROFILE", "cloud")
    monkeypatch.setenv("TEMPORAL_API_KEY", "key-of-the-environment")
    target = target_of(Settings(temporal_address="127.0.0.1:7003"))
    assert (target.address, target.namespace, target.api_key, target.tls) == ("127.0.0.1:7003", "default", None, False)


def test_a_remote_server_of_a_profile_needs_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example.com:7233")
    with pytest.raises(ConfigurationError, match="without TLS"):
        target_of(Settings())


def test_a_profile_that_cannot_be_used_is_refused_without_quoting_it(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "broken")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        target_of(Settings())
    config_file.write_text("canary = [", "utf-8")
    with pytest.raises(ConfigurationError, match="TEMPORAL_CONFIG_FILE") as caught:
        target_of(Settings())
    assert "canary" not in str(caught.value)
