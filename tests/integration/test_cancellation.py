"""Telling jobs that run to end: one or all of a worker's, in every kind of processor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, JobCancelledError, Queue, UnrecoverableError, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)


class Place:
    """A queue of its own, and workers for it whose jobs wait until they are cancelled or let go."""

    def __init__(self, kind: str, url: str, prefix: str, client: redispy.Redis) -> None:
        self.kind, self.redis = kind, client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[str] = []
        self.ended_as: list[tuple[str, bool, str | None]] = []
        self.told: list[tuple[Any, ...]] = []
        self.go_on = threading.Event()
        # What a job does once it was told to end: go on as it was told by default.
        self.then: Callable[[Any], Any] = lambda job: job.raise_if_cancelled()

    def worker(self, **options: Any) -> Any:
        """A worker that notes what it runs, how that ended and what it tells."""

        async def coroutine(job: Any) -> Any:
            self.ran.append(job.id)
            try:
                await aeventually(self.go_on.is_set, _LONG)
            except asyncio.CancelledError as error:
                self.ended_as.append((str(error), job.is_cancelled, job.cancel_reason))
                if self.then(job) == "swallow":
                    return "all the same"
                raise
            return "fine"

        def function(job: Any) -> Any:
            self.ran.append(job.id)
            if not self.waited(job):
                return "fine"
            self.ended_as.append((job.cancel_reason, job.is_cancelled, job.cancel_reason))
            return "all the same" if self.then(job) == "swallow" else job.raise_if_cancelled()

        module: Any = toromq.sync if "blocking" in self.kind else toromq
        worker = module.Worker("q", coroutine if self.kind == "async def" else function, **self.options, **options)
        for event in ("completed", "failed", "lock_lost", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    def waited(self, job: Any) -> bool:
        """Whether the job was cancelled before it was let go."""
        woken = threading.Event()
        job._cancellation.add_callback(lambda _: woken.set())
        while not self.go_on.is_set() and not woken.wait(0.01):
            pass
        return bool(job.is_cancelled)

    async def ended(self, job_id: str, state: str) -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)


@pytest.fixture
async def place(kind: str, redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test; all are let go at the end, so that a failed test ends as well."""
    place = Place(kind, redisbox.url, prefix, redis)
    yield place
    place.go_on.set()
    await place.queue.close()


@contextlib.asynccontextmanager
async def _started(worker: Any, place: Place) -> AsyncIterator[Any]:
    if not isinstance(worker, toromq.sync.Worker):
        async with worker:
            try:
                yield worker
            finally:
                place.go_on.set()
        return
    await asyncio.to_thread(worker.__enter__)
    try:
        yield worker
    finally:
        place.go_on.set()
        await asyncio.to_thread(worker.close)


@_all_kinds
async def test_a_cancelled_job_fails_with_the_reason_and_is_tried_again(place: Place) -> None:
    job, other = await place.queue.add_bulk([("n", 1, {"attempts": 2}), ("n", 2)])
    worker = place.worker(concurrency=2)
    async with _started(worker, place):
        await aeventually(lambda: sorted(place.ran) == sorted((job.id, other.id)))
        assert worker.cancel_job(job.id, "not wanted any more") is True
        await aeventually(lambda: place.ran.count(job.id) == 2)
        assert place.ended_as == [("not wanted any more", True, "not wanted any more")]
        (failed,) = place.told
        assert (failed[0], failed[1].id, type(failed[2]), str(failed[2])) == (
            "failed", job.id, JobCancelledError, "not wanted any more",
        )  # fmt: skip
        assert worker.cancel_job(job.id) is True
        ended = await place.ended(job.id, "failed")
        assert (ended.failed_reason, ended.attempts_made) == ("the job was cancelled", 2)
        assert [trace.strip().splitlines()[-1] for trace in ended.stacktrace] == [
            f"toromq.errors.JobCancelledError: {reason}" for reason in ("not wanted any more", "the job was cancelled")
        ]
        # Nobody else was disturbed.
        assert await place.queue.get_job_state(other.id) == "active"
    assert (await place.ended(other.id, "completed")).returnvalue == "fine"


@_all_kinds
async def test_a_cancelled_job_may_say_that_it_is_not_to_be_tried_again(place: Place) -> None:
    def then(job: Any) -> None:
        raise UnrecoverableError("never")

    place.then = then
    job = await place.queue.add("n", attempts=5)
    worker = place.worker()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        worker.cancel_job(job.id, "why")
        ended = await place.ended(job.id, "failed")
    assert (ended.failed_reason, ended.attempts_made) == ("never", 1)


@_all_kinds
async def test_a_job_that_goes_on_all_the_same_completes(place: Place) -> None:
    place.then = lambda job: "swallow"
    job = await place.queue.add("n")
    worker = place.worker()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        worker.cancel_job(job.id)
        assert (await place.ended(job.id, "completed")).returnvalue == "all the same"


@_all_kinds
async def test_all_jobs_of_a_worker_can_be_cancelled(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(5)])
    worker, other = place.worker(concurrency=3), place.worker()
    async with _started(worker, place):
        await aeventually(lambda: len(place.ran) == 3)
        async with _started(other, place):
            await aeventually(lambda: len(place.ran) == 4)
            assert worker.cancel_all_jobs("all of them") is None
            failed = [await place.ended(job.id, "failed") for job in jobs[:3]]
            assert [job.failed_reason for job in failed] == ["all of them"] * 3
            assert await place.queue.get_job_state(jobs[3].id) == "active"
    assert len(place.ended_as) == 3


@_all_kinds
async def test_only_a_running_job_of_this_worker_can_be_cancelled(place: Place) -> None:
    mine, waiting = await place.queue.add_bulk([("n", 1), ("n", 2)])
    worker, other = place.worker(), place.worker()
    assert worker.cancel_job(mine.id) is False
    worker.cancel_all_jobs()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [mine.id])
        assert [worker.cancel_job(id) for id in (waiting.id, "unknown")] == [False, False]
        assert other.cancel_job(mine.id) is False
        for given in (7.5, None, "wait"):
            with pytest.raises(ConfigurationError, match=r"^job_id: "):
                worker.cancel_job(given)
        for reason in (7, b"x", "\ud800"):
            with pytest.raises(ConfigurationError, match=r"^reason: got"):
                worker.cancel_job(mine.id, reason)
            with pytest.raises(ConfigurationError, match=r"^reason: got"):
                worker.cancel_all_jobs(reason)
    assert worker.cancel_job(mine.id) is False
    assert place.ended_as == []


@_all_kinds
async def test_a_second_call_does_not_disturb_the_end(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker()
    place.then = lambda job: (worker.cancel_job(job.id, "second"), worker.cancel_all_jobs("third"))
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        worker.cancel_job(job.id, "first")
        assert (await place.ended(job.id, "failed")).failed_reason == "first"
    assert len(place.ended_as) == 1


@_all_kinds
async def test_any_thread_can_cancel(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        assert await asyncio.to_thread(worker.cancel_job, job.id, "from a thread") is True
        assert (await place.ended(job.id, "failed")).failed_reason == "from a thread"


@_all_kinds
async def test_the_strategy_of_the_user_is_asked_about_a_cancelled_job(place: Place) -> None:
    asked: list[tuple[Any, ...]] = []

    def strategy(*arguments: Any) -> int:
        asked.append(arguments)
        return -1

    job = await place.queue.add("n", attempts=5, backoff={"type": "mine"})
    worker = place.worker(backoff_strategy=strategy)
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        worker.cancel_job(job.id, "why")
        ended = await place.ended(job.id, "failed")
    assert (ended.attempts_made, ended.failed_reason) == (1, "why")
    assert [(attempt, kind, type(error)) for attempt, kind, error, _ in asked] == [(1, "mine", JobCancelledError)]


@_all_kinds
async def test_a_lost_lock_is_seen_by_the_job(place: Place) -> None:
    job = await place.queue.add("n")
    async with _started(place.worker(lock_renew_time=50), place):
        await aeventually(lambda: place.ran == [job.id])
        place.redis.set(place.key(f"{job.id}:lock"), "another worker", px=60_000)
        await aeventually(lambda: len(place.ended_as) == 1)
        await aeventually(lambda: [told[0] for told in place.told] == ["lock_lost"])
    assert place.ended_as == [("the job's lock was lost", True, "the job's lock was lost")]
    # Its end is another worker's affair.
    assert place.redis.hget(place.key(job.id), "failedReason") is None
    assert await place.queue.get_job_state(job.id) == "active"


@pytest.mark.parametrize("kind", _KINDS[1:])
async def test_a_forced_close_is_seen_by_plain_functions(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        close = worker.close(force=True) if isinstance(worker, Worker) else asyncio.to_thread(worker.close, force=True)
        await asyncio.wait_for(close, _LONG)
    await aeventually(lambda: place.ended_as == [("the worker closes", True, "the worker closes")])


@pytest.mark.parametrize("kind", ["async def"])
async def test_a_forced_close_hands_back_and_does_not_fail(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker()
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        await asyncio.wait_for(worker.close(force=True), _LONG)
    assert place.ended_as == [("the worker closes", True, "the worker closes")]
    assert await place.queue.get_job_state(job.id) == "waiting"


@pytest.mark.parametrize("kind", ["async def"])
async def test_a_job_that_has_not_begun_fails_without_a_run(place: Place) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(2)])
    began: list[str] = []

    async def processor(job: Any) -> None:
        began.append(job.id)
        # The other one was fetched with this one, and begins when this one waits: that is never.
        assert worker.cancel_job(jobs[1].id, "not at all") is True

    worker: Worker[Any, Any] = Worker("q", processor, concurrency=2, **place.options)
    async with worker:
        await place.ended(jobs[0].id, "completed")
        ended = await place.ended(jobs[1].id, "failed")
    assert (ended.failed_reason, began) == ("not at all", [jobs[0].id])


@pytest.mark.parametrize("kind", _KINDS[2:])
async def test_a_job_that_no_thread_has_begun_fails_without_a_run(place: Place) -> None:
    job = await place.queue.add("n")
    worker = place.worker()
    about_to_begin, cancelled = threading.Event(), threading.Event()
    # Called by the thread that is about to call the processor.
    worker.on("active", lambda _: (about_to_begin.set(), cancelled.wait(_LONG)))
    async with _started(worker, place):
        await asyncio.to_thread(about_to_begin.wait, _LONG)
        assert worker.cancel_job(job.id, "enough") is True
        cancelled.set()
        assert (await place.ended(job.id, "failed")).failed_reason == "enough"
        assert (place.ran, [told[0] for told in place.told]) == ([], ["failed"])
        # Nothing of it is left for the next one.
        after = await place.queue.add("n")
        await aeventually(lambda: place.ran == [after.id])


@pytest.mark.parametrize("kind", ["async def"])
async def test_a_job_can_cancel_itself(place: Place) -> None:
    async def processor(job: Any) -> None:
        worker.cancel_job(job.id, "by itself")
        await asyncio.sleep(_LONG)

    job = await place.queue.add("n")
    worker: Worker[Any, Any] = Worker("q", processor, **place.options)
    async with worker:
        assert (await place.ended(job.id, "failed")).failed_reason == "by itself"


@pytest.mark.parametrize("kind", ["async def"])
async def test_a_forced_close_during_the_strategy_hands_back(place: Place) -> None:
    asked = asyncio.Event()

    async def strategy(*_: Any) -> int:
        asked.set()
        await asyncio.sleep(_LONG)
        return 0

    job = await place.queue.add("n", attempts=5, backoff={"type": "mine"})
    worker = place.worker(backoff_strategy=strategy)
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        worker.cancel_job(job.id)
        await asyncio.wait_for(asked.wait(), _LONG)
        await asyncio.wait_for(worker.close(force=True), _LONG)
    assert await place.queue.get_job_state(job.id) == "waiting"
    assert place.redis.hget(place.key(job.id), "atm") is None


@pytest.mark.parametrize("kind", _KINDS)
async def test_a_word_that_comes_after_the_end_of_a_job_is_not_kept(place: Place) -> None:
    worker = place.worker()
    async with _started(worker, place):
        job = await place.queue.add("n")
        await aeventually(lambda: place.ran == [job.id])
        # As cancel_job does it, which is overtaken by the end of the job here.
        (run,) = worker._native.held(job.id)
        place.go_on.set()
        await place.ended(job.id, "completed")
        await aeventually(lambda: not worker._running)
        assert worker._cancel_run(run, "too late") is False
        assert worker._unbegun == {}
