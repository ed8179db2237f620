"""What bullmq 3.4.4 gets wrong works here."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio

from tests.support.eventually import aeventually
from tests.support.invariants import check_invariants
from toromq.compat.bullmq import AbortError, AbortSignal, Job, Queue, UnrecoverableError, Worker
from toromq.errors import ConfigurationError, SerializationError

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox


class Place:
    """A queue, and workers for it that are closed after the test."""

    def __init__(self, url: str, prefix: str) -> None:
        self.opts: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue = Queue("mail", self.opts)
        self.workers: list[Worker] = []
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def worker(self, processor: Callable[..., Any] | None, **opts: Any) -> Worker:
        """A worker that starts by itself and tells how jobs end."""
        worker = Worker("mail", processor, {**self.opts, **opts})
        worker.on("completed", lambda job, result: self.told.put_nowait(("completed", job.id, result)))
        worker.on("failed", lambda job, error: self.told.put_nowait(("failed", job.id, error)))
        self.workers.append(worker)
        return worker

    async def run(self, processor: Callable[..., Any], data: Any = None, **opts: Any) -> tuple[Any, ...]:
        """How a job ends that this processor runs."""
        await self.queue.add("n", data, {"jobId": "it", **opts})
        self.worker(processor)
        return await asyncio.wait_for(self.told.get(), 10)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> AsyncIterator[Place]:
    """One for each test; its keys are in order afterwards."""
    place = Place(redisbox.url, prefix)
    yield place
    for worker in place.workers:
        await worker.close()
    await place.queue.close()
    assert check_invariants(redis, prefix) == []


# --- processors -------------------------------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread_where_the_methods_of_its_job_block(place: Place) -> None:
    def process(job: Job, token: str) -> Any:
        job.updateProgress(50)
        job.log("a line")
        job.updateData({"n": 2})
        return [job.getState(), job.data, job.progress, token == job.token, threading.current_thread().name]

    assert await place.run(process, {"n": 1}) == (
        "completed", "it", ["active", {"n": 2}, 50, True, "toromq-processor"]
    )  # fmt: skip
    stored = await place.queue.getJob("it")
    assert stored is not None
    assert (stored.progress, stored.data) == (50, {"n": 2})
    assert await place.queue.getJobLogs("it") == {"logs": ["a line"], "count": 1}


async def test_a_plain_function_can_fail_and_give_up(place: Place) -> None:
    def process(job: Job) -> None:
        raise UnrecoverableError("never") if job.attemptsMade else ValueError("once")

    assert (await place.run(process, attempts=5))[2].args == ("once",)
    assert (await asyncio.wait_for(place.told.get(), 10))[2].args == ("never",)
    assert await place.queue.getJobState("it") == "failed"


async def test_a_plain_function_that_makes_a_coroutine_has_it_run_on_the_loop(place: Place) -> None:
    async def really(job: Job, extra: str) -> Any:
        await job.updateProgress(7)
        return [extra, job.progress, threading.current_thread() is threading.main_thread()]

    assert await place.run(lambda job, token: really(job, "more")) == ("completed", "it", ["more", 7, True])


async def test_a_processor_may_take_the_job_alone(place: Place) -> None:
    async def process(job: Job) -> Any:
        return job.id

    assert await place.run(process) == ("completed", "it", "it")


async def test_a_plain_function_looks_at_its_signal(place: Place) -> None:
    began = threading.Event()

    def process(job: Job, token: str, signal: AbortSignal) -> None:
        assert (signal.aborted, signal.reason) == (False, None)
        began.set()
        while not signal.aborted:
            time.sleep(0.005)
        signal.throw_if_aborted()

    worker = place.worker(process)
    await place.queue.add("n", None, {"jobId": "it"})
    await aeventually(began.is_set)
    assert worker.cancelJob("it", "enough") is True
    event, job_id, error = await asyncio.wait_for(place.told.get(), 10)
    assert (event, job_id, type(error), error.reason) == ("failed", "it", AbortError, "enough")


async def test_a_forced_close_is_seen_in_the_signal_of_a_thread(place: Place) -> None:
    seen: list[Any] = []
    began = threading.Event()

    def process(job: Job, token: str, signal: AbortSignal) -> None:
        began.set()
        while not signal.aborted:
            time.sleep(0.005)
        seen.append(signal.reason)

    worker = place.worker(process)
    await place.queue.add("n", None, {"jobId": "it"})
    await aeventually(began.is_set)
    await worker.close(True)
    await aeventually(lambda: seen == ["the worker closes"])


async def test_a_forced_close_gives_the_jobs_back_at_once(place: Place) -> None:
    began = asyncio.Event()

    async def process(job: Job, token: str) -> None:
        began.set()
        await asyncio.Event().wait()

    worker = place.worker(process)
    await place.queue.add("n", None, {"jobId": "it"})
    await asyncio.wait_for(began.wait(), 10)
    await worker.close(True)
    assert await place.queue.getJobState("it") == "waiting"


async def test_a_worker_without_a_loop_says_what_to_do() -> None:
    def make() -> None:
        with pytest.raises(RuntimeError, match=r"running event loop.*autorun.*worker\.run"):
            Worker("mail", lambda job, token: None)

    await asyncio.to_thread(make)


async def test_what_keeps_a_worker_from_starting_is_told(place: Place) -> None:
    errors: list[Exception] = []
    worker = place.worker(lambda job: None)
    worker.on("error", errors.append)
    # It was closed behind its back before its task began.
    await worker.toromq.close()
    await aeventually(lambda: [str(error) for error in errors] == ["the worker of mail was closed; make a new one"])


async def test_a_worker_is_counted_once(place: Place) -> None:
    place.worker(lambda job: None, name="tom")
    await aeventually(place.queue.get_workers_count)
    assert await place.queue.get_workers_count() == 1
    (told,) = await place.queue.get_workers()
    assert (told["name"], told["rawname"].endswith(":w:tom")) == ("mail", True)
    assert told["addr"]


# --- events -----------------------------------------------------------------------------------------------------------


async def test_a_queue_tells_what_is_done_through_it(place: Place) -> None:
    told: list[Any] = []
    for event in ("waiting", "progress", "removed", "cleaned", "paused", "resumed", "error"):
        place.queue.on(event, lambda *given, event=event: told.append((event, *given)))
    job = await place.queue.add("n", {}, {"jobId": "it"})
    await job.updateProgress(3)
    await place.queue.pause()
    await place.queue.resume()
    await place.queue.remove("it")
    await place.queue.clean(0, 0, "failed")
    event, added = told.pop(0)
    assert (event, type(added), added.id) == ("waiting", Job, "it")
    assert told == [("progress", "it", 3), ("paused",), ("resumed",), ("removed", "it"), ("cleaned", [], "failed")]


async def test_a_worker_tells_of_progress_and_of_its_own_life(place: Place) -> None:
    told: list[Any] = []
    ready = asyncio.Event()

    async def process(job: Job, token: str) -> None:
        await job.updateProgress({"step": 1})

    worker = place.worker(process)
    worker.on("ready", ready.set)
    for event in ("progress", "drained", "closing", "closed"):
        worker.on(event, lambda *given, event=event: told.append((event, *given)))
    await asyncio.wait_for(ready.wait(), 10)
    await place.queue.add("n", None, {"jobId": "it"})
    await aeventually(lambda: {"progress", "drained"} <= {event for event, *_ in told})
    await worker.close()
    await aeventually(lambda: told[-1] == ("closed",))
    (progress,) = [given for event, *given in told if event == "progress"]
    assert (progress[0].id, progress[1]) == ("it", {"step": 1})
    assert [event for event, *_ in told][-2:] == ["closing", "closed"]


async def test_listeners_may_be_async_and_one_that_raises_stops_nobody(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    async def later(job: Job, result: Any) -> None:
        await asyncio.sleep(0)
        told.append(result)

    def broken(job: Job, result: Any) -> None:
        raise ValueError("broken")

    async def process(job: Job) -> str:
        return "done"

    worker = place.worker(process)
    assert worker.on("completed", broken) is broken
    worker.on("completed", later)
    await place.queue.add("n", None)
    await aeventually(lambda: told == ["done"])
    worker.off("completed", later)
    worker.off("completed", later)
    await place.queue.add("n", None)
    for _ in range(2):
        await asyncio.wait_for(place.told.get(), 10)
    await worker.close()
    assert told == ["done"]
    assert caplog.text.count("ValueError: broken") == 2


async def test_events_of_the_program_s_own_are_told(place: Place) -> None:
    told: list[Any] = []

    async def later(*given: Any) -> None:
        told.append(("later", *given))

    place.queue.on("mine", lambda *given, **named: told.append((*given, named)))
    place.queue.on("later", later)
    place.queue.emit("mine", 1, two=2)
    place.queue.emit("nothing")
    place.queue.emit("later", 3)
    await aeventually(lambda: told == [(1, {"two": 2}), ("later", 3)])


async def test_renewed_locks_are_told(place: Place) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def process(job: Job, token: str) -> None:
        await told.get()

    worker = place.worker(process, lockDuration=300)
    worker.on("locksRenewed", told.put_nowait)
    seen: list[Any] = []
    worker.on("locksRenewed", seen.append)
    await place.queue.add("n", None, {"jobId": "it"})
    await asyncio.wait_for(place.told.get(), 10)
    assert seen[0] == {"count": 1, "jobIds": ["it"]}


async def test_a_lost_lock_is_told(place: Place, redis: redis_py.Redis) -> None:
    told: list[Any] = []
    began = asyncio.Event()

    async def process(job: Job, token: str) -> None:
        if job.attemptsStarted == 1:
            began.set()
            await asyncio.Event().wait()

    worker = place.worker(process, lockDuration=200, stalledInterval=100)
    worker.on("lockRenewalFailed", told.append)
    worker.on("stalled", told.append)
    await place.queue.add("n", None, {"jobId": "it"})
    await asyncio.wait_for(began.wait(), 10)
    redis.set(f"{place.opts['prefix']}:mail:it:lock", "another's", px=300)
    assert (await asyncio.wait_for(place.told.get(), 10))[:2] == ("completed", "it")
    assert ["it"] in told
    assert "it" in told


# --- times ------------------------------------------------------------------------------------------------------------


async def test_delayed_jobs_and_jobs_after_a_pause_start_in_time(place: Place, redisbox: RedisBox) -> None:
    """With a redis-py client as it is made by default, whose limit of 5 s bullmq trips over: it starts none of them."""
    starts: dict[str, float] = {}

    async def process(job: Job, token: str) -> None:
        starts[job.id or ""] = time.time() * 1000

    client = redis.asyncio.Redis(host="127.0.0.1", port=redisbox.port)
    place.opts["connection"] = client
    place.worker(process)
    added = await place.queue.add("n", None, {"jobId": "late", "delay": 6500})
    await asyncio.wait_for(place.told.get(), 20)
    assert starts["late"] >= added.timestamp + added.delay
    await client.aclose()


async def test_a_limiter_lets_jobs_start_as_soon_as_it_allows(place: Place) -> None:
    async def process(job: Job, token: str) -> None:
        pass

    began = time.monotonic()
    await place.queue.addBulk([{"name": "n", "data": n} for n in range(6)])
    # bullmq waits for so many seconds after each.
    place.worker(process, limiter={"max": 1, "duration": 200}, drainDelay=100)
    for _ in range(6):
        await asyncio.wait_for(place.told.get(), 50)
    assert time.monotonic() - began >= 1


# --- options ----------------------------------------------------------------------------------------------------------


async def test_a_backoff_strategy_may_be_async(place: Place) -> None:
    asked: list[Any] = []

    async def strategy(attempt: int, kind: str, error: Exception, job: Job) -> int:
        await asyncio.sleep(0)
        asked.append((attempt, kind, str(error), job.id, type(job)))
        return 10

    async def process(job: Job, token: str) -> str:
        if job.attemptsMade == 0:
            raise ValueError("once")
        return "done"

    await place.queue.add("n", None, {"jobId": "it", "attempts": 2, "backoff": {"type": "mine"}})
    place.worker(process, settings={"backoffStrategy": strategy})
    assert [(await asyncio.wait_for(place.told.get(), 10))[0] for _ in range(2)] == ["failed", "completed"]
    assert asked == [(1, "mine", "once", "it", Job)]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ({"jobId": "12"}, "job_id: '12' is a number"),
        ({"jobId": 12}, "job_id: got 12"),
        ({"jobId": "a:b"}, "job_id: 'a:b' contains ':'"),
        ({"priority": 10**9}, "priority: got 1000000000"),
        ({"attempts": -1}, "attempts: got -1"),
        ({"attempts": "x"}, "attempts: got 'x'"),
        ({"delay": "10"}, "delay: got '10'"),
        ({"sizeLimit": 1}, "bytes of JSON, but size_limit is 1"),
        ({"backoff": {"type": "fixed", "dealy": 1}}, "did you mean 'delay'"),
    ],
)
async def test_values_that_would_do_harm_are_refused(place: Place, opts: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, TypeError), match=message):
        await place.queue.add("n", {"a": 1}, opts)
    assert await place.queue.getWaitingCount() == 0


async def test_data_that_is_no_json_is_refused_with_the_path_to_it(place: Place) -> None:
    with pytest.raises(SerializationError, match=r"data\.a\[1\]") as told:
        await place.queue.add("n", {"a": [1, object()]})
    assert isinstance(told.value, TypeError)


async def test_a_delay_that_has_passed_means_now(place: Place) -> None:
    job = await place.queue.add("n", {}, {"delay": -5})
    assert (await job.getState(), job.delay) == ("waiting", 0)


async def test_states_may_be_given_as_one_text(place: Place) -> None:
    await place.queue.add("n", {}, {"jobId": "it"})
    assert [job.id for job in await place.queue.getJobs("wait")] == ["it"]


async def test_concurrency_can_be_changed_in_the_options_of_a_running_worker(place: Place) -> None:
    running: set[str] = set()
    release = asyncio.Event()

    async def process(job: Job, token: str) -> None:
        running.add(job.id or "")
        await release.wait()

    worker = place.worker(process)
    await place.queue.addBulk([{"name": "n", "data": n} for n in range(3)])
    await aeventually(lambda: len(running) == 1)
    worker.opts["concurrency"] = 3
    await aeventually(lambda: len(running) == 3)
    release.set()


async def test_a_plain_function_can_run_a_job_that_was_fetched_by_hand(place: Place) -> None:
    def process(job: Job, token: str) -> Any:
        job.updateProgress(1)
        return job.progress

    worker = place.worker(process, autorun=False)
    await place.queue.add("n", None, {"jobId": "it"})
    job = await worker.getNextJob("mine")
    assert job is not None
    await worker.processJob(job, "mine")
    assert await asyncio.wait_for(place.told.get(), 10) == ("completed", "it", 1)
    assert await worker.getNextJob("mine") is None
