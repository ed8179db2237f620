"""Conformance items 27, 28, 37, 41 (-8), 47 and 48: each side controls the queue and the jobs of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.node_side import NodeSide
from tests.interop.sides import RefusedError
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.sides import Side
    from tests.support.node_peer import NodePeer

pytestmark = pytest.mark.asyncio

# Seconds; much longer than any deadline below, so that a worker that goes on was woken.
_LONG_SLEEP = 60
_HOUR = 3_600_000


async def _asleep(pair: Pair, count: int = 1) -> None:
    await aeventually(
        lambda: pair.keys.idle_workers() >= count, message=f"{count} workers of {pair.b} block on a marker"
    )


async def _ended(side: Side, count: int, *, fail: bool = False) -> list[str]:
    """Runs jobs by hand; gives their ids."""
    ids = []
    for _ in range(count):
        job_id = await side.fetch_by_hand("t:1")
        await side.finish_by_hand(job_id, "t:1", error="why" if fail else None, value="done")
        ids.append(job_id)
    return ids


# --- pausing ----------------------------------------------------------------------------------------------------------


async def test_a_pause_by_one_side_stops_the_worker_of_the_other(pair: Pair) -> None:
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP)
    await _asleep(pair)
    await pair.a.call("pause")
    assert await pair.a.call("is_paused") is await pair.b.call("is_paused") is True
    # By both, and one that is due meanwhile: where it goes then shows that the worker looks and starts nothing.
    ids = [await pair.a.add("n"), await pair.b.add("n", priority=3)]
    due = await pair.a.add("n", delay=50)
    await aeventually(lambda: due in pair.keys.list("wait"))
    assert worker.runs() == []
    await _asleep(pair)
    await pair.a.call("resume")
    await worker.said("completed", count=3)
    assert [run.job_id for run in worker.runs()] == [ids[0], due, ids[1]]
    assert await pair.a.call("is_paused") is await pair.b.call("is_paused") is False
    assert [name for name in pair.keys.names() if name in ("paused", "resumed")] == ["paused", "resumed"]


async def test_a_job_that_runs_is_finished_while_the_queue_is_paused(pair: Pair) -> None:
    worker = await pair.b.worker("gate")
    first = await pair.a.add("n")
    await worker.started(first)
    await pair.a.call("pause")
    second = await pair.a.add("n")
    await worker.open(first, "done")
    await worker.said("completed", job_id=first)
    assert worker.runs(second) == []
    await pair.b.call("resume")
    await worker.started(second)
    await worker.open(second)
    await worker.said("completed", job_id=second)


async def test_a_list_that_an_old_client_left_is_brought_back(pair: Pair) -> None:
    keys = pair.keys
    old = [await pair.b.add("n", n) for n in range(3)]
    # What a client of the fifth release does when it pauses.
    keys.redis.rename(keys("wait"), keys("paused"))
    keys.redis.delete(keys("marker"))
    keys.redis.hset(keys("meta"), "paused", 1)
    new = [await pair.b.add("n", n) for n in range(2)]
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP)
    await _asleep(pair)
    await pair.a.call("resume")
    await worker.said("completed", count=5)
    assert [run.job_id for run in worker.runs()] == [*old, *new]
    assert keys.list("paused") == []
    assert keys.names().count("resumed") == 1


# --- one job of the other side ----------------------------------------------------------------------------------------


async def test_a_failed_job_of_one_side_is_retried_by_the_other(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"times": 2}, attempts=2)
    worker = await pair.a.worker("fail_times", drain_delay=_LONG_SLEEP)
    await worker.said("failed", job_id=job_id, count=2)
    await _asleep(pair)
    await pair.b.on_job(job_id, "retry")
    await worker.said("completed", job_id=job_id)
    assert [run.attempts_made for run in worker.runs()] == [0, 1, 2]
    view = await pair.b.view(job_id)
    assert (view and view.state, view and view.attempts_made, view and view.attempts_started) == ("completed", 3, 3)


async def test_a_retry_may_begin_from_nothing(pair: Pair) -> None:
    job_id = await pair.a.add("n", priority=2)
    await _ended(pair.a, 1, fail=True)
    await pair.b.on_job(job_id, "retry", "failed", reset_attempts_made=True, reset_attempts_started=True)
    view = await pair.a.view(job_id)
    assert view is not None
    assert (view.state, view.attempts_made, view.attempts_started) == ("prioritized", 0, 0)
    assert (view.failed_reason, view.finished_on, view.processed_on) == (None, None, None)


async def test_a_completed_job_runs_again(pair: Pair) -> None:
    job_id = await pair.a.add("n")
    await _ended(pair.a, 1)
    await pair.b.on_job(job_id, "retry", "completed")
    assert await pair.a.on_job(job_id, "get_state") == "waiting"
    assert await _ended(pair.a, 1) == [job_id]


async def test_a_delayed_job_of_one_side_is_promoted_by_the_other(pair: Pair) -> None:
    worker = await pair.a.worker("undefined", drain_delay=_LONG_SLEEP)
    job_id = await pair.a.add("n", delay=_HOUR)
    await _asleep(pair)
    await pair.b.on_job(job_id, "promote")
    await worker.said("completed", job_id=job_id)


async def test_the_delay_of_a_job_is_shortened_and_a_sleeping_worker_hears_of_it(pair: Pair) -> None:
    worker = await pair.a.worker("undefined", drain_delay=_LONG_SLEEP)
    job_id = await pair.a.add("n", delay=_HOUR)
    await _asleep(pair)
    await pair.b.on_job(job_id, "change_delay", 50)
    await worker.said("completed", job_id=job_id)


async def test_priorities_are_changed_by_both(pair: Pair) -> None:
    first, second, third, fourth = [await pair.a.add("n", priority=5) for _ in range(4)]
    await pair.b.on_job(second, "change_priority", priority=1)
    await pair.a.on_job(fourth, "change_priority", priority=0)
    await pair.b.on_job(third, "change_priority", priority=5, lifo=True)
    await pair.a.on_job(first, "change_priority", priority=9)
    assert [await pair.b.fetch_by_hand(f"t:{n}") for n in range(4)] == [fourth, second, third, first]
    for n, job_id in enumerate((fourth, second, third, first)):
        await pair.b.finish_by_hand(job_id, f"t:{n}")


async def test_an_idle_worker_of_node_wakes_for_the_front_of_a_priority(
    ours: Side, node: NodeSide, keys: QueueKeys
) -> None:
    """Where Node itself wakes nobody."""
    worker = await node.worker("undefined", drain_delay=_LONG_SLEEP)
    await aeventually(lambda: keys.idle_workers() == 1)
    await ours.call("pause")
    job_id = await ours.add("n", priority=5)
    # No longer paused, and nobody is told.
    keys.redis.hdel(keys("meta"), "paused")
    await ours.on_job(job_id, "change_priority", priority=4, lifo=True)
    await worker.said("completed", job_id=job_id)


async def test_logs_are_cleared_by_the_other_side(pair: Pair) -> None:
    job_id = await pair.a.add("n")
    for row in ("one", "two", "three"):
        await pair.a.add_log(job_id, row)
    await pair.b.on_job(job_id, "clear_logs", 2)
    assert await pair.a.logs(job_id) == (["two", "three"], 2)
    await pair.b.on_job(job_id, "clear_logs")
    assert await pair.a.logs(job_id) == ([], 0)


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [("retry", ("failed",), -3), ("retry", ("completed",), -3), ("promote", (), -3), ("change_delay", (5,), -3)],
)
async def test_what_is_refused_has_the_same_code(
    side: Side, operation: str, arguments: tuple[Any, ...], code: int
) -> None:
    job_id = await side.add("n")
    with pytest.raises(RefusedError) as caught:
        await side.on_job(job_id, operation, *arguments)
    assert caught.value.code == code


# --- removing ---------------------------------------------------------------------------------------------------------


async def test_a_job_of_the_other_side_is_removed(pair: Pair) -> None:
    job_id = await pair.a.add("n")
    assert await pair.b.call("remove", job_id) in (True, 1)
    assert await pair.a.view(job_id) is None
    assert pair.keys.events(job_id)[-1] == ("removed", {"prev": "wait"})


async def test_a_job_that_the_other_side_runs_is_not_removed(pair: Pair) -> None:
    worker = await pair.a.worker("gate")
    job_id = await pair.a.add("n")
    await worker.started(job_id)
    assert await pair.b.call("remove", job_id) in (False, 0)
    with pytest.raises(RefusedError):
        await pair.b.on_job(job_id, "remove")
    await worker.open(job_id, "done")
    await worker.said("completed", job_id=job_id)


async def test_a_parent_goes_with_its_children_unless_one_of_them_runs(pair: Pair, prefix: str) -> None:
    parent = {"id": await pair.a.add("parent"), "queue": f"{prefix}:mail"}
    children = [await pair.a.add("child", {}, parent=parent, priority=n) for n in range(3)]
    held = await pair.a.fetch_by_hand("t:1")
    assert held == parent["id"]
    running = await pair.a.fetch_by_hand("t:2")
    assert running == children[0]
    before = pair.keys.picture()
    assert await pair.b.call("remove", parent["id"]) in (False, 0)
    assert pair.keys.picture() == before
    await pair.a.finish_by_hand(running, "t:2", value="done")
    pair.keys.redis.delete(pair.keys(f"{held}:lock"))
    assert await pair.b.call("remove", parent["id"]) in (True, 1)
    assert pair.keys.picture().keys() <= {"events", "marker", "pc"}


@pytest.mark.leaves_keys_broken("a child without a parent")
async def test_children_stay_where_they_are_told_to(pair: Pair, prefix: str) -> None:
    parent = {"id": await pair.a.add("parent"), "queue": f"{prefix}:mail"}
    child = await pair.a.add("child", {}, parent=parent)
    await pair.b.call("remove", parent["id"], remove_children=False)
    assert await pair.a.view(parent["id"]) is None
    assert await _ended(pair.a, 1) == [child]


async def test_a_child_is_let_go_by_the_other_side(pair: Pair, prefix: str) -> None:
    parent = {"id": await pair.a.add("parent"), "queue": f"{prefix}:mail"}
    child = await pair.a.add("child", {}, parent=parent)
    assert await pair.b.on_job(child, "remove_child_dependency") is True
    assert "parentKey" not in pair.keys.hash(child)
    assert not pair.keys.redis.exists(pair.keys(f"{parent['id']}:dependencies"))


async def test_pending_children_are_removed_by_the_other_side(pair: Pair, prefix: str) -> None:
    parent = {"id": await pair.a.add("parent", priority=9), "queue": f"{prefix}:mail"}
    done, pending = [await pair.a.add("child", {}, parent=parent) for _ in range(2)]
    assert await _ended(pair.a, 1) == [done]
    await pair.b.on_job(parent["id"], "remove_unprocessed_children")
    assert await pair.a.view(pending) is None
    assert await pair.a.view(done) is not None
    assert await pair.a.on_job(parent["id"], "get_dependencies_count") == {
        **{"processed": 1, "unprocessed": 0, "ignored": 0, "failed": 0}
    }


async def test_the_next_job_of_a_scheduler_is_not_removed(side: Side, peer: NodePeer, node: NodeSide) -> None:
    job = await peer.call(node.handle, "upsertJobScheduler", "often", {"every": _HOUR})
    with pytest.raises(RefusedError) as caught:
        await side.on_job(job["id"], "remove")
    assert caught.value.code == -8
    assert await side.on_job(job["id"], "get_state") == "waiting"
    await peer.call(node.handle, "removeJobScheduler", "often")
    await side.on_job(job["id"], "remove")
    assert await side.view(job["id"]) is None


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "completed"])
async def test_finished_jobs_of_one_side_are_queued_again_by_the_other(pair: Pair, state: str) -> None:
    await pair.a.add_bulk([("n", n, {"priority": n % 2}) for n in range(6)])
    ended = await _ended(pair.a, 6, fail=state == "failed")
    await pair.b.call("retry_jobs", state=state, count=2)
    assert (await pair.a.counts())["waiting"] == 6
    assert sorted(await _ended(pair.a, 6)) == sorted(ended)


async def test_delayed_jobs_of_one_side_are_queued_by_the_other(pair: Pair) -> None:
    ids = [await pair.a.add("n", delay=_HOUR, priority=n % 2) for n in range(5)]
    await pair.b.call("promote_jobs", count=2)
    assert await _ended(pair.a, 5) == ids


async def test_one_side_cleans_the_jobs_of_the_other(pair: Pair) -> None:
    await pair.a.add_bulk([("n", n, {}) for n in range(6)])
    done, failed = await _ended(pair.a, 2), await _ended(pair.a, 2, fail=True)
    old, new = (await pair.a.add("n", timestamp=1000)), (await pair.a.add("n"))
    assert await pair.b.call("clean", _HOUR, 0, "completed") == []
    assert await pair.b.call("clean", 0, 0, "completed") == done
    assert await pair.b.call("clean", 0, 1, "failed") == failed[:1]
    assert await pair.b.call("clean", _HOUR, 0, "wait") == [old]
    counts = await pair.a.counts()
    assert {state: count for state, count in counts.items() if count} == {"waiting": 3, "failed": 1}
    assert new in await pair.a.ids("waiting")


async def test_one_side_drains_the_jobs_of_the_other(pair: Pair) -> None:
    await pair.a.add_bulk([("n", n, {"priority": n % 2}) for n in range(6)])
    delayed = await pair.a.add("n", delay=_HOUR)
    done = await _ended(pair.a, 1)
    await pair.b.call("drain")
    counts = await pair.a.counts()
    assert {state: count for state, count in counts.items() if count} == {"delayed": 1, "completed": 1}
    await pair.b.call("drain", True)
    assert await pair.a.view(delayed) is None
    assert await pair.a.ids("completed") == done


async def test_one_side_obliterates_the_queue_of_the_other(pair: Pair) -> None:
    await pair.a.add_bulk([("n", n, {"priority": n % 2, "attempts": 2}) for n in range(6)])
    await pair.a.add("n", delay=_HOUR)
    await _ended(pair.a, 1)
    await _ended(pair.a, 1, fail=True)
    held = await pair.a.fetch_by_hand("t:1")
    with pytest.raises(RefusedError):
        await pair.b.call("obliterate")
    assert await pair.a.call("is_paused") is True
    assert await pair.a.on_job(held, "get_state") == "active"
    await pair.b.call("obliterate", force=True, count=2)
    assert pair.keys.redis.keys(pair.keys("*")) == []
    # Both go on with it as with a new one.
    ids = [await pair.a.add("n"), await pair.b.add("n")]
    worker = await pair.b.worker("undefined")
    await worker.said("completed", count=2)
    assert sorted(run.job_id for run in worker.runs()) == sorted(ids)


async def test_a_worker_goes_on_after_the_other_side_obliterated_its_queue(pair: Pair) -> None:
    worker = await pair.b.worker("undefined", drain_delay=_LONG_SLEEP)
    await pair.b.add("n")
    await worker.said("completed")
    await _asleep(pair)
    await pair.a.call("obliterate")
    job_id = await pair.a.add("n")
    await worker.said("completed", job_id=job_id, count=1)
    await aeventually(lambda: len(worker.runs()) == 2)
