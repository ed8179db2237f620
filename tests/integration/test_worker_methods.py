"""What can be asked of a worker while it runs, in every kind; and what it tells of the locks it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.redisbox import RedisBox
from toromq import ConfigurationError, Connection, Queue, RedisConnectionError, ToroError, Worker

if TYPE_CHECKING:
    import redis as redispy

_KINDS = ("async def", "def", "def, blocking worker")
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)
_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])


class Place:
    """A queue of its own, and workers for it whose jobs wait until they are let go."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis = client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[str] = []
        self.told: list[tuple[Any, ...]] = []
        self.go_on = threading.Event()

    def worker(self, kind: str, **options: Any) -> Any:
        """A worker that notes what it runs and what it tells."""

        async def coroutine(job: Any) -> str:
            self.ran.append(job.id)
            await aeventually(self.go_on.is_set, _LONG)
            return "done"

        def function(job: Any) -> str:
            self.ran.append(job.id)
            self.go_on.wait(_LONG)
            return "done"

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        processor = coroutine if kind == "async def" else function
        worker = module.Worker("q", processor, **{**self.options, **options})
        for event in sorted(worker.EVENTS):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    def heard(self, event: str) -> list[tuple[Any, ...]]:
        """What came with each event of this name."""
        return [told[1:] for told in self.told if told[0] == event]

    async def ended(self, job_id: str, state: str = "completed") -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)


async def _call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a method of either face."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


@contextlib.asynccontextmanager
async def _started(worker: Any, place: Place) -> AsyncIterator[Any]:
    await _call(worker.__aenter__ if isinstance(worker, Worker) else worker.__enter__)
    try:
        yield worker
    finally:
        place.go_on.set()
        await _call(worker.close)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test; all are let go at the end, so that a failed test ends as well."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    place.go_on.set()
    await place.queue.close()


# --- pausing ----------------------------------------------------------------------------------------------------------


@_all_kinds
async def test_a_pause_waits_for_what_runs_and_is_told_then(place: Place, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    worker = place.worker(kind, concurrency=2)
    async with _started(worker, place):
        await aeventually(lambda: len(place.ran) == 2)
        pausing = asyncio.create_task(_call(worker.pause))
        await aeventually(worker.is_paused)
        assert (pausing.done(), place.heard("paused")) == (False, [])
        place.go_on.set()
        await asyncio.wait_for(pausing, _LONG)
        # It waited for the outcome to be written, and for nothing else.
        assert [await place.queue.get_job_state(job.id) for job in jobs] == ["completed"] * 2 + ["waiting"]
        await aeventually(lambda: place.heard("paused") == [()])
        await asyncio.wait_for(_call(worker.pause), _LONG)
        await _call(worker.resume)
        await place.ended(jobs[2].id)
        await aeventually(lambda: place.heard("resumed") == [()])


@_all_kinds
async def test_a_pause_need_not_wait(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    worker = place.worker(kind)
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        await asyncio.wait_for(_call(worker.pause, do_not_wait_active=True), _LONG)
        await aeventually(lambda: place.heard("paused") == [()])
        assert (worker.is_paused(), await place.queue.get_job_state(job.id)) == (True, "active")
        for wrong in (None, 1, "yes"):
            with pytest.raises(ConfigurationError, match=r"^do_not_wait_active: got"):
                await _call(worker.pause, wrong)


@_all_kinds
async def test_a_pause_ends_with_its_worker(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    worker = place.worker(kind)
    async with _started(worker, place):
        await aeventually(lambda: place.ran == [job.id])
        pausing = asyncio.create_task(_call(worker.pause))
        await aeventually(worker.is_paused)
        await asyncio.wait_for(_call(worker.close, force=True), _LONG)
        await asyncio.wait_for(pausing, _LONG)
        # And of a worker that has ended it is over at once.
        await asyncio.wait_for(_call(worker.pause), _LONG)


@_both_faces
async def test_a_job_can_not_wait_for_its_own_end(place: Place, face: Any) -> None:
    async def coroutine(job: Any) -> None:
        await worker.pause(job.data)

    worker: Any = face.Worker("q", coroutine if face is toromq else lambda job: worker.pause(job.data), **place.options)
    waits, does_not = await place.queue.add_bulk([("n", False), ("n", True)])
    async with _started(worker, place):
        reason = (await place.ended(waits.id, "failed")).failed_reason
        await place.ended(does_not.id)
        assert worker.is_paused()
    assert reason == "a job that pauses its worker would wait for itself; use pause(do_not_wait_active=True)"


# --- ready ------------------------------------------------------------------------------------------------------------


@_all_kinds
async def test_a_worker_tells_when_redis_has_answered(place: Place, kind: str) -> None:
    with RedisBox() as box:
        box.stop()
        worker = place.worker(kind, connection=box.url, run_retry_delay=20)
        async with _started(worker, place):
            waiting = asyncio.create_task(_call(worker.wait_until_ready))
            await aeventually(lambda: len(place.heard("error")) > 1)
            assert (waiting.done(), place.heard("ready"), worker.is_running()) == (False, [], True)
            box.start()
            await asyncio.wait_for(waiting, _LONG)
            await aeventually(lambda: place.heard("ready") == [()])
            await asyncio.wait_for(_call(worker.wait_until_ready), _LONG)


@_all_kinds
async def test_a_worker_that_was_closed_before_will_never_be_ready(place: Place, kind: str) -> None:
    # Nothing listens there.
    worker = place.worker(kind, connection="redis://127.0.0.1:9", run_retry_delay=20)
    async with _started(worker, place):
        waiting = asyncio.create_task(_call(worker.wait_until_ready))
        await aeventually(lambda: len(place.heard("error")) > 1)
        await _call(worker.close, True)
        with pytest.raises(ToroError, match="was closed before Redis answered"):
            await asyncio.wait_for(waiting, _LONG)


@_both_faces
async def test_a_worker_that_was_not_started_looks_for_redis_itself(place: Place, face: Any) -> None:
    worker = face.Worker("q", **place.options)
    await asyncio.wait_for(_call(worker.wait_until_ready), _LONG)
    away = face.Worker("q", connection=Connection("redis://127.0.0.1:9", command_timeout=100))
    with pytest.raises(RedisConnectionError):
        await _call(away.wait_until_ready)


# --- what is told of locks, of other workers' jobs and of an empty queue ----------------------------------------------


@_all_kinds
async def test_renewed_locks_are_told_and_those_that_could_not_be(place: Place, kind: str) -> None:
    kept, lost = await place.queue.add_bulk([("n", n) for n in range(2)])
    worker = place.worker(kind, concurrency=2, lock_renew_time=50)
    async with _started(worker, place):
        both = sorted([kept.id, lost.id])
        await aeventually(lambda: both in [sorted(ids) for (ids,) in place.heard("locks_renewed")])
        assert place.heard("lock_renewal_failed") == []
        place.redis.set(place.key(f"{lost.id}:lock"), "another worker", px=60_000)
        await aeventually(lambda: place.heard("lock_renewal_failed") == [([lost.id],)])
        await aeventually(lambda: [job.id for (job,) in place.heard("lock_lost")] == [lost.id])
        del place.told[:]
        await aeventually(lambda: ([kept.id],) in place.heard("locks_renewed"))
        assert place.heard("lock_renewal_failed") == []
    assert await place.queue.get_job_state(lost.id) == "active"


@_all_kinds
async def test_recovered_jobs_and_an_empty_queue_are_told(place: Place, kind: str) -> None:
    place.go_on.set()
    job = await place.queue.add("n")
    place.redis.lrem(place.key("wait"), 1, job.id)
    place.redis.lpush(place.key("active"), job.id)
    worker = place.worker(kind, stalled_interval=20)
    async with _started(worker, place):
        await place.ended(job.id)
        await aeventually(lambda: place.heard("stalled") == [(job.id,)])
        await aeventually(lambda: place.heard("drained") == [()])
        await place.ended((await place.queue.add("n")).id)
        await aeventually(lambda: place.heard("drained") == [()] * 2)


@_both_faces
def test_an_event_that_is_not_known_is_refused_with_the_nearest(redisbox: RedisBox, face: Any) -> None:
    worker = face.Worker("q", connection=redisbox.url)
    for given, nearest in (
        ("locksRenewed", "locks_renewed"), ("lockRenewalFailed", "lock_renewal_failed"), ("complete", "completed"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=rf"^event: got '{given}'; .*did you mean '{nearest}'\?$"):
            worker.on(given, print)
