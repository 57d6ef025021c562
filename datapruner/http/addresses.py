"""Which addresses are of the public internet, and which are this machine.

Notable choices:
- everything in IANA's special-purpose registries for IPv4 and IPv6 is refused, what they call globally
  reachable included: at anycast services, relays and sinks for reverse look-ups there is nobody to tell
  anything; so is IPv6 space that is not given out;
- an IPv6 address that carries an IPv4 address is as public as that one, since that is where it leads.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared, behind a provider's translation
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, 192.0.0.8 (dummy) among them
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # sink for reverse look-ups (AS112)
            "192.52.193.0/24",  # multicast relays (AMT)
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # sink for reverse look-ups (AS112)
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GIVEN_OUT = IPv6Network("2000::/3")
_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID, anycast services
            "2001:db8::/32",  # documentation
            "2620:4f:8000::/48",  # sink for reverse look-ups (AS112)
            "3ffe::/16",  # the test network 6bone, given back
            "3fff::/20",  # documentation
        ),
    )
)
_MAPPED, _NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
#: Upper half of an interface identifier of ISATAP, but for its bit that says universal or local.
_ISATAP, _ISATAP_MASK = 0x00005EFE, 0xFDFFFFFF


def is_public(text: str) -> bool:
    """Whether an address, with or without a zone (`fe80::1%eth0`), is one of the public internet."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4)
    carried = _carried(address)
    if carried is not None and not is_public(str(carried)):
        return False
    if address in _MAPPED or address in _NAT64:
        return True
    return address in _GIVEN_OUT and not any(address in network for network in _IPV6)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which routers or translators would send what is for this one."""
    number = int(address)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64 or number >> 32 & _ISATAP_MASK == _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def is_loopback(url: httpx.URL) -> bool:
    """Whether the host is this machine."""
    if url.host == "localhost":
        return True
    try:
        return ip_address(url.host).is_loopback
    except ValueError:
        return False
