#!/usr/bin/env python3
"""Writes a small database of where addresses are, in MaxMind's format: documentation networks.

    scripts/geo/mmdb.py [FILE]            (default: conf/data/documentation.mmdb)
    scripts/geo/mmdb.py --check           is the file in the repository what this writes?

`nearhop dev` answers DNS with it. The format: https://maxmind.github.io/MaxMind-DB/.
"""

import ipaddress
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).resolve().parents[2] / "conf/data/documentation.mmdb"

# RFC 5737 and RFC 3849, and this machine itself, at places near the three regions of `nearhop dev`.
PLACES = {
    "192.0.2.0/25": (47.61, -122.33),  # Seattle
    "192.0.2.128/25": (34.05, -118.24),  # Los Angeles
    "198.51.100.0/24": (51.51, -0.13),  # London
    "203.0.113.0/24": (28.61, 77.21),  # Delhi
    "127.0.0.0/8": (53.35, -6.26),  # Dublin
    "2001:db8:1::/48": (37.77, -122.42),  # San Francisco
    "2001:db8:2::/48": (48.86, 2.35),  # Paris
    "2001:db8:3::/48": (12.97, 77.59),  # Bangalore
}


class Middle(int):
    """A number of up to 32 bits, where the format wants one; plain ones are of up to 16."""


class Long(int):
    """A number of up to 64 bits."""


def encoded(value: object) -> bytes:
    """A value of the data section; what is needed here fits into one byte of control."""
    if isinstance(value, dict):
        body = b"".join(encoded(key) + encoded(item) for key, item in value.items())
        return bytes([7 << 5 | len(value)]) + body
    if isinstance(value, list):
        # An extended type: 11 is 7 and 4.
        return bytes([len(value), 4]) + b"".join(map(encoded, value))
    if isinstance(value, str):
        text = value.encode()
        if len(text) < 29:
            return bytes([2 << 5 | len(text)]) + text
        return bytes([2 << 5 | 29, len(text) - 29]) + text
    if isinstance(value, float):
        return bytes([3 << 5 | 8]) + struct.pack(">d", value)
    size = (value.bit_length() + 7) // 8
    number = value.to_bytes(size, "big")
    if isinstance(value, Long):
        # An extended type: 9 is 7 and 2.
        return bytes([size, 2]) + number
    return bytes([(6 if isinstance(value, Middle) else 5) << 5 | size]) + number


class Tree:
    """A binary tree over 128 bits, IPv4 in ::/96. A node is two records: another node, or data."""

    def __init__(self) -> None:
        self.nodes: list[list] = [[None, None]]

    def insert(self, network: str, data: int) -> None:
        parsed = ipaddress.ip_network(network)
        first = int(parsed.network_address)
        bits = parsed.prefixlen + (96 if parsed.version == 4 else 0)
        node = 0
        for depth in range(bits):
            side = first >> (127 - depth) & 1
            if depth == bits - 1:
                self.nodes[node][side] = ("data", data)
                return
            if self.nodes[node][side] is None:
                self.nodes.append([None, None])
                self.nodes[node][side] = ("node", len(self.nodes) - 1)
            node = self.nodes[node][side][1]

    def written(self) -> bytes:
        count = len(self.nodes)

        def record(side: tuple | None) -> bytes:
            if side is None:
                return count.to_bytes(3, "big")
            kind, value = side
            return (value if kind == "node" else count + 16 + value).to_bytes(3, "big")

        return b"".join(record(side) for node in self.nodes for side in node)


def database() -> bytes:
    tree, data, known = Tree(), b"", {}
    for network, (latitude, longitude) in PLACES.items():
        value = encoded({"location": {"latitude": latitude, "longitude": longitude}})
        if value not in known:
            known[value] = len(data)
            data += value
        tree.insert(network, known[value])
    metadata = encoded(
        {
            "binary_format_major_version": 2,
            "binary_format_minor_version": 0,
            "build_epoch": Long(1_795_000_000),
            "database_type": "Nearhop-Documentation",
            "description": {"en": "Documentation networks at made-up places"},
            "ip_version": 6,
            "languages": ["en"],
            "node_count": Middle(len(tree.nodes)),
            "record_size": 24,
        }
    )
    return tree.written() + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + metadata


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if FILE.read_bytes() != database():
            raise SystemExit(f"{FILE.name} is not what scripts/geo/mmdb.py writes; run it again")
        return
    (pathlib.Path(sys.argv[1]) if sys.argv[1:] else FILE).write_bytes(database())


if __name__ == "__main__":
    main()
