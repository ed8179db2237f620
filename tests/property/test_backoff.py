"""How long a failed job waits, for any backoff that may be set: alike in Node and in us, and within its bounds."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.bench import Bench
from tests.property.clients import Client, NodeClient, OurClient, closed
from tests.property.model.facts import Add

_backoffs = st.fixed_dictionaries(
    {"type": st.sampled_from(["fixed", "exponential"]), "delay": st.integers(0, 10**7)},
    optional={"jitter": st.sampled_from([0, 0.25, 0.5, 1]) | st.floats(0, 1).map(lambda value: round(value, 3))},
)


def _bounds(backoff: dict[str, Any], attempt: int) -> tuple[int, int]:
    longest = backoff["delay"] * (2 ** (attempt - 1) if backoff["type"] == "exponential" else 1)
    return math.floor(longest * (1 - backoff.get("jitter", 0))), longest


def test_a_retry_waits_within_the_bounds_of_its_backoff(bench: Bench, profile: settings) -> None:
    """The bounds are the wire's: without jitter they are one number, and only that."""
    names = iter(range(10**6))

    async def retried(client: Client, name: str, backoff: dict[str, Any], attempt: int) -> dict[str, str]:
        options = {"backoff": backoff, "attempts": attempt + 1, "lifo": True}
        job_id = await client.call("add", {"job": Add("n", {}, options)})
        key = f"{bench.prefix}:{name}:{job_id}"
        bench.redis.hset(key, "atm", attempt - 1)
        assert await client.call("fetch", {"token": "t"}) == job_id
        end = {"reason": "no", "unrecoverable": False, "fetch_next": False}
        await client.call("fail", {"job_id": job_id, "token": "t", **end})
        stored: Any = bench.redis.hgetall(key)
        return dict(stored)

    async def both(backoff: dict[str, Any], attempt: int) -> list[dict[str, str]]:
        name = f"backoff-{next(names)}"
        clients: list[Client] = [
            OurClient(bench.redis, bench.url, bench.prefix, name),
            await NodeClient(bench.peer, name).open(),
        ]
        try:
            return [await retried(client, name, backoff, attempt) for client in clients]
        finally:
            await closed(clients)

    @settings(profile, max_examples=min(profile.max_examples, 100))
    @given(_backoffs, st.integers(1, 12))
    def check(backoff: dict[str, Any], attempt: int) -> None:
        shortest, longest = _bounds(backoff, attempt)
        for stored in bench.run(both(backoff, attempt)):
            assert shortest <= int(stored["delay"]) <= longest, (backoff, attempt, stored)
            assert int(stored["atm"]) == attempt

    check()
