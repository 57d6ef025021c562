"""Which addresses count as public: everything in IANA's registries of special addresses does not."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest

from datapruner.http.addresses import is_public

#: IANA IPv4 and IPv6 Special-Purpose Address Registries, with multicast and what IPv6 has not given out.
IPV4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
]
IPV6 = [
    "::1/128",
    "::/128",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2620:4f:8000::/48",
    "3ffe::/16",
    "3fff::/20",
    "4000::/3",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


@pytest.mark.parametrize("network", IPV4 + IPV6)
def test_first_and_last_of_every_special_network_are_not_public(network: str) -> None:
    found = ip_network(network)
    for address in (found[0], found[-1], found[found.num_addresses // 3]):
        assert not is_public(str(address)), address


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "93.184.215.14", "192.0.1.1", "192.88.98.1", "192.88.100.1", "198.20.0.1"),
        *("9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"),
        *(
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "3fff:1000::1",
            "2003::1",
        ),
    ],
)
def test_what_lies_beside_the_special_networks_is_public(address: str) -> None:
    assert is_public(address)


def carrying(inner: str) -> list[str]:
    """IPv6 addresses which lead to an IPv4 address: mapped, NAT64, 6to4 and ISATAP."""
    number = int(IPv4Address(inner))
    high, low = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{inner}",
        f"64:ff9b::{inner}",
        f"2002:{high:x}:{low:x}::1",
        f"2a00:1450::5efe:{inner}",
        f"2a00:1450::200:5efe:{inner}",
    ]


@pytest.mark.parametrize(
    "inner", [str(ip_network(network)[1 if "/32" not in network else 0]) for network in IPV4]
)
def test_an_address_that_leads_to_one_that_is_not_public_is_not_either(inner: str) -> None:
    assert [address for address in carrying(inner) if is_public(address)] == []


def test_an_address_that_leads_to_a_public_one_is_public() -> None:
    assert all(map(is_public, carrying("8.8.8.8")))


@pytest.mark.parametrize(
    "address", ["::8.8.8.8", "2001:0:808:808::1", "2001::f7f7:f7f7", "64:ff9b:1::8.8.8.8"]
)
def test_tunnels_and_translations_without_an_end_that_is_known_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_a_zone_behind_an_address_changes_nothing() -> None:
    assert not is_public("fe80::1%eth0")
    assert is_public("2606:4700::1111%lo")
