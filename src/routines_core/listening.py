"""Whether an address can be listened on, asked before a server is started on it."""

import ipaddress
import socket

from routines_core.errors import ConfigurationError
from routines_core.settings import Settings


def refuse_unfit_address(settings: Settings) -> None:
    """Look whether the API may listen where it shall.

    Raises:
        ConfigurationError: ROUTINES_HOST is no IP address or none of this machine's, or the port is taken.
    """
    try:
        address = ipaddress.ip_address(settings.host)
    except ValueError:
        raise ConfigurationError(
            f"ROUTINES_HOST: {settings.host!a} is no IP address: write 127.0.0.1, or 0.0.0.0 for every one."
        ) from None
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:  # noqa: PLR2004 - IPv4
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}): "
                "set ROUTINES_PORT to a free port and ROUTINES_HOST to an address of this machine."
            ) from None
