"""MessagePack, as far as scripts speak it: what the engine packs into one argument, and reads from a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pack(values: tuple[Any, ...] | list[Any]) -> bytes:
    """Returns values as one argument: texts and numbers as text, flags, and maps of them."""
    return b"\xdd" + len(values).to_bytes(4, "big") + b"".join(map(_packed, values))


def _packed(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, Mapping):
        pairs = b"".join(_packed(part) for pair in value.items() for part in pair)
        return b"\xde" + len(value).to_bytes(2, "big") + pairs
    text = str(value).encode()
    return b"\xdb" + len(text).to_bytes(4, "big") + text


def unpack(packed: bytes) -> Any:
    """Returns what a script packed."""
    value, rest = _unpacked(packed)
    assert not rest, rest
    return value


def _unpacked(rest: bytes) -> tuple[Any, bytes]:
    kind, rest = rest[0], rest[1:]
    if kind < 0x80:
        return kind, rest
    if 0x90 <= kind < 0xA0:
        return _several(kind & 0x0F, rest)
    if 0xA0 <= kind < 0xC0:
        return _text(kind & 0x1F, rest)
    if kind == 0xC2:
        return False, rest
    if kind >= 0xE0:
        return kind - 0x100, rest
    size = {0xD0: 1, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}[kind]
    number, rest = int.from_bytes(rest[:size], "big"), rest[size:]
    if kind < 0xD0:
        return number, rest
    if kind == 0xD0:
        return number - 0x100, rest
    return _text(number, rest) if kind < 0xDC else _several(number, rest)


def _text(length: int, rest: bytes) -> tuple[str, bytes]:
    return rest[:length].decode(errors="surrogateescape"), rest[length:]


def _several(count: int, rest: bytes) -> tuple[list[Any], bytes]:
    values = []
    for _ in range(count):
        value, rest = _unpacked(rest)
        values.append(value)
    return values, rest
