"""Where processors run: coroutines on the event loop, plain functions in threads; and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import Job, Queue, ToroError, UnrecoverableError, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
_BLOCKING = "def, blocking worker"
# Only to end a test that found a deadlock.
_LONG = 20


class Place:
    """A queue of its own, and workers for it."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis = client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format

    @contextlib.asynccontextmanager
    async def working(self, processor: Callable[[Any], Any], *, blocking: bool = False, **options: Any) -> Any:
        """A worker of either face that runs within the block."""
        worker: Any = (toromq.sync.Worker if blocking else Worker)("q", processor, **self.options, **options)
        if not blocking:
            async with worker:
                yield worker
            return
        await asyncio.to_thread(worker.__enter__)
        try:
            yield worker
        finally:
            await asyncio.to_thread(worker.close)

    async def ended(self, job_id: str, state: str = "completed") -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


class Crowd:
    """Processors of each kind that wait until they are let go, and count who is inside."""

    def __init__(self, place: Place) -> None:
        self.place, self.inside = place, 0
        self.permits, self.lock = threading.Semaphore(0), threading.Lock()
        # How many jobs were active in Redis whenever one began.
        self.active: list[int] = []

    def processor(self, kind: str) -> Callable[[Any], Any]:
        return self.coroutine if kind == "async def" else self.function

    async def coroutine(self, job: Any) -> None:
        self.enter()
        await aeventually(lambda: self.permits.acquire(blocking=False), _LONG)
        self.leave()

    def function(self, job: Any) -> None:
        self.enter()
        self.permits.acquire(timeout=_LONG)
        self.leave()

    def enter(self) -> None:
        active = self.place.redis.llen(self.place.key("active"))
        with self.lock:
            self.inside += 1
            self.active.append(active)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1

    def full(self, count: int) -> bool:
        return self.inside == self.place.redis.llen(self.place.key("active")) == count


@pytest.fixture
def crowd(place: Place) -> Iterator[Crowd]:
    """Lets all go at the end, so that a failed test ends as well."""
    crowd = Crowd(place)
    yield crowd
    crowd.permits.release(1000)


# --- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("concurrency", [1, 3, 40])
async def test_as_many_jobs_run_at_once_as_the_concurrency_says(
    place: Place, crowd: Crowd, kind: str, concurrency: int
) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(concurrency + 5)])
    async with place.working(crowd.processor(kind), blocking=kind == _BLOCKING, concurrency=concurrency):
        await aeventually(lambda: crowd.full(concurrency))
        crowd.permits.release(len(jobs))
        for job in jobs:
            await place.ended(job.id)
    assert max(crowd.active) == concurrency


@pytest.mark.parametrize("kind", _KINDS)
async def test_more_concurrency_takes_effect_while_all_jobs_wait(place: Place, crowd: Crowd, kind: str) -> None:
    await place.queue.add_bulk([("n", n) for n in range(10)])
    async with place.working(crowd.processor(kind), blocking=kind == _BLOCKING, concurrency=2) as worker:
        try:
            await aeventually(lambda: crowd.full(2))
            worker.concurrency = 5
            assert worker.concurrency == 5
            await aeventually(lambda: crowd.full(5))
            assert max(crowd.active) <= 5
        finally:
            crowd.permits.release(10)


@pytest.mark.parametrize("kind", _KINDS)
async def test_less_concurrency_takes_effect_as_jobs_end(place: Place, crowd: Crowd, kind: str) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(8)])
    async with place.working(crowd.processor(kind), blocking=kind == _BLOCKING, concurrency=4) as worker:
        await aeventually(lambda: crowd.full(4))
        worker.concurrency = 1
        crowd.permits.release(2)
        await aeventually(lambda: crowd.full(2))
        crowd.permits.release(len(jobs))
        for job in jobs:
            await place.ended(job.id)
    assert max(crowd.active[:4]) <= 4
    assert crowd.active[4:] == [1] * 4


@pytest.mark.parametrize("kind", _KINDS)
async def test_a_job_that_waits_does_not_hold_up_the_one_it_waits_for(place: Place, kind: str) -> None:
    event = threading.Event()

    def sets(job: Any) -> bool:
        event.set()
        return True

    async def coroutine(job: Any) -> bool:
        return sets(job) if job.name == "sets" else await aeventually(event.is_set, _LONG)

    def function(job: Any) -> bool:
        return sets(job) if job.name == "sets" else event.wait(_LONG)

    options: dict[str, Any] = {"blocking": kind == _BLOCKING, "concurrency": 2}
    async with place.working(coroutine if kind == "async def" else function, **options):
        # Together in one fetch, then one after the other.
        for jobs in ([("waits", 1), ("sets", 2)], [("waits", 3)], [("sets", 4)]):
            added = await place.queue.add_bulk(jobs)
            if jobs[-1][0] == "sets":
                for job in added:
                    assert (await place.ended(job.id)).returnvalue is True
                event.clear()


async def test_jobs_that_never_wait_let_the_event_loop_go_on(place: Place) -> None:
    history: list[str] = []

    async def busy(job: Job[Any, Any]) -> None:
        until = time.perf_counter() + 0.01  # longer than jobs may keep the loop
        while time.perf_counter() < until:
            pass
        history.append("job")

    async def tick() -> None:
        while history.count("job") < 20:
            history.append("tick")
            await asyncio.sleep(0)

    await place.queue.add_bulk([("n", n) for n in range(20)])
    async with place.working(busy, concurrency=20):
        await asyncio.wait_for(tick(), _LONG)
    assert max(map(len, "".join(entry[0] for entry in history).split("t"))) <= 2


# --- what jobs see of each other --------------------------------------------------------------------------------------

_variable = contextvars.ContextVar("_variable", default="unset")


@pytest.mark.parametrize("kind", _KINDS)
async def test_context_variables_of_one_job_are_not_seen_by_the_next(
    place: Place, kind: str
) -> None:
    seen: list[str] = []

    def function(job: Any) -> None:
        seen.append(_variable.get())
        _variable.set(job.id)

    async def coroutine(job: Any) -> None:
        function(job)
        if job.data % 3 == 0:
            await asyncio.sleep(0)

    jobs = await place.queue.add_bulk([("n", n) for n in range(30)])
    processor = coroutine if kind == "async def" else function
    async with place.working(processor, blocking=kind == _BLOCKING, concurrency=10):
        for job in jobs:
            await place.ended(job.id)
    assert seen == ["unset"] * 30


async def test_coroutines_see_the_context_in_which_their_worker_was_started(place: Place) -> None:
    async def processor(job: Job[Any, Any]) -> str:
        return _variable.get()

    job = await place.queue.add("n")
    token = _variable.set("of the start")
    async with place.working(processor):
        _variable.reset(token)
        assert (await place.ended(job.id)).returnvalue == "of the start"


# --- what coroutines can do -------------------------------------------------------------------------------------------


async def _times_out(job: Any) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01) as timeout:
            await asyncio.sleep(_LONG)
    return timeout.expired()


async def _groups(job: Any) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
    return [task.result() for task in tasks]


async def _groups_with_an_error(job: Any) -> str:
    async def fails() -> None:
        raise ValueError("inner")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(_LONG))
            group.create_task(fails())
    except ExceptionGroup as errors:
        return str(errors.exceptions[0])
    return "none"


async def _swallows_a_cancelled_child(job: Any) -> str:
    child = asyncio.create_task(asyncio.sleep(_LONG))
    await asyncio.sleep(0)
    child.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await child
    return "cancelled" if child.cancelled() else "not"


async def _has_a_task(job: Any) -> bool:
    return asyncio.current_task() in asyncio.all_tasks()


class _Callable:
    async def __call__(self, job: Any) -> str:
        return "called"

    async def method(self, job: Any) -> str:
        return "bound"


async def _with_two(first: str, job: Any) -> str:
    return first


@pytest.mark.parametrize(
    ("processor", "result"),
    [
        (_times_out, True),
        (_groups, [0, 1, 2]),
        (_groups_with_an_error, "inner"),
        (_swallows_a_cancelled_child, "cancelled"),
        (_has_a_task, True),
        (_Callable(), "called"),
        (_Callable().method, "bound"),
        (functools.partial(_with_two, "partial"), "partial"),
    ],
)
async def test_a_coroutine_can_do_what_it_could_in_a_task_of_its_own(place: Place, processor: Any, result: Any) -> None:
    jobs = await place.queue.add_bulk([("n", n) for n in range(3)])
    async with place.working(processor, concurrency=3):
        for job in jobs:
            assert (await place.ended(job.id)).returnvalue == result


async def _times_out_bare(job: Any) -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(_LONG)


async def _leaks_a_cancelled_child(job: Any) -> None:
    child = asyncio.create_task(asyncio.sleep(_LONG))
    asyncio.get_running_loop().call_soon(child.cancel, "child")
    await child


async def _cancels_itself(job: Any) -> None:
    # Ends the test where it is run again and again.
    if job.attempts_started > 3:
        raise UnrecoverableError(f"start {job.attempts_started}")
    task = asyncio.current_task()
    assert task is not None
    task.cancel("myself")
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (_times_out_bare, "TimeoutError"),
        (_leaks_a_cancelled_child, "child"),
        pytest.param(
            _cancels_itself,
            "myself"
        ),
    ],
)
async def test_a_coroutine_that_ends_by_a_cancellation_of_its_own_failed(
    place: Place, processor: Any, reason: str
) -> None:
    job = await place.queue.add("n")
    async with place.working(processor):
        ended = await place.ended(job.id, "failed")
    assert (ended.failed_reason, ended.attempts_made, ended.attempts_started) == (reason, 1, 1)


# --- what jobs can do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", _KINDS)
async def test_a_job_can_report_progress_log_and_change_its_data(place: Place, kind: str) -> None:
    kinds: list[type] = []

    async def coroutine(job: Any) -> Any:
        kinds.append(type(job))
        await job.update_progress({"done": 50})
        lines = [await job.log("one"), await job.log("two")]
        await job.update_data({"step": 2})
        return [lines, job.progress, job.data, await job.get_state()]

    def function(job: Any) -> Any:
        kinds.append(type(job))
        job.update_progress({"done": 50})
        lines = [job.log("one"), job.log("two")]
        job.update_data({"step": 2})
        return [lines, job.progress, job.data, job.get_state()]

    job = await place.queue.add("n", {"step": 1})
    async with place.working(coroutine if kind == "async def" else function, blocking=kind == _BLOCKING):
        ended = await place.ended(job.id)
    assert kinds == [Job if kind == "async def" else toromq.sync.Job]
    assert ended.returnvalue == [[1, 2], {"done": 50}, {"step": 2}, "active"]
    assert (ended.progress, ended.data) == ({"done": 50}, {"step": 2})
    assert await place.queue.get_job_logs(job.id) == (["one", "two"], 2)


def test_a_blocking_worker_refuses_a_coroutine_function(redisbox: RedisBox) -> None:
    for processor in (_has_a_task, _Callable(), functools.partial(_with_two, "first")):
        with pytest.raises(ToroError, match=r"use toromq\.Worker"):
            toromq.sync.Worker("q", processor, connection=redisbox.url)


class _NoThreads(threading.Thread):
    """A thread of a process that may have no more of them."""

    def start(self) -> None:
        """Say so, as Python does."""
        if self.name == "toromq-processor":
            raise RuntimeError("can't start new thread")
        super().start()


@pytest.mark.parametrize("blocking", [False, True], ids=["async face", "blocking face"])
async def test_a_worker_without_a_thread_does_not_start_and_takes_no_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    job = await place.queue.add("n", 1)
    monkeypatch.setattr(threading, "Thread", _NoThreads)
    worker: Any = (toromq.sync.Worker if blocking else Worker)("q", lambda job: None, **place.options)
    with pytest.raises(ToroError, match="got no thread for its processor: can't start new thread"):
        await (asyncio.to_thread(worker.__enter__) if blocking else worker.__aenter__())
    assert worker.is_running() is False
    assert await place.queue.get_job_state(job.id) == "waiting"
    monkeypatch.undo()
    # It was never started, so it can be still.
    if blocking:
        await asyncio.to_thread(worker.__enter__)
    else:
        await worker.__aenter__()
    await place.ended(job.id)
    await (asyncio.to_thread(worker.close) if blocking else worker.close())


async def test_a_worker_goes_on_with_the_threads_it_has(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    errors: list[Exception] = []
    begun = threading.Event()

    def processor(job: Any) -> None:
        if not ran:
            begun.set()
            monkeypatch.setattr(threading, "Thread", _NoThreads)
        ran.append(threading.current_thread().name)

    async with place.working(processor, concurrency=5) as worker:
        worker.on("error", errors.append)
        await place.queue.add_bulk([("n", n) for n in range(20)])

        async def all_done() -> bool:
            return await place.queue.get_completed_count() == 20

        await aeventually(all_done)
        monkeypatch.undo()
    assert set(ran) == {"toromq-processor"}
