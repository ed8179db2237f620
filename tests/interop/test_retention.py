"""Conformance item 18: which finished jobs stay, whoever set the policy and whoever applies it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys

pytestmark = pytest.mark.asyncio

_OUTCOMES = {"completed": ("undefined", "remove_on_complete"), "failed": ("fail", "remove_on_fail")}


def _old_jobs(keys: QueueKeys, state: str, count: int = 6) -> list[str]:
    """Finished jobs o0, o1, ... of a minute ago, the oldest first, as any client would have left them."""
    seconds, _ = keys.redis.time()
    ids = [f"o{number}" for number in range(count)]
    for number, job_id in enumerate(ids):
        finished = seconds * 1000 - 60_000 + number
        fields: dict[str, Any] = {
            **{"name": "n", "data": "{}", "opts": '{"attempts":0}', "delay": 0, "priority": 0, "ats": 1, "atm": 1},
            **{"timestamp": finished, "processedOn": finished, "finishedOn": finished},
            **({"returnvalue": "null"} if state == "completed" else {"failedReason": "x", "stacktrace": "[]"}),
        }
        keys.redis.hset(keys(job_id), mapping={name: str(value) for name, value in fields.items()})
        keys.redis.rpush(keys(f"{job_id}:logs"), "a line")
        keys.redis.zadd(keys(state), {job_id: finished})
    return ids


@pytest.mark.parametrize("state", _OUTCOMES)
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        pytest.param(True, "", id="true"),
        pytest.param(False, "o0 o1 o2 o3 o4 o5 new", id="false"),
        pytest.param(0, "", id="zero"),
        pytest.param(2, "o5 new", id="two"),
        pytest.param({"count": 3}, "o4 o5 new", id="count"),
        pytest.param({"age": 10}, "new", id="age"),
        pytest.param({"age": 3600}, "o0 o1 o2 o3 o4 o5 new", id="age that spares all"),
        pytest.param({"age": 10, "limit": 2}, "o0 o1 o2 o3 new", id="age with limit"),
        pytest.param({"age": 10, "limit": 2, "count": 3}, "o2 o3 new", id="age with limit and count"),
        pytest.param({"count": 1, "age": 3600, "limit": 1}, "new", id="count goes beyond the limit"),
    ],
)
async def test_the_policy_of_a_job_decides_what_stays(pair: Pair, state: str, policy: Any, kept: str) -> None:
    processor, option = _OUTCOMES[state]
    old = _old_jobs(pair.keys, state)
    worker = await pair.b.worker(processor)
    job_id = await pair.a.add("n", {}, **{option: policy})
    await worker.said(state, job_id=job_id)
    # Removal of the finished job itself spares the old ones: there is nothing to count.
    expected = old if kept == "" else kept.replace("new", job_id).split()
    assert pair.keys.list(state) == expected
    gone = {*old, job_id} - set(expected)
    assert all(not pair.keys.redis.exists(pair.keys(lost), pair.keys(f"{lost}:logs")) for lost in gone)
    assert all(pair.keys.redis.exists(pair.keys(stays)) for stays in expected)
    # The outcome is told although the job is gone, and nothing else is told about removals.
    assert state in pair.keys.names(job_id)
    assert "removed" not in pair.keys.names()


@pytest.mark.parametrize("state", _OUTCOMES)
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        pytest.param({"count": 0}, "", id="count zero"),
        pytest.param({"count": 3}, "o4 o5 new", id="count"),
        pytest.param({"age": 10}, "new", id="age"),
        pytest.param({"age": 3600}, "o0 o1 o2 o3 o4 o5 new", id="age that spares all"),
        pytest.param({"age": 10, "limit": 2}, "o0 o1 o2 o3 new", id="age with limit"),
        pytest.param({"age": 10, "limit": 2, "count": 3}, "o2 o3 new", id="age with limit and count"),
    ],
)
async def test_the_policy_of_the_worker_applies_to_jobs_without_one(
    pair: Pair, state: str, policy: dict[str, int], kept: str
) -> None:
    processor, option = _OUTCOMES[state]
    old = _old_jobs(pair.keys, state)
    given: dict[str, Any] = {option: policy}
    worker = await pair.b.worker(processor, **given)
    job_id = await pair.a.add("n", {})
    await worker.said(state, job_id=job_id)
    assert pair.keys.list(state) == (old if kept == "" else kept.replace("new", job_id).split())
    assert state in pair.keys.names(job_id)


@pytest.mark.parametrize("state", _OUTCOMES)
async def test_the_policy_of_the_worker_applies_to_each_job_of_many(pair: Pair, state: str) -> None:
    processor, option = _OUTCOMES[state]
    policy: dict[str, Any] = {option: {"count": 2}}
    worker = await pair.b.worker(processor, **policy)
    ids = await pair.a.add_bulk([("n", {}, {})] * 5)
    await worker.said(state, count=5)
    assert pair.keys.list(state) == ids[-2:]


@pytest.mark.parametrize("state", _OUTCOMES)
async def test_the_policy_of_a_job_overrides_that_of_the_worker(pair: Pair, state: str) -> None:
    processor, option = _OUTCOMES[state]
    policy: dict[str, Any] = {option: {"count": 0}}
    worker = await pair.b.worker(processor, **policy)
    kept = await pair.a.add("n", {}, **{option: False})
    gone = await pair.a.add("n", {})
    few = await pair.a.add("n", {}, **{option: 1})
    await worker.said(state, count=3)
    assert pair.keys.list(state) == [few]
    assert pair.keys.hash(gone) == {}
    assert pair.keys.hash(kept) == {}
