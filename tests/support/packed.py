"""MessagePack, as far as scripts speak it: what the engine packs into one argument."""

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
