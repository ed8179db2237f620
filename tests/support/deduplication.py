"""Every way to deduplicate, and every state the job that owns the id can be in, for tests of one and of two clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import redis as redis_py

ID: Final = "K"
OWNER: Final = "o"
# The same for all, so that whatever a window's length was it can be told from what it became.
TTL_MS: Final = 600_000
OWNERS_TTL_MS: Final = 60_000
OWNER_BORN: Final = 1_700_000_000_000
OWNER_DELAY: Final = 5000

# By the names of Python; `id` is added where they are used.
MODES: Final[dict[str, dict[str, Any]]] = {
    "simple": {},
    "throttle": {"ttl": TTL_MS},
    "sliding": {"ttl": TTL_MS, "extend": True},
    "replace": {"replace": True},
    "replace, ttl": {"ttl": TTL_MS, "replace": True},
    "debounce": {"ttl": TTL_MS, "extend": True, "replace": True},
    "keep last": {"keep_last_if_active": True},
    "keep last, ttl": {"ttl": TTL_MS, "keep_last_if_active": True},
    "keep last, ttl, extend": {"ttl": TTL_MS, "extend": True, "keep_last_if_active": True},
    "keep last, replace": {"keep_last_if_active": True, "replace": True},
    "keep last, replace, ttl": {"ttl": TTL_MS, "keep_last_if_active": True, "replace": True},
    "reschedule": {"reschedule": True},
    "reschedule, ttl": {"ttl": TTL_MS, "reschedule": True},
    "reschedule, sliding": {"ttl": TTL_MS, "extend": True, "reschedule": True},
    "reschedule, replace": {"reschedule": True, "replace": True},
}

STATES: Final = ("wait", "prioritized", "delayed", "active", "completed", "failed", "waiting-children", "missing")


def own(client: redis_py.Redis, base: str, state: str, ttl: bool) -> None:
    """Writes a job in this state that owns the id; ``missing`` is one that is gone, and ``none`` nothing at all."""
    if state == "none":
        return
    client.set(f"{base}de:{ID}", OWNER, px=OWNERS_TTL_MS if ttl else None)
    if state == "missing":
        return
    fields: dict[str, Any] = {"name": "owner", "data": "{}", "opts": '{"de":{"id":"K"}}', "timestamp": OWNER_BORN}
    fields |= {"delay": OWNER_DELAY if state == "delayed" else 0, "priority": 5 if state == "prioritized" else 0}
    fields["deid"] = ID
    if state in ("wait", "prioritized"):
        client.zadd(f"{base}marker", {"0": 0})
    if state in ("wait", "active"):
        client.lpush(f"{base}{state}", OWNER)
    elif state == "prioritized":
        client.zadd(f"{base}{state}", {OWNER: 5 * 2**32 + 1})
        client.set(f"{base}pc", 1)
    elif state == "delayed":
        client.zadd(f"{base}{state}", {OWNER: (OWNER_BORN + OWNER_DELAY) * 4096})
    else:
        client.zadd(f"{base}{state}", {OWNER: OWNER_BORN})
    if state in ("active", "completed", "failed"):
        fields |= {"processedOn": OWNER_BORN, "ats": 1}
    if state == "active":
        client.set(f"{base}{OWNER}:lock", "w:1", px=600_000)
    if state in ("completed", "failed"):
        fields |= {"atm": 1, "finishedOn": OWNER_BORN, ("returnvalue" if state == "completed" else "failedReason"): "1"}
    if state == "waiting-children":
        client.sadd(f"{base}{OWNER}:dependencies", "elsewhere:q:child")
    client.hset(f"{base}{OWNER}", mapping=fields)


def window(client: redis_py.Redis, base: str) -> str:
    """What became of the window: ``closed``, ``open`` without an end, ``new``, or the ``old`` one of the owner."""
    left = int(client.pttl(f"{base}de:{ID}"))
    if left < 0:
        return "open" if left == -1 else "closed"
    return "new" if left > OWNERS_TTL_MS else "old"
