"""Jobs that are fetched by hand and run by the worker's processor; locks and dead workers' jobs seen to by hand."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from toromq import (
    ConfigurationError,
    DelayedError,
    Queue,
    RateLimitError,
    ToroError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from toromq.errors import LockMismatchError, LockMissingError

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
_HOUR = 3_600_000
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)
_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])


class Place:
    """A queue of its own, its keys, and workers that were not started."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis, self.prefix = client, prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[str] = []
        self.told: list[tuple[Any, ...]] = []

    def worker(self, kind: str, run: Callable[[Any], Any], **options: Any) -> Any:
        """A worker whose processor is `run`; what that returns is awaited in a coroutine."""

        async def coroutine(job: Any) -> Any:
            self.ran.append(job.id)
            result = run(job)
            return await result if inspect.isawaitable(result) else result

        def function(job: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            self.ran.append(job.id)
            return run(job)

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        worker = module.Worker("q", coroutine if kind == "async def" else function, **self.options, **options)
        for event in ("active", "completed", "failed", "stalled", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    async def state(self, job_id: str) -> tuple[str, Any]:
        """The state of a job, and the job."""
        return await self.queue.get_job_state(job_id), await self.queue.get_job(job_id)


async def _call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a method of either face."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


# --- how it ends ------------------------------------------------------------------------------------------------------


@_all_kinds
async def test_a_loop_by_hand_runs_job_after_job(place: Place, kind: str) -> None:
    added = await place.queue.add_bulk([("n", n) for n in range(3)])
    worker = place.worker(kind, lambda job: job.data * 2, name="w")
    job = await _call(worker.get_next_job, "mine")
    while job is not None:
        job = await _call(worker.process_job, job, "mine")
    assert place.ran == [job.id for job in added]
    for n, one in enumerate(added):
        state, done = await place.state(one.id)
        assert (state, done.returnvalue, done.attempts_made, done.processed_by) == ("completed", 2 * n, 1, "w")
    assert [told[0] for told in place.told] == ["active", "completed"] * 3
    assert [(told[1].id, told[1].attempts_made, told[2]) for told in place.told if told[0] == "completed"] == [
        (one.id, 1, 2 * n) for n, one in enumerate(added)
    ]
    assert place.redis.exists(*(place.key(f"{one.id}:lock") for one in added)) == 0


@_all_kinds
async def test_the_next_job_may_be_left(place: Place, kind: str) -> None:
    await place.queue.add_bulk([("n", 1), ("n", 2)])
    worker = place.worker(kind, lambda job: None)
    job = await _call(worker.get_next_job, "mine")
    assert await _call(worker.process_job, job, fetch_next=False) is None
    assert (await place.queue.get_job_counts("waiting"))["waiting"] == 1


@_all_kinds
async def test_a_failure_is_tried_again_as_the_workers_strategy_says(place: Place, kind: str) -> None:
    asked: list[tuple[Any, ...]] = []

    def strategy(*arguments: Any) -> Any:
        asked.append(arguments[:2])
        return _HOUR if len(asked) == 1 else -1

    def run(job: Any) -> None:
        raise ValueError("why")

    added = await place.queue.add("n", attempts=5, backoff={"type": "mine"})
    worker = place.worker(kind, run, backoff_strategy=strategy)
    job = await _call(worker.get_next_job, "mine")
    assert await _call(worker.process_job, job) is None
    state, failed = await place.state(added.id)
    assert (state, failed.failed_reason, failed.delay) == ("delayed", "why", _HOUR)
    await failed.promote()
    job = await _call(worker.get_next_job, "mine")
    await _call(worker.process_job, job)
    state, failed = await place.state(added.id)
    assert (state, failed.attempts_made, asked) == ("failed", 2, [(1, "mine"), (2, "mine")])
    assert [(told[1].attempts_made, str(told[2])) for told in place.told if told[0] == "failed"] == [
        (1, "why"), (2, "why"),
    ]  # fmt: skip


@_all_kinds
@pytest.mark.parametrize(
    ("signal", "options", "state", "told"),
    [
        (DelayedError, {"delay": _HOUR}, "delayed", ["active"]),
        (DelayedError, {}, "waiting", ["active", "error"]),
        (WaitingError, {}, "waiting", ["active"]),
        (RateLimitError, {}, "waiting", ["active"]),
        (RateLimitError, {"retry_after": _HOUR}, "waiting", ["active"]),
        (WaitingChildrenError, {}, "waiting-children", ["active"]),
    ],
)
async def test_a_processor_may_put_its_job_elsewhere(
    place: Place, kind: str, signal: type[Exception], options: dict[str, Any], state: str, told: list[str]
) -> None:
    def run(job: Any) -> None:
        raise signal(**options)

    job, other = await place.queue.add_bulk([("n", 1), ("n", 2)])
    child = f"{place.prefix}:children:c"
    if state == "waiting-children":
        parent = f'{{"id":"{job.id}","queueKey":"{place.prefix}:q"}}'
        fields = {"name": "c", "data": "{}", "opts": "{}", "timestamp": 1, "delay": 0, "priority": 0}
        place.redis.hset(child, mapping={**fields, "parentKey": place.key(job.id), "parent": parent})
        place.redis.lpush(f"{place.prefix}:children:wait", "c")
        place.redis.zadd(f"{place.prefix}:children:marker", {"0": 0})
        place.redis.sadd(place.key(f"{job.id}:dependencies"), child)
    worker = place.worker(kind, run)
    fetched = await _call(worker.get_next_job, "mine")
    following = await _call(worker.process_job, fetched)
    # What was put back is the next to run.
    assert following.id == (job.id if state == "waiting" else other.id)
    found, moved = await place.state(job.id)
    assert (found, moved.attempts_made, moved.failed_reason) == ("active" if state == "waiting" else state, 0, None)
    assert [event[0] for event in place.told] == told
    assert (place.redis.pttl(place.key("limiter")) > 0) is ("retry_after" in options)
    await _call(following.move_to_completed, None, "mine", fetch_next=False)


@_all_kinds
@pytest.mark.parametrize("move", ["move_to_delayed", "move_to_wait"])
async def test_a_processor_may_have_moved_its_job(place: Place, kind: str, move: str) -> None:
    arguments = [time.time_ns() // 1_000_000 + _HOUR] if move == "move_to_delayed" else []

    async def steps(job: Any) -> None:
        await getattr(job, move)(*arguments)
        raise WaitingError

    def run(job: Any) -> Any:
        if kind == "async def":
            return steps(job)
        getattr(job, move)(*arguments)
        raise WaitingError

    job = await place.queue.add("n")
    worker = place.worker(kind, run)
    fetched = await _call(worker.get_next_job, "mine")
    assert await _call(worker.process_job, fetched, fetch_next=False) is None
    assert (await place.state(job.id))[0] == ("delayed" if move == "move_to_delayed" else "waiting")
    assert [told[0] for told in place.told] == ["active"]


@_all_kinds
async def test_what_was_decided_before_fails_the_job_without_a_run(place: Place, kind: str) -> None:
    deferred, often = await place.queue.add_bulk([("n", 1, {"attempts": 5}), ("n", 2, {"attempts": 5})])
    place.redis.hset(place.key(deferred.id), "defa", "child x failed")
    place.redis.hset(place.key(often.id), "ats", 2)
    worker = place.worker(kind, lambda job: None, max_started_attempts=2)
    job = await _call(worker.get_next_job, "mine")
    while job is not None:
        job = await _call(worker.process_job, job)
    for one, reason in ((deferred, "child x failed"), (often, "job started more than allowable limit")):
        state, failed = await place.state(one.id)
        assert (state, failed.failed_reason, failed.attempts_made) == ("failed", reason, 1)
    assert place.ran == []
    assert [(told[0], type(told[2])) for told in place.told] == [("failed", UnrecoverableError)] * 2


@_all_kinds
async def test_a_result_that_can_not_be_stored_fails_the_job(place: Place, kind: str) -> None:
    job = await place.queue.add("n", attempts=5)
    worker = place.worker(kind, lambda job: object())
    await _call(worker.process_job, await _call(worker.get_next_job, "mine"))
    state, failed = await place.state(job.id)
    assert (state, failed.attempts_made) == ("failed", 1)
    assert failed.failed_reason.startswith("returnvalue")


@_all_kinds
@pytest.mark.leaves_keys_broken("children that are no jobs")
@pytest.mark.parametrize(("kind_of_child", "tries"), [("dependencies", 2), ("unsuccessful", 1)])
async def test_a_parent_that_ends_too_early_failed(place: Place, kind: str, kind_of_child: str, tries: int) -> None:
    job = await place.queue.add("n", attempts=2)
    key = place.key(f"{job.id}:{kind_of_child}")
    if kind_of_child == "dependencies":
        place.redis.sadd(key, "x:y:z")
    else:
        place.redis.zadd(key, {"x:y:z": 1})
    worker = place.worker(kind, lambda job: "too early")
    fetched = await _call(worker.get_next_job, "mine")
    while fetched is not None:
        fetched = await _call(worker.process_job, fetched)
    state, failed = await place.state(job.id)
    assert (state, failed.attempts_made, failed.returnvalue) == ("failed", tries, None)
    if kind_of_child == "dependencies":
        assert failed.failed_reason == f"Job {job.id} has pending dependencies. moveToFinished"


@_all_kinds
@pytest.mark.parametrize(("lock", "error"), [("another's", LockMismatchError), (None, LockMissingError)])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_lock_that_is_gone_is_told_to_the_caller_and_nothing_is_written(
    place: Place, kind: str, lock: str | None, error: type[Exception], fails: bool
) -> None:
    before: list[Any] = []

    def run(job: Any) -> None:
        place.redis.delete(place.key(f"{job.id}:lock"))
        if lock is not None:
            place.redis.set(place.key(f"{job.id}:lock"), lock, px=60_000)
        before.append(keyspace(place.redis, place.prefix))
        if fails:
            raise ValueError

    await place.queue.add("n")
    worker = place.worker(kind, run)
    job = await _call(worker.get_next_job, "mine")
    with pytest.raises(error):
        await _call(worker.process_job, job)
    assert keyspace(place.redis, place.prefix) == before[0]


@_all_kinds
async def test_jobs_by_hand_go_to_the_processor_of_their_name(place: Place, kind: str) -> None:
    worker = place.worker(kind, lambda job: f"default {job.name}")

    @worker.processor("a")  # type: ignore[untyped-decorator]
    def named(job: Any) -> str:
        return f"a {job.name}"

    added = await place.queue.add_bulk([("a", None), ("b", None)])
    job = await _call(worker.get_next_job, "mine")
    while job is not None:
        job = await _call(worker.process_job, job)
    assert [(await place.state(one.id))[1].returnvalue for one in added] == ["a a", "default b"]


@_both_faces
async def test_jobs_by_hand_run_in_child_processes_that_end_with_the_worker(
    place: Place, face: Any, tmp_path: Path
) -> None:
    path = tmp_path / "processors.py"
    path.write_text("import os\n\ndef process(job):\n    return [os.getpid(), job.data]\n")
    added = await place.queue.add("n", "its data")
    worker = face.Worker("q", str(path), **place.options)
    await _call(worker.process_job, await _call(worker.get_next_job, "mine"))
    _, done = await place.state(added.id)
    child, data = done.returnvalue
    assert (data, child != os.getpid()) == ("its data", True)
    await _call(worker.close)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@_both_faces
async def test_mistakes_are_refused_before_anything_runs(place: Place, face: Any) -> None:
    await place.queue.add("n")
    fetcher, runner = face.Worker("q", **place.options), face.Worker("q", lambda job: None, **place.options)
    job = await _call(fetcher.get_next_job, "mine")
    with pytest.raises(ConfigurationError, match=r"^processor: None, so this worker runs no jobs"):
        await _call(fetcher.process_job, job)
    for token in ("", "0", 7):
        with pytest.raises(ConfigurationError, match=r"^token: got"):
            await _call(runner.process_job, job, token)
    with pytest.raises(ConfigurationError, match=r"^fetch_next: got 1"):
        await _call(runner.process_job, job, "mine", 1)
    # Whoever fetched it, another worker may run it.
    assert await _call(runner.process_job, job, "mine", False) is None


# --- locks and dead workers -------------------------------------------------------------------------------------------


@_both_faces
async def test_many_locks_are_extended_and_those_that_are_gone_are_told(place: Place, face: Any) -> None:
    added = await place.queue.add_bulk([("n", n) for n in range(3)])
    worker = face.Worker("q", lock_duration=30_000, **place.options)
    jobs = [await _call(worker.get_next_job, f"mine-{n}") for n in range(3)]
    place.redis.set(place.key(f"{added[1].id}:lock"), "another worker", px=30_000)
    ids, tokens = [job.id for job in jobs], [job.token for job in jobs]
    extended = await _call(worker.extend_job_locks, [*ids, "unknown"], [*tokens, "x"], timedelta(hours=1))
    assert extended == [added[1].id, "unknown"]
    left = [place.redis.pttl(place.key(f"{one.id}:lock")) for one in added]
    assert [_HOUR - 60_000 < one <= _HOUR for one in left] == [True, False, True]
    assert await _call(worker.extend_job_locks, [], [], 5) == []
    for wrong in (([ids[0]], []), ("a", "b"), (None, None), (ids, tokens[:2])):
        with pytest.raises(ConfigurationError, match=r"^tokens: got"):
            await _call(worker.extend_job_locks, *wrong, 5)
    for duration in (0, -1, "1"):
        with pytest.raises(ConfigurationError, match=r"^duration: got"):
            await _call(worker.extend_job_locks, ids, tokens, duration)
    place.redis.set(place.key(f"{added[1].id}:lock"), tokens[1], px=30_000)
    for job in jobs:
        await _call(job.move_to_completed, None, job.token, fetch_next=False)


@_all_kinds
async def test_a_running_worker_extends_its_own_locks(place: Place, kind: str) -> None:
    let_go = threading.Event()

    def run(job: Any) -> Any:
        return aeventually(let_go.is_set, _LONG) if kind == "async def" else let_go.wait(_LONG)

    job = await place.queue.add("n")
    worker = place.worker(kind, run, lock_duration=400, lock_renew_time=20, skip_lock_renewal=True)
    await _call(worker.__aenter__ if hasattr(worker, "__aenter__") else worker.__enter__)
    try:
        await aeventually(lambda: place.ran == [job.id])
        token = place.redis.get(place.key(f"{job.id}:lock"))
        assert await _call(worker.extend_job_locks, [job.id], [token], _HOUR) == []
        # Another one's, taken at the same time, has run out long since.
        place.redis.set(place.key("short"), "x", px=400)
        await aeventually(lambda: not place.redis.exists(place.key("short")))
        let_go.set()
        await aeventually(lambda: [told[0] for told in place.told] == ["active", "completed"])
    finally:
        let_go.set()
        await _call(worker.close)


@_both_faces
async def test_jobs_of_dead_workers_are_looked_for_by_hand(place: Place, face: Any) -> None:
    jobs = await place.queue.add_bulk([("n", 1), ("n", 2)])
    worker = face.Worker("q", stalled_interval=20, **place.options)
    stalled: list[str] = []
    worker.on("stalled", stalled.append)
    for _ in jobs:
        fetched = await _call(worker.get_next_job, "mine")
        place.redis.delete(place.key(f"{fetched.id}:lock"))
    for _ in range(2):
        await _call(worker.start_stalled_check_timer)
    await aeventually(lambda: sorted(stalled) == sorted(job.id for job in jobs))
    assert (await place.queue.get_job_counts("waiting"))["waiting"] == 2
    await _call(worker.close)
    # Nobody looks any more.
    await aeventually(lambda: place.redis.exists(place.key("stalled-check")) == 0)
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert place.redis.exists(place.key("stalled-check")) == 0
    assert not any(thread.name == "toromq-events" for thread in threading.enumerate())
    with pytest.raises(ToroError, match="was closed; make a new one"):
        await _call(worker.start_stalled_check_timer)


@_all_kinds
async def test_a_running_worker_looks_by_itself_unless_it_was_told_not_to(place: Place, kind: str) -> None:
    for skip in (False, True):
        worker = place.worker(kind, lambda job: None, stalled_interval=20, skip_stalled_check=skip)
        await _call(worker.__aenter__ if hasattr(worker, "__aenter__") else worker.__enter__)
        await _call(worker.wait_until_ready)
        await _call(worker.start_stalled_check_timer)
        await aeventually(lambda: place.redis.exists(place.key("stalled-check")) == 1)
        assert (worker._checking is not None) is skip
        await _call(worker.close)
        await aeventually(lambda: place.redis.exists(place.key("stalled-check")) == 0)


_LEFT_OPEN = """
import sys
from toromq.sync import Worker
worker = Worker("q", connection=sys.argv[1], prefix=sys.argv[2], stalled_interval=20)
worker.start_stalled_check_timer()
print("the end")
"""


def test_a_program_ends_although_it_still_looks_for_dead_workers(redisbox: RedisBox, prefix: str) -> None:
    program = [sys.executable, "-c", _LEFT_OPEN, redisbox.url, prefix]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the end\n", "")
