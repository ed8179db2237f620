"""Conformance items 22-26: a worker dies or loses its lock, and the other side picks up what it left.

The claim: no job is lost, a recovered job starts once more, and a job that stalls too often fails without running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.sides import RefusedError
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair

pytestmark = pytest.mark.asyncio

_LOCK = 400
_INTERVAL = 100


async def test_a_job_of_a_killed_worker_is_recovered_by_the_other_side(pair: Pair) -> None:
    # One after the other: the survivor must not take the jobs before the victim has them.
    doomed = await pair.a.doomed_worker("block_forever", lock_duration=_LOCK, stalled_interval=60_000, concurrency=2)
    ids = [await pair.a.add("n", {"value": 1}, attempts=2), await pair.b.add("n", {"value": 2}, priority=5)]
    for job_id in ids:
        await doomed.started(job_id)
    doomed.kill()
    pair.keys.redis.delete(pair.keys("stalled-check"))
    survivor = await pair.b.worker("value", stalled_interval=_INTERVAL)
    await survivor.said("completed", count=2)
    assert sorted(item.job_id or "" for item in survivor.outcomes("stalled")) == sorted(ids)
    for job_id in ids:
        fields = pair.keys.hash(job_id)
        assert (fields["stc"], fields["ats"], fields["atm"]) == ("1", "2", "1")
        assert "failedReason" not in fields
        assert pair.keys.events(job_id)[2:6] == [
            ("active", {"prev": "waiting"}),
            ("waiting", {"prev": "active"}),
            ("stalled", {}),
            ("active", {"prev": "waiting"}),
        ]
        view = await pair.a.view(job_id)
        assert view == await pair.b.view(job_id)
        assert view is not None
        assert view.stalled_counter == 1


async def test_a_job_that_stalls_beyond_the_limit_fails_unrun(pair: Pair) -> None:
    doomed = await pair.a.doomed_worker("block_forever", lock_duration=_LOCK, stalled_interval=60_000)
    job_id = await pair.b.add("n", {}, attempts=5)
    await doomed.started(job_id)
    doomed.kill()
    pair.keys.redis.delete(pair.keys("stalled-check"))
    survivor = await pair.b.worker("value", stalled_interval=_INTERVAL, max_stalled_count=0)
    (failed,) = await survivor.said("failed", job_id=job_id)
    assert failed.value == "job stalled more than allowable limit"
    assert survivor.runs(job_id) == []
    fields = pair.keys.hash(job_id)
    assert fields["failedReason"] == "job stalled more than allowable limit"
    assert "defa" not in fields
    assert (fields["stc"], fields["ats"], fields["atm"]) == ("1", "2", "1")
    assert pair.keys.names(job_id) == ["added", "waiting", "active", "waiting", "stalled", "active", "failed"]
    assert pair.keys.list("failed") == [job_id]


async def test_a_failure_deferred_by_the_other_side_is_carried_out_unrun(pair: Pair) -> None:
    job_id = await pair.a.add("n", {}, attempts=3, backoff=10)
    pair.keys.redis.hset(pair.keys(job_id), "defa", "child bull:other:7 failed")
    worker = await pair.b.worker("value")
    (failed,) = await worker.said("failed", job_id=job_id)
    assert failed.value == "child bull:other:7 failed"
    assert worker.runs() == []
    fields = pair.keys.hash(job_id)
    assert "defa" not in fields
    assert (fields["failedReason"], fields["ats"], fields["atm"]) == ("child bull:other:7 failed", "1", "1")
    assert "retries-exhausted" not in pair.keys.names(job_id)


async def test_a_long_job_keeps_its_lock_against_the_stalled_passes_of_the_other_side(pair: Pair) -> None:
    holder = await pair.a.worker("gate", lock_duration=_LOCK, stalled_interval=60_000)
    job_id = await pair.a.add("n", {})
    await holder.started(job_id)
    pair.keys.redis.delete(pair.keys("stalled-check"))
    other = await pair.b.worker("value", stalled_interval=_INTERVAL)
    # Every pass leaves the time of its start here. This many take longer than several lock durations.
    passes: set[str] = set()

    def enough() -> bool:
        passes.add(pair.keys.text("stalled-check"))
        return len(passes - {""}) >= 3 * _LOCK // _INTERVAL

    await aeventually(enough, 30, "a dozen stalled passes")
    assert pair.keys.redis.get(pair.keys(f"{job_id}:lock")) is not None
    await holder.open(job_id, "survived")
    await holder.said("completed", job_id=job_id)
    assert other.runs() == []
    assert "stc" not in pair.keys.hash(job_id)
    assert pair.keys.names(job_id) == ["added", "waiting", "active", "completed"]


async def test_a_worker_closed_by_force_leaves_its_job_to_the_stalled_pass(pair: Pair) -> None:
    worker = await pair.a.worker("gate", lock_duration=_LOCK)
    job_id = await pair.b.add("n", {"value": "rescued"})
    await worker.started(job_id)
    await worker.close(force=True)
    if pair.a.hands_back_when_forced:
        # What it had to stop is next to run, without a spent attempt.
        assert pair.keys.list("wait") == [job_id]
        assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 0
    else:
        assert pair.keys.list("active") == [job_id]
        assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 1
    pair.keys.redis.delete(pair.keys("stalled-check"))
    survivor = await pair.b.worker("value", stalled_interval=_INTERVAL)
    (completed,) = await survivor.said("completed", job_id=job_id)
    assert completed.value == "rescued"


@pytest.mark.parametrize("error", [None, "it failed"], ids=["completed", "failed"])
async def test_a_finish_under_a_foreign_token_is_refused_and_changes_nothing(pair: Pair, error: str | None) -> None:
    job_id = await pair.a.add("n", {}, attempts=1)
    assert await pair.b.fetch_by_hand("token-of-b") == job_id
    pair.keys.redis.set(pair.keys(f"{job_id}:lock"), "stolen", px=30_000)
    before = (pair.keys.hash(job_id), pair.keys.events())
    with pytest.raises(RefusedError) as refused:
        await pair.b.finish_by_hand(job_id, "token-of-b", error=error)
    assert refused.value.code == -6
    assert (pair.keys.hash(job_id), pair.keys.events()) == before
    assert pair.keys.list("active") == [job_id]
    assert pair.keys.redis.get(pair.keys(f"{job_id}:lock")) == "stolen"


@pytest.mark.parametrize("error", [None, "it failed"], ids=["completed", "failed"])
async def test_a_finish_without_lock_is_refused_and_changes_nothing(pair: Pair, error: str | None) -> None:
    job_id = await pair.a.add("n", {}, attempts=1)
    assert await pair.b.fetch_by_hand("token-of-b") == job_id
    pair.keys.redis.delete(pair.keys(f"{job_id}:lock"))
    before = (pair.keys.hash(job_id), pair.keys.events())
    with pytest.raises(RefusedError) as refused:
        await pair.b.finish_by_hand(job_id, "token-of-b", error=error)
    assert refused.value.code == -2
    assert (pair.keys.hash(job_id), pair.keys.events()) == before
    assert pair.keys.list("active") == [job_id]


@pytest.mark.parametrize("error", [None, "it failed"], ids=["completed", "failed"])
async def test_a_job_fetched_by_hand_is_finished_by_hand(pair: Pair, error: str | None) -> None:
    job_id = await pair.a.add("n", {}, attempts=1)
    assert await pair.b.fetch_by_hand("any text at all") == job_id
    assert pair.keys.redis.get(pair.keys(f"{job_id}:lock")) == "any text at all"
    await pair.b.finish_by_hand(job_id, "any text at all", error=error, value={"r": 1})
    view = await pair.a.view(job_id)
    assert view == await pair.b.view(job_id)
    assert view is not None
    assert (view.state, view.returnvalue, view.failed_reason) == (
        ("completed", {"r": 1}, None) if error is None else ("failed", None, error)
    )
    assert pair.keys.redis.exists(pair.keys(f"{job_id}:lock")) == 0
