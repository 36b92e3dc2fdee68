"""Decides which addresses a URL from a user may lead to: public ones only, in any spelling or encoding.

Source: the IANA registries of special-purpose IPv4 and IPv6 addresses. `ipaddress.is_global` is not enough: it treats
NAT64, 6to4, multicast and IPv4 embedded in IPv6 as global.
"""

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The only part of IPv6 assigned for public use; unique local, link-local and multicast addresses lie outside."""

_NOT_PUBLIC: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),  # private
    IPv4Network("100.64.0.0/10"),  # shared, behind carriers' NAT
    IPv4Network("127.0.0.0/8"),  # loopback
    IPv4Network("169.254.0.0/16"),  # link-local
    IPv4Network("172.16.0.0/12"),  # private
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.31.196.0/24"),  # AS112
    IPv4Network("192.52.193.0/24"),  # AMT
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),  # private
    IPv4Network("192.175.48.0/24"),  # AS112
    IPv4Network("198.18.0.0/15"),  # benchmarking
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, and broadcast
    IPv6Network("2001::/23"),  # protocol assignments: Teredo, benchmarking, ORCHID
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("2620:4f:8000::/48"),  # AS112
    IPv6Network("3ffe::/16"),  # 6bone, abandoned
    IPv6Network("3fff::/20"),  # documentation
)
_NEVER: tuple[Network, ...] = (
    # Metadata services, which hand out a cloud machine's credentials.
    IPv4Network("100.100.100.200/32"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("192.0.0.192/32"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::254/128"),
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
    # IPv4 embedded in IPv6: the embedded address may be any of the above.
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2001::/32"),
    IPv6Network("2002::/16"),
)
"""Refused even if private addresses are allowed."""
_LOW_IPV6 = IPv6Network("::/8")
"""Unspecified, loopback, IPv4-mapped, IPv4-compatible, IPv4-translated."""

_METADATA_HOST = re.compile(
    r"(.+\.)?(metadata|metadata\.goog|metadata\.google\.internal|instance-data(\.ec2\.internal)?"
    r"|metadata\.(azure|oraclecloud|tencentyun|packet)\.(internal|com|net))"
)
_LOCAL_HOST = re.compile(r"(.+\.)?(localhost|localdomain)|ip6-(localhost|loopback)|broadcasthost")


def is_allowed(address: Address, *, allow_private: bool) -> bool:
    """Check whether a connection to this address is allowed.

    Args:
        address: The destination; an address with a zone is always refused.
        allow_private: Also allow loopback, private, unique local and shared addresses, but never link-local, multicast,
            metadata services or IPv4 embedded in IPv6.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    if any(address in network for network in _NEVER):
        return False
    if allow_private:
        return address not in _LOW_IPV6 or address == IPv6Address("::1")
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def is_allowed_host(host: str, *, allow_private: bool) -> bool:
    """Check the host of a URL by its spelling; names are not resolved.

    Args:
        host: In ASCII, as DNS expects it; an IPv6 address with or without brackets.
        allow_private: Also allow loopback and private addresses.

    Returns:
        False if the host can be refused without resolving it.
    """
    name = host.lower().rstrip(".")
    if not name or _METADATA_HOST.fullmatch(name):
        return False
    if _LOCAL_HOST.fullmatch(name):
        return allow_private
    address = literal(name)
    return address is None or is_allowed(address, allow_private=allow_private)


def literal(host: str) -> Address | None:
    """Parse a host that is an address, including IPv4 in octal, hexadecimal, single-number or short form.

    Returns:
        The address, or None if the host is a name.
    """
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    if not _IPV4_LIKE.fullmatch(host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


_IPV4_LIKE = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE | re.ASCII)
