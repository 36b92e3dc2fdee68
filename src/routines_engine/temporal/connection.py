"""Connecting to Temporal, and the error messages for a server that is unreachable or unsuitable."""

import logging
from datetime import timedelta
from functools import cache

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RPCError, RPCStatusCode

from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings
from routines_engine.temporal.target import Target, target_of

RPC_TIMEOUT = timedelta(seconds=5)
"""How long a request to Temporal may take."""


class TemporalError(RoutinesError):
    """Temporal cannot be reached or used."""


@cache
def runtime_of(metrics_address: str | None) -> Runtime:
    """Return the SDK's threads, shared by all connections of this process.

    Args:
        metrics_address: Host and port where the SDK serves its metrics to Prometheus; None for nowhere.

    Raises:
        ConfigurationError: It cannot listen there.
    """
    metrics = None
    if metrics_address is not None:
        metrics = PrometheusConfig(bind_address=metrics_address, durations_as_seconds=True, unit_suffix=True)
    try:
        return Runtime(
            telemetry=TelemetryConfig(
                # Forwarded to where the logs of all libraries go, without values; by default the SDK prints on stdout.
                logging=LoggingConfig(
                    filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"),
                    forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
                ),
                metrics=metrics,
            )
        )
    except (RuntimeError, ValueError):
        raise ConfigurationError(
            f"Temporal's metrics cannot be served at {metrics_address}: set ROUTINES_TEMPORAL_METRICS to another "
            "host:port, or leave it unset."
        ) from None


async def connect(settings: Settings) -> Client:
    """Return a client of the configured namespace, once the namespace has answered.

    Raises:
        ConfigurationError: A file of the TLS settings cannot be read, or TLS is off and the server is not on loopback.
        TemporalError: The server cannot be reached, refuses access or does not have the namespace.
    """
    target = target_of(settings)
    runtime = runtime_of(settings.temporal_metrics)
    try:
        client = await Client.connect(
            target.address,
            namespace=target.namespace,
            api_key=target.api_key,
            tls=target.tls,
            rpc_metadata=target.metadata,
            runtime=runtime,
        )
    except (RuntimeError, ValueError):  # its text may hold anything that the server sent
        raise TemporalError(_unreachable(target)) from None
    try:
        await probe(client)
    except RPCError as error:
        raise TemporalError(describe(target, error)) from None
    return client


async def probe(client: Client) -> None:
    """Ask Temporal for the namespace.

    Raises:
        RPCError: Temporal does not answer, refuses access or does not have it.
    """
    request = DescribeNamespaceRequest(namespace=client.namespace)
    await client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)


def describe(target: Target, error: RPCError) -> str:
    """Return a sentence that says what is wrong and which setting to check, without quoting the server."""
    if error.status == RPCStatusCode.NOT_FOUND:
        return (
            f"Temporal at {target.address} has no namespace {target.namespace!r}: "
            "create it, or set ROUTINES_TEMPORAL_NAMESPACE."
        )
    if error.status in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}:
        return (
            f"Temporal at {target.address} refuses access: check ROUTINES_TEMPORAL_API_KEY, "
            "or ROUTINES_TEMPORAL_CERT_FILE and ROUTINES_TEMPORAL_KEY_FILE."
        )
    return _unreachable(target)


def _unreachable(target: Target) -> str:
    return f"Temporal cannot be reached at {target.address}: start a server there, or set ROUTINES_TEMPORAL_ADDRESS."
