"""Everything under a key prefix at one moment, for whole-keyspace comparisons and for the invariant checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

import redis


class KeyValue(NamedTuple):
    """One key.

    Attributes:
        type: What ``TYPE`` says.
        value: ``str`` for strings, ``list`` for lists, ``set`` for sets, ``dict`` of field to text for hashes, ``dict``
            of member to score for sorted sets, and for streams a list with one ``dict`` of fields per entry; entry ids
            are left out, because two runs never share them.
        has_ttl: Whether the key expires.
    """

    type: str
    value: Any
    has_ttl: bool


# One script, so that the picture is taken between two operations and never in the middle of a move.
_SNAPSHOT: Final = """
local reply = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local type = redis.call('TYPE', key).ok
  local value
  if type == 'string' then
    value = redis.call('GET', key)
  elseif type == 'list' then
    value = redis.call('LRANGE', key, 0, -1)
  elseif type == 'set' then
    value = redis.call('SMEMBERS', key)
  elseif type == 'hash' then
    value = redis.call('HGETALL', key)
  elseif type == 'zset' then
    value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif type == 'stream' then
    value = redis.call('XRANGE', key, '-', '+')
  end
  reply[#reply + 1] = { key, type, redis.call('PTTL', key), value }
end
return reply
"""


def keyspace(client: redis.Redis, prefix: str) -> dict[str, KeyValue]:
    """Reads all keys that begin with ``prefix`` and a colon, as of one moment.

    Args:
        client: A client with ``decode_responses=True``.
        prefix: Free text; it may hold colons, braces and glob characters.
    """
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + ":*"
    reply = cast("list[list[Any]]", client.eval(_SNAPSHOT, 0, pattern))
    return {key: KeyValue(kind, _shape(kind, value), ttl != -1) for key, kind, ttl, value in sorted(reply)}


def _shape(kind: str, value: Any) -> Any:
    if kind == "set":
        return set(value)
    if kind == "hash":
        return dict(_pairs(value))
    if kind == "zset":
        return {member: float(score) for member, score in _pairs(value)}
    if kind == "stream":
        return [dict(_pairs(fields)) for _, fields in value]
    return value


def _pairs(flat: list[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)
