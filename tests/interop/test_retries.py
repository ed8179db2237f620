"""Conformance items 15-17: attempts, backoff and stack traces when the attempts of one job fall to different sides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.node_side import NodeSide

pytestmark = pytest.mark.asyncio

# So long that no retry comes due by itself: the next attempt begins when the test promotes the job.
_HOUR = 3_600_000

_BACKOFFS: dict[str, tuple[Any, list[tuple[int, int]]]] = {
    "number": (_HOUR, [(_HOUR, _HOUR)] * 3),
    "fixed": ({"type": "fixed", "delay": _HOUR}, [(_HOUR, _HOUR)] * 3),
    "fixed with jitter": ({"type": "fixed", "delay": _HOUR, "jitter": 0.5}, [(_HOUR // 2, _HOUR)] * 3),
    "exponential": (
        {"type": "exponential", "delay": _HOUR},
        [(_HOUR, _HOUR), (2 * _HOUR, 2 * _HOUR), (4 * _HOUR, 4 * _HOUR)],
    ),
    "exponential with jitter": (
        {"type": "exponential", "delay": _HOUR, "jitter": 0.25},
        [(_HOUR * 3 // 4, _HOUR), (_HOUR * 3 // 2, 2 * _HOUR), (3 * _HOUR, 4 * _HOUR)],
    ),
    "custom": ({"type": "mine"}, [(_HOUR + 1, _HOUR + 1), (_HOUR + 2, _HOUR + 2), (_HOUR + 3, _HOUR + 3)]),
}
_CUSTOM_DELAYS = [_HOUR + 1, _HOUR + 2, _HOUR + 3]


@pytest.mark.parametrize("backoff", _BACKOFFS.keys())
async def test_attempts_alternate_between_the_sides_and_count_on(pair: Pair, node: NodeSide, backoff: str) -> None:
    options, expected = _BACKOFFS[backoff]
    job_id = await pair.a.add("n", {"times": 3, "value": "at last"}, attempts=4, backoff=options)
    for attempt, (lowest, highest) in enumerate(expected, 1):
        side = pair.b if attempt % 2 else pair.a
        worker = await side.worker("fail_times", backoff_delays=_CUSTOM_DELAYS)
        await worker.said("failed", job_id=job_id)
        await worker.close()
        fields = pair.keys.hash(job_id)
        assert (fields["atm"], fields["ats"], fields["stacktrace"]) == (str(attempt), str(attempt), attempt)
        assert fields["failedReason"] == f"failure {attempt}"
        assert lowest <= int(fields["delay"]) <= highest
        assert "finishedOn" not in fields
        assert pair.keys.list("delayed") == [job_id]
        event, details = pair.keys.events(job_id)[-1]
        due = pair.keys.scores("delayed")[job_id] // 4096
        assert (event, details) == ("delayed", {"delay": str(due)})
        assert await pair.a.view(job_id) == await pair.b.view(job_id)
        await node.peer.job(node.handle, job_id, "promote")
    last = await pair.a.worker("fail_times")
    assert (await last.said("completed", job_id=job_id))[0].value == "at last"
    fields = pair.keys.hash(job_id)
    assert (fields["atm"], fields["ats"], fields["stacktrace"]) == ("4", "4", 3)
    # The reason of the last failure stays on a job that succeeds later.
    assert fields["failedReason"] == "failure 3"
    assert pair.keys.names(job_id) == [
        "added",
        "waiting",
        *["active", "delayed", "waiting"] * 3,
        "active",
        "completed",
    ]


async def test_retries_without_backoff_go_back_to_waiting_at_once(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"times": 2, "value": 1}, attempts=3)
    worker = await pair.b.worker("fail_times")
    await worker.said("completed", job_id=job_id)
    assert [run.attempts_made for run in worker.runs(job_id)] == [0, 1, 2]
    assert [run.attempts_started for run in worker.runs(job_id)] == [1, 2, 3]
    active, again = ("active", {"prev": "waiting"}), ("waiting", {"prev": "active"})
    assert pair.keys.events(job_id)[1:-1] == [("waiting", {}), active, again, active, again, active]


async def test_a_prioritized_job_is_retried_behind_its_equals(pair: Pair) -> None:
    first = await pair.a.add("fail_times", {"times": 1}, attempts=2, priority=3)
    second = await pair.a.add("value", {}, priority=3)
    standard = await pair.a.add("value", {})
    worker = await pair.b.worker("by_name")
    await worker.said("completed", count=3)
    assert [run.job_id for run in worker.runs()] == [standard, first, second, first]
    assert pair.keys.hash(first)["priority"] == "3"


async def test_a_delayed_retry_comes_due_by_itself(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"times": 2}, attempts=3, backoff={"type": "exponential", "delay": 40})
    worker = await pair.b.worker("fail_times", drain_delay=60)
    await worker.said("completed", job_id=job_id)
    assert pair.keys.names(job_id)[2:] == [*["active", "delayed", "waiting"] * 2, "active", "completed"]
    assert pair.keys.hash(job_id)["delay"] == "0"


async def test_used_up_attempts_are_reported(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"message": "again and again"}, attempts=2)
    worker = await pair.b.worker("fail")
    await worker.said("failed", job_id=job_id, count=2)
    assert pair.keys.events(job_id)[-2:] == [
        ("failed", {"failedReason": "again and again", "prev": "active"}),
        ("retries-exhausted", {"attemptsMade": "2"}),
    ]
    # An attempt that is retried is no failure to the outside.
    assert pair.keys.names(job_id).count("failed") == 1
    view = await pair.a.view(job_id)
    assert view == await pair.b.view(job_id)
    assert view is not None
    assert (view.state, view.attempts_made, len(view.stacktrace)) == ("failed", 2, 2)
    assert all("again and again" in trace for trace in view.stacktrace)


async def test_a_single_failure_without_attempts_counts_as_used_up(pair: Pair) -> None:
    job_id = await pair.a.add("n", {})
    worker = await pair.b.worker("fail")
    await worker.said("failed", job_id=job_id)
    assert pair.keys.events(job_id)[-1] == ("retries-exhausted", {"attemptsMade": "1"})


async def test_an_unrecoverable_failure_is_final_and_not_reported_as_used_up(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"message": "hopeless"}, attempts=5, backoff=10)
    worker = await pair.b.worker("unrecoverable")
    await worker.said("failed", job_id=job_id)
    assert pair.keys.events(job_id)[-1] == ("failed", {"failedReason": "hopeless", "prev": "active"})
    fields = pair.keys.hash(job_id)
    assert (fields["atm"], fields["ats"], fields["failedReason"], fields["stacktrace"]) == ("1", "1", "hopeless", 1)
    assert pair.keys.list("failed") == [job_id]


@pytest.mark.parametrize(("limit", "kept"), [(None, [1, 2, 3, 4]), (2, [1, 2, 2, 2]), (0, [0, 0, 0, 0])])
async def test_stack_traces_are_kept_up_to_the_limit(
    pair: Pair, node: NodeSide, limit: int | None, kept: list[int]
) -> None:
    options = {} if limit is None else {"stack_trace_limit": limit}
    job_id = await pair.a.add("n", {"times": 9}, attempts=4, backoff=_HOUR, **options)
    traces: list[str] = []
    for attempt, number in enumerate(kept, 1):
        worker = await (pair.b if attempt % 2 else pair.a).worker("fail_times")
        await worker.said("failed", job_id=job_id)
        await worker.close()
        stored = json.loads(pair.keys.redis.hget(pair.keys(job_id), "stacktrace") or "null")
        assert len(stored) == number
        # The newest comes last, and the limit drops the oldest.
        assert all(f"failure {attempt}" in trace for trace in stored[-1:])
        traces = (traces + stored[-1:])[-number:] if number else []
        assert stored == traces
        if attempt < 4:
            await node.peer.job(node.handle, job_id, "promote")
    assert pair.keys.list("failed") == [job_id]


async def test_a_job_that_used_up_its_attempts_gets_one_more_after_a_retry_by_hand(pair: Pair, node: NodeSide) -> None:
    job_id = await pair.a.add("n", {"times": 3, "value": "saved"}, attempts=2)
    worker = await pair.b.worker("fail_times")
    await worker.said("failed", job_id=job_id, count=2)
    await node.peer.job(node.handle, job_id, "retry")
    await worker.said("failed", job_id=job_id, count=3)
    await node.peer.job(node.handle, job_id, "retry")
    await worker.said("completed", job_id=job_id)
    assert pair.keys.hash(job_id)["atm"] == "4"
    assert ("waiting", {"prev": "failed"}) in pair.keys.events(job_id)
