"""Every option of a job is stored by us as Node stores it: the hash, where the job waits, the events."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.sides import Side
    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

BORN = 1_700_000_000_000
OPTIONS: list[dict[str, Any]] = [
    {},
    {"delay": 5000},
    {"delay": 0},
    {"priority": 7},
    {"priority": 0},
    {"priority": 2_097_151, "delay": 5},
    {"lifo": True},
    {"lifo": False},
    {"attempts": 3},
    {"attempts": 0},
    {"backoff": 1000},
    {"backoff": 0},
    {"backoff": {"type": "exponential", "delay": 10, "jitter": 0.5}},
    {"backoff": {"type": "own"}},
    {"job_id": "own"},
    {"remove_on_complete": True, "remove_on_fail": False},
    {"remove_on_complete": 5, "remove_on_fail": 0},
    {"remove_on_complete": {"age": 60, "count": 5, "limit": 2}, "remove_on_fail": {"age": 3600}},
    {"keep_logs": 7},
    {"keep_logs": 0},
    {"size_limit": 1000},
    {"stack_trace_limit": 2},
    {"stack_trace_limit": 0},
    {"fail_parent_on_failure": True},
    {"continue_parent_on_failure": True, "fail_parent_on_failure": False},
    {"ignore_dependency_on_failure": True},
    {"remove_dependency_on_failure": True},
    {"telemetry": {"metadata": '{"traceparent":"00-ab-cd-01"}', "omit_context": True}},
    {"telemetry": {"metadata": "å"}},
    {"telemetry": {"omit_context": False}},
    {"deduplication": {"id": "K/å", "ttl": 5000, "extend": False, "keep_last_if_active": False}},
]


@pytest.mark.parametrize("bulk", [False, True], ids=["add", "add_bulk"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_an_option_is_stored_as_node_stores_it(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, options: dict[str, Any], bulk: bool
) -> None:
    pictures = []
    for make in (partial(NodeSide, peer), OurSide, OurBlockingSide):
        keys = QueueKeys(redis, prefix, uuid.uuid4().hex)
        side: Side = make(redisbox.unix_url, prefix, keys.name)
        await side.start()
        given = {"timestamp": BORN, **options}
        if bulk:
            answer: Any = await side.add_bulk([("n", {"a": [1, None]}, given)] * 2)
        else:
            answer = await side.add("n", {"a": [1, None]}, **given)
        pictures.append((answer, keys.picture()))
        await side.close()
    assert pictures[1] == pictures[0]
    assert pictures[2] == pictures[0]
