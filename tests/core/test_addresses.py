"""Checks of addresses and host names."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.addresses import is_allowed, is_allowed_host, literal

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"]
PRIVATE = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12:3456::1", "::1"]
NEVER = [
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
    "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "::",
    "::ffff:10.0.0.1", "::ffff:1.1.1.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1",
]  # fmt: skip
RESERVED = [
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "2001:db8::1", "2001:2::1", "2001:10::1",
    "3fff::1", "100::1", "5f00::1", "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert is_allowed(ip_address(text), allow_private=False)


@pytest.mark.parametrize("text", [*PRIVATE, *NEVER, *RESERVED])
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert not is_allowed(ip_address(text), allow_private=False)


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_allowed_if_the_setting_says_so(text: str) -> None:
    assert is_allowed(ip_address(text), allow_private=True)


@pytest.mark.parametrize("text", NEVER)
def test_metadata_link_local_and_embedded_addresses_are_always_refused(text: str) -> None:
    assert not is_allowed(ip_address(text), allow_private=True)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_embedded_in_ipv6_is_never_allowed(address: IPv4Address) -> None:
    low, high = int(address), int(address) << 80
    dressed = [low, 0xFFFF << 32 | low, 0x64FF9B << 96 | low, 0x2002 << 112 | high, 0x20010000 << 96 | low ^ 0xFFFFFFFF]
    assert not [each for each in dressed if each > 1 and is_allowed(IPv6Address(each), allow_private=True)]


@given(st.ip_addresses(v=4), st.sampled_from(["{0}", "{0:#x}", "{1}.{2}", "{1:#x}.{3}.{4}", "{1}.{5:#o}.{6}.{7}"]))
def test_every_spelling_of_an_ipv4_address_is_recognized(address: IPv4Address, spelling: str) -> None:
    number, (first, second, third, fourth) = int(address), address.packed
    text = spelling.format(number, first, number & 0xFFFFFF, second, number & 0xFFFF, second, third, fourth).replace(
        "0o", "0"
    )
    assert literal(text) == address
    assert is_allowed_host(text, allow_private=False) == is_allowed(address, allow_private=False)


@pytest.mark.parametrize("host", ["example.com", "example.com.", "1.example.com", "0x.example.com", "my-localhost.com"])
def test_an_ordinary_host_name_is_allowed(host: str) -> None:
    assert literal(host) is None
    assert is_allowed_host(host, allow_private=False)


def test_names_of_this_machine_need_the_setting_and_names_of_metadata_services_are_always_refused() -> None:
    assert [is_allowed_host("a.localhost", allow_private=each) for each in (False, True)] == [False, True]
    names = ["metadata", "metadata.google.internal.", "METADATA.goog", "instance-data", "instance-data.ec2.internal"]
    assert not [name for name in names if is_allowed_host(name, allow_private=True)]
