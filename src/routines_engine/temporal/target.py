"""Which Temporal server is meant: the settings of Routines, or Temporal's own variables and profile file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.client import TLSConfig
from temporalio.envconfig import ClientConfigProfile

from routines_core.addresses import literal
from routines_core.errors import ConfigurationError
from routines_core.settings import Settings


@dataclass(frozen=True)
class Target:
    """A namespace of a Temporal server, and how to reach it.

    Attributes:
        address: Host and port.
        tls: False for a connection without TLS.
        metadata: Headers of every request.
    """

    address: str
    namespace: str
    api_key: str | None = field(default=None, repr=False)
    tls: TLSConfig | bool = False
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def target_of(settings: Settings) -> Target:
    """Return the server that these settings name.

    Without ROUTINES_TEMPORAL_ADDRESS, what is not set is taken from Temporal's TEMPORAL_* variables and its profile, as
    Temporal's own tools do.

    Raises:
        ConfigurationError: A file cannot be read, or TLS is off and the server is not on loopback.
    """
    given = settings.model_fields_set
    profile = ClientConfigProfile() if "temporal_address" in given else _profile()
    try:
        config = profile.to_client_connect_config()
    except OSError as error:
        raise ConfigurationError(f"A file that Temporal's profile names cannot be read ({error.strerror}).") from None
    target = Target(
        address=config.get("target_host", settings.temporal_address),
        namespace=settings.temporal_namespace
        if "temporal_namespace" in given
        else config.get("namespace", settings.temporal_namespace),
        api_key=settings.temporal_api_key or config.get("api_key"),
        tls=_tls(settings) or config.get("tls", False),
        metadata=config.get("rpc_metadata", {}),
    )
    if not target.tls and not settings.temporal_insecure and not _is_loopback(target.address):
        raise ConfigurationError(
            f"Temporal at {target.address} would be used without TLS, so anyone in between could read and "
            "change runs: set ROUTINES_TEMPORAL_TLS=true, or ROUTINES_TEMPORAL_INSECURE=true for a private network."
        )
    return target


def _profile() -> ClientConfigProfile:
    try:
        return ClientConfigProfile.load()
    except (RuntimeError, ValueError):  # its text may quote the file
        raise ConfigurationError(
            "Temporal's profile cannot be read: check TEMPORAL_CONFIG_FILE and TEMPORAL_PROFILE, "
            "or set ROUTINES_TEMPORAL_ADDRESS to do without it."
        ) from None


def _tls(settings: Settings) -> TLSConfig | bool:
    """Return what the settings of Routines say of TLS; False if they say nothing."""
    files = settings.temporal_ca_file, settings.temporal_cert_file, settings.temporal_key_file
    if (files[1] is None) != (files[2] is None):
        raise ConfigurationError(
            "ROUTINES_TEMPORAL_CERT_FILE and ROUTINES_TEMPORAL_KEY_FILE belong together: set both or neither."
        )
    if any(files):
        ca, cert, key = map(_read, files)
        return TLSConfig(server_root_ca_cert=ca, client_cert=cert, client_private_key=key)
    return settings.temporal_tls or settings.temporal_api_key is not None


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
