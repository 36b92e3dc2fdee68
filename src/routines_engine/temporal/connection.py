"""Connecting to Temporal, and the error messages for a server that is unreachable or unsuitable."""

import logging
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, TLSConfig
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode

from routines_core.addresses import literal
from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings

RPC_TIMEOUT = timedelta(seconds=5)
"""How long a request to Temporal may take."""

RUNTIME = Runtime(
    telemetry=TelemetryConfig(
        # Forwarded to where the logs of all libraries go, without values; by default the SDK prints on stdout.
        logging=LoggingConfig(
            filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"),
            forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
        ),
        metrics=None,
    )
)
"""The SDK's threads, shared by all connections of this process."""


class TemporalError(RoutinesError):
    """Temporal cannot be reached or used."""


async def connect(settings: Settings) -> Client:
    """Return a client of the configured namespace, once the namespace has answered.

    Raises:
        ConfigurationError: A file of the TLS settings cannot be read, or TLS is off and the server is not on loopback.
        TemporalError: The server cannot be reached, refuses access or does not have the namespace.
    """
    tls = _tls(settings)
    try:
        client = await Client.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            api_key=settings.temporal_api_key,
            tls=tls,
            runtime=RUNTIME,
        )
    except (RuntimeError, ValueError):  # its text may hold anything that the server sent
        raise TemporalError(_unreachable(settings)) from None
    try:
        await probe(client)
    except RPCError as error:
        raise TemporalError(describe(settings, error)) from None
    return client


async def probe(client: Client) -> None:
    """Ask Temporal for the namespace.

    Raises:
        RPCError: Temporal does not answer, refuses access or does not have it.
    """
    request = DescribeNamespaceRequest(namespace=client.namespace)
    await client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)


def describe(settings: Settings, error: RPCError) -> str:
    """Return a sentence that says what is wrong and which setting to check, without quoting the server."""
    if error.status == RPCStatusCode.NOT_FOUND:
        return (
            f"Temporal at {settings.temporal_address} has no namespace {settings.temporal_namespace!r}: "
            "create it, or set ROUTINES_TEMPORAL_NAMESPACE."
        )
    if error.status in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}:
        return (
            f"Temporal at {settings.temporal_address} refuses access: check ROUTINES_TEMPORAL_API_KEY, "
            "or ROUTINES_TEMPORAL_CERT_FILE and ROUTINES_TEMPORAL_KEY_FILE."
        )
    return _unreachable(settings)


def _unreachable(settings: Settings) -> str:
    return (
        f"Temporal cannot be reached at {settings.temporal_address}: "
        "start a server there, or set ROUTINES_TEMPORAL_ADDRESS."
    )


def _tls(settings: Settings) -> TLSConfig | bool:
    files = settings.temporal_ca_file, settings.temporal_cert_file, settings.temporal_key_file
    if (files[1] is None) != (files[2] is None):
        raise ConfigurationError(
            "ROUTINES_TEMPORAL_CERT_FILE and ROUTINES_TEMPORAL_KEY_FILE belong together: set both or neither."
        )
    if any(files):
        ca, cert, key = map(_read, files)
        return TLSConfig(server_root_ca_cert=ca, client_cert=cert, client_private_key=key)
    tls = settings.temporal_tls or settings.temporal_api_key is not None
    if not tls and not settings.temporal_insecure and not _is_loopback(settings.temporal_address):
        raise ConfigurationError(
            f"Temporal at {settings.temporal_address} would be used without TLS, so anyone in between could read and "
            "change runs: set ROUTINES_TEMPORAL_TLS=true, or ROUTINES_TEMPORAL_INSECURE=true for a private network."
        )
    return tls


def _is_loopback(address: str) -> bool:
    """Check the host of `host:port` by its spelling."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    found = literal(host)
    return host.lower() == "localhost" if found is None else found.is_loopback


def _read(path: Path | None) -> bytes | None:
    try:
        return path and path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The TLS file {path} for Temporal cannot be read ({error.strerror}).") from None
