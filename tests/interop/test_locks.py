"""Locks of jobs that run or were fetched by hand: who renews and extends them, and what follows when nobody does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.interop.sides import RefusedError
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_HOUR = 3_600_000


def _life(keys: QueueKeys, job_id: str) -> int:
    """How many milliseconds a lock still lives; below 0 for none."""
    return int(keys.redis.pttl(keys(f"{job_id}:lock")))  # type: ignore[arg-type]


async def test_the_holder_of_a_token_extends_the_lock_whoever_fetched_the_job(pair: Pair) -> None:
    job_id = await pair.a.add("n")
    assert await pair.a.fetch_by_hand("token") == job_id
    assert 0 < _life(pair.keys, job_id) <= 30_000
    pair.keys.redis.sadd(pair.keys("stalled"), job_id)
    await pair.b.on_job(job_id, "extend_lock", "token", _HOUR)
    assert 30_000 < _life(pair.keys, job_id) <= _HOUR
    # It gave a sign of life.
    assert pair.keys.redis.exists(pair.keys("stalled")) == 0
    await pair.a.finish_by_hand(job_id, "token")


async def test_a_lock_is_not_extended_under_another_token(pair: Pair) -> None:
    job_id = await pair.a.add("n")
    await pair.a.fetch_by_hand("token")
    # Node says it by its answer alone.
    with pytest.raises(RefusedError) if pair.b.implementation != "node" else contextlib.nullcontext():
        assert await pair.b.on_job(job_id, "extend_lock", "other", _HOUR) == 0
    assert 0 < _life(pair.keys, job_id) <= 30_000


async def test_many_locks_are_extended_at_once_and_those_that_are_gone_are_told(pair: Pair) -> None:
    ids = [await pair.a.add("n") for _ in range(3)]
    for n in range(3):
        await pair.a.fetch_by_hand(f"token-{n}")
    worker = await pair.b.worker("value")
    tokens = ["token-0", "another", "token-2"]
    lost = await worker.call("extend_job_locks", ids, tokens, _HOUR)
    assert [_life(pair.keys, job_id) > 30_000 for job_id in ids] == [True, False, True]
    assert lost == [ids[1]]


async def test_a_worker_renews_its_locks_as_often_as_it_is_told(side: Side, keys: QueueKeys) -> None:
    worker = await side.worker("gate", lock_duration=_HOUR, lock_renew_time=100)
    job_id = await side.add("n")
    await worker.started(job_id)
    # By default that would be in half an hour.
    keys.redis.pexpire(keys(f"{job_id}:lock"), 20_000)
    await aeventually(lambda: _life(keys, job_id) > 20_000, 15, "a renewed lock")
    renewed = await worker.said("locks_renewed")
    assert renewed[0].value == [job_id]
    await worker.open(job_id)
    await worker.said("completed", job_id=job_id)


async def test_a_worker_tells_of_locks_that_it_could_not_renew(side: Side, keys: QueueKeys) -> None:
    worker = await side.worker("gate", lock_duration=_HOUR, lock_renew_time=100)
    job_id = await side.add("n")
    await worker.started(job_id)
    keys.redis.set(keys(f"{job_id}:lock"), "stolen", px=_HOUR)
    (failed, *_) = await worker.said("lock_renewal_failed")
    assert failed.value == [job_id]
    assert keys.redis.get(keys(f"{job_id}:lock")) == "stolen"
    await worker.open(job_id)


async def test_a_job_whose_lock_is_not_renewed_goes_to_the_other_side(pair: Pair) -> None:
    holder = await pair.a.worker("gate", lock_duration=500, skip_lock_renewal=True, skip_stalled_check=True)
    job_id = await pair.b.add("n", {"value": 7})
    await holder.started(job_id)
    # Its process lives, and in half its time it would have renewed the lock.
    rescuer = await pair.b.worker("value", stalled_interval=100)
    (done,) = await rescuer.said("completed", job_id=job_id)
    assert done.value == 7
    fields = pair.keys.hash(job_id)
    assert (fields["stc"], fields["ats"], fields["atm"]) == ("1", "2", "1")
    await holder.open(job_id, "too late")
    assert pair.keys.hash(job_id)["returnvalue"] == "7"


async def test_the_look_for_stalled_jobs_can_be_left_to_the_other_side(pair: Pair) -> None:
    looks = pair.keys("stalled-check")
    idle = await pair.a.worker("value", stalled_interval=50, skip_stalled_check=True)
    first = await pair.a.add("n")
    await idle.said("completed", job_id=first)
    assert pair.keys.redis.exists(looks) == 0
    doomed = await pair.b.doomed_worker("block_forever", lock_duration=300, stalled_interval=60_000)
    await idle.close()
    job_id = await pair.a.add("n", {"value": 1})
    await doomed.started(job_id)
    doomed.kill()
    pair.keys.redis.delete(looks)
    await pair.b.look_for_stalled(stalled_interval=50)
    await aeventually(lambda: pair.keys.list("wait") == [job_id], 20, "the job is back")
    assert pair.keys.hash(job_id)["stc"] == "1"


async def test_all_jobs_of_a_worker_are_cancelled(side: Side, keys: QueueKeys) -> None:
    ids = [await side.add("n", attempts=2) for _ in range(3)]
    worker = await side.worker("until_cancelled", concurrency=3)
    await worker.started(count=3)
    await worker.call("cancel_all_jobs", "the shop closes")
    await worker.said("failed", count=3)
    await worker.started(count=6)
    await worker.call("cancel_all_jobs", "the shop closes")
    await worker.said("failed", count=6)
    assert sorted(keys.scores("failed")) == ids
    assert {keys.hash(job_id)["failedReason"] for job_id in ids} == {"the shop closes"}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_job_of_node_that_is_run_by_hand_ends_as_in_a_worker(
    ours: OurSide, node: Side, keys: QueueKeys, fails: bool
) -> None:
    def processor(job: object) -> dict[str, int]:
        if fails:
            raise ValueError("not this one")
        return {"done": 1}

    job_id = await node.add("n", {"a": 1})
    assert await ours.process_by_hand(processor, "token") == job_id
    view = await node.view(job_id)
    assert view == await ours.view(job_id)
    assert view is not None
    assert (view.state, view.returnvalue, view.failed_reason) == (
        ("failed", None, "not this one") if fails else ("completed", {"done": 1}, None)
    )
    ended = ["failed"] if fails else ["completed"]
    assert keys.names(job_id)[:4] == ["added", "waiting", "active", *ended]
    assert keys.redis.exists(keys(f"{job_id}:lock")) == 0
