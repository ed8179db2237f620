"""Conformance item 53: a finish the queue refuses leaves the same keys, whichever side had the job.

Each test takes the ground away under a running job and lets the processor return. The expected end states are those of
the reference, which the pair of Node and Node confirms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.keyspace import keyspace

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.sides import SideWorker

pytestmark = pytest.mark.asyncio


async def _running(pair: Pair, **options: object) -> tuple[SideWorker, str]:
    worker = await pair.b.worker("gate")
    job_id = await pair.a.add("n", {}, **options)
    await worker.started(job_id)
    return worker, job_id


async def _open_and_expect_refusal(worker: SideWorker, job_id: str) -> None:
    await worker.open(job_id, "too late")
    await worker.said("error", "lock_lost")
    # A refused job is neither completed nor failed to the listeners.
    assert worker.outcomes("completed", "failed", job_id=job_id) == []


async def test_pending_children_turn_a_success_into_a_failed_attempt(pair: Pair) -> None:
    worker, job_id = await _running(pair, attempts=1)
    child = pair.keys("a-child")
    pair.keys.redis.sadd(pair.keys(f"{job_id}:dependencies"), child)
    await worker.open(job_id, "too early")
    await worker.said("failed", job_id=job_id)
    fields = pair.keys.hash(job_id)
    assert fields["failedReason"] == f"Job {job_id} has pending dependencies. moveToFinished"
    assert (fields["atm"], fields["ats"], fields["stacktrace"]) == ("1", "1", 1)
    assert "returnvalue" not in fields
    assert pair.keys.list("failed") == [job_id]
    assert pair.keys.redis.smembers(pair.keys(f"{job_id}:dependencies")) == {child}
    assert pair.keys.names(job_id)[-2:] == ["failed", "retries-exhausted"]


async def test_pending_children_cost_an_attempt_when_attempts_are_left(pair: Pair) -> None:
    worker, job_id = await _running(pair, attempts=2, backoff=3_600_000)
    pair.keys.redis.sadd(pair.keys(f"{job_id}:dependencies"), pair.keys("a-child"))
    await worker.open(job_id, "too early")
    await worker.said("failed", job_id=job_id)
    fields = pair.keys.hash(job_id)
    assert fields["failedReason"] == f"Job {job_id} has pending dependencies. moveToFinished"
    assert (fields["atm"], fields["ats"]) == ("1", "1")
    assert pair.keys.list("delayed") == [job_id]
    assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 0


async def test_failed_children_fail_the_job_for_good(pair: Pair) -> None:
    worker, job_id = await _running(pair, attempts=5, backoff=10)
    pair.keys.redis.zadd(pair.keys(f"{job_id}:unsuccessful"), {pair.keys("a-child"): 1})
    await worker.open(job_id, "too late")
    await worker.said("failed", job_id=job_id)
    fields = pair.keys.hash(job_id)
    reason = f"Cannot complete job {job_id} because it has at least one failed child. moveToFinished"
    assert (fields["failedReason"], fields["atm"], fields["ats"]) == (reason, "1", "1")
    assert pair.keys.list("failed") == [job_id]
    assert pair.keys.events(job_id)[-1] == ("failed", {"failedReason": reason, "prev": "active"})


async def test_a_stolen_lock_leaves_everything_to_the_thief(pair: Pair) -> None:
    worker, job_id = await _running(pair)
    pair.keys.redis.set(pair.keys(f"{job_id}:lock"), "stolen", px=30_000)
    before = keyspace(pair.keys.redis, pair.keys.prefix)
    await _open_and_expect_refusal(worker, job_id)
    after = keyspace(pair.keys.redis, pair.keys.prefix)
    for suffix in (job_id, f"{job_id}:lock", "active", "events"):
        assert after[pair.keys(suffix)] == before[pair.keys(suffix)]


async def test_a_missing_lock_leaves_everything_to_the_stalled_pass(pair: Pair) -> None:
    worker, job_id = await _running(pair)
    pair.keys.redis.delete(pair.keys(f"{job_id}:lock"))
    before = keyspace(pair.keys.redis, pair.keys.prefix)
    await _open_and_expect_refusal(worker, job_id)
    after = keyspace(pair.keys.redis, pair.keys.prefix)
    for suffix in (job_id, "active", "events"):
        assert after[pair.keys(suffix)] == before[pair.keys(suffix)]
    assert pair.keys(f"{job_id}:lock") not in after


@pytest.mark.leaves_keys_broken("the job's hash is deleted under the worker")
async def test_a_missing_hash_is_not_created_again(pair: Pair) -> None:
    worker, job_id = await _running(pair)
    pair.keys.redis.delete(pair.keys(job_id))
    await _open_and_expect_refusal(worker, job_id)
    assert pair.keys.hash(job_id) == {}
    assert pair.keys.list("active") == [job_id]
    assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 1
    assert pair.keys.names(job_id) == ["added", "waiting", "active"]


@pytest.mark.leaves_keys_broken("the job is taken out of active under the worker")
async def test_a_job_that_is_active_no_more_loses_its_lock_and_nothing_else(pair: Pair) -> None:
    worker, job_id = await _running(pair)
    pair.keys.redis.lrem(pair.keys("active"), 0, job_id)
    before = pair.keys.hash(job_id)
    await _open_and_expect_refusal(worker, job_id)
    assert {name: pair.keys.hash(job_id).get(name) for name in before} == before
    assert "finishedOn" not in pair.keys.hash(job_id)
    assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 0
    assert all(job_id not in pair.keys.list(state) for state in ("active", "completed", "failed"))
    assert pair.keys.names(job_id) == ["added", "waiting", "active"]


async def test_a_worker_goes_on_after_a_refused_finish(pair: Pair) -> None:
    worker, job_id = await _running(pair)
    pair.keys.redis.set(pair.keys(f"{job_id}:lock"), "stolen", px=30_000)
    await _open_and_expect_refusal(worker, job_id)
    following = await pair.a.add("n", {})
    await worker.started(following)
    await worker.open(following, "fine")
    await worker.said("completed", job_id=following)
