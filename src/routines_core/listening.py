"""Checks that the API can listen on its address, before the server is started."""

import ipaddress
import socket

from routines_core.errors import ConfigurationError
from routines_core.settings import Settings


def refuse_unfit_address(settings: Settings) -> None:
    """Check that the API can listen on ROUTINES_HOST and ROUTINES_PORT.

    Raises:
        ConfigurationError: ROUTINES_HOST is not an IP address of this machine, or the port is taken.
    """
    try:
        address = ipaddress.ip_address(settings.host)
    except ValueError:
        raise ConfigurationError(
            f"ROUTINES_HOST: {settings.host!a} is not an IP address: use 127.0.0.1, or 0.0.0.0 for all addresses."
        ) from None
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:  # noqa: PLR2004 - IPv4
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
                "set ROUTINES_PORT to a free port and ROUTINES_HOST to an address of this machine."
            ) from None
