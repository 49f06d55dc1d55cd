"""Writes small databases in MaxMind's format (MaxMind DB File Format Specification 2.0), so that
tests read a real file."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Network, ip_network
from typing import Any

_EMPTY, _RECORD_BYTES = -1, 3


def database(records: Mapping[str, Any]) -> bytes:
    """``{"203.0.113.0/24": {...}}`` as a file: a binary trie of IPv6 bits, then the records."""
    nodes: list[list[int]] = [[_EMPTY, _EMPTY]]
    data = b""
    leaves: list[int] = []
    for network, record in records.items():
        leaves.append(len(data))
        _put(nodes, _in_ipv6(network), ~len(leaves))
        data += _encode(record)
    metadata = {
        "node_count": len(nodes), "record_size": 24, "ip_version": 6,
        "database_type": "Test", "languages": [], "description": {},
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 0,
    }  # fmt: skip

    def pointer(child: int) -> int:
        if child >= 0:
            return child
        return len(nodes) + (0 if child == _EMPTY else 16 + leaves[~child - 1])

    tree = b"".join(pointer(each).to_bytes(_RECORD_BYTES) for pair in nodes for each in pair)
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encode(metadata)


def city(country: str, *subdivisions: str) -> dict[str, Any]:
    """A record as GeoIP2 City has it, as far as regions go."""
    return {
        "country": {"iso_code": country},
        "subdivisions": [{"iso_code": each} for each in subdivisions],
    }


def _in_ipv6(network: str) -> IPv6Network:
    """IPv4 lives in ``::/96``."""
    found = ip_network(network)
    if isinstance(found, IPv6Network):
        return found
    return IPv6Network((int(found.network_address), 96 + found.prefixlen))


def _put(nodes: list[list[int]], network: IPv6Network, leaf: int) -> None:
    bits = f"{int(network.network_address):0128b}"[: network.prefixlen]
    node = 0
    for bit in map(int, bits[:-1]):
        if nodes[node][bit] == _EMPTY:
            nodes[node][bit] = len(nodes)
            nodes.append([_EMPTY, _EMPTY])
        node = nodes[node][bit]
    nodes[node][int(bits[-1])] = leaf


def _encode(value: Any) -> bytes:
    """Maps, arrays, texts and numbers of fewer than 29 members or bytes."""
    if isinstance(value, dict):
        members = (_encode(part) for item in value.items() for part in item)
        return bytes([7 << 5 | len(value)]) + b"".join(members)
    if isinstance(value, list):
        return bytes([len(value), 11 - 7]) + b"".join(map(_encode, value))
    if isinstance(value, str):
        return bytes([2 << 5 | len(value)]) + value.encode()
    size = (value.bit_length() + 7) // 8
    return bytes([6 << 5 | size]) + int(value).to_bytes(size)
