"""`routines up` assigns the metrics ports of its programs."""

import pytest

from routines_cli.up import _metrics_ports
from routines_core.errors import ConfigurationError
from routines_core.settings import Settings


def test_the_ticker_gets_the_metrics_port_and_the_worker_the_next_one_on_loopback() -> None:
    environments = _metrics_ports(Settings(metrics_port=9464, metrics_host="0.0.0.0"))
    assert {name: own["ROUTINES_METRICS_PORT"] for name, own in environments.items()} == {
        "api": "",
        "ticker": "9464",
        "worker": "9465",
    }
    assert {own["ROUTINES_METRICS_HOST"] for own in environments.values()} == {"127.0.0.1"}


def test_without_a_metrics_port_no_program_gets_one() -> None:
    assert _metrics_ports(Settings()) == {}


def test_a_metrics_port_without_a_next_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 65534"):
        _metrics_ports(Settings(metrics_port=65535))
