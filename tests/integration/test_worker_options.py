"""Options of a worker and what they change, for all kinds of processors; and processors by the name of the job."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, DelayedError, Metrics, MetricsTime, Queue, ToroError, UnrecoverableError, Worker
from toromq.errors import LockMissingError

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
_HOUR = 3_600_000
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)


class Place:
    """A queue of its own, its keys, and workers for it of each kind."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis = client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[str] = []
        self.told: list[tuple[Any, ...]] = []

    def worker(self, kind: str, run: Callable[[Any], Any] = lambda job: None, **options: Any) -> Any:
        """A worker that notes what it runs and what it tells."""

        async def coroutine(job: Any) -> Any:
            self.ran.append(job.id)
            return await asyncio.to_thread(run, job)

        def function(job: Any) -> Any:
            self.ran.append(job.id)
            return run(job)

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        processor = coroutine if kind == "async def" else function
        return self.listening(module.Worker("q", processor, **{**self.options, **options}))

    def listening(self, worker: Any) -> Any:
        """The worker, whose events are noted."""
        for event in ("completed", "failed", "stalled", "lock_lost", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    async def ended(self, job_id: str, state: str) -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)


@contextlib.asynccontextmanager
async def _started(worker: Any) -> AsyncIterator[Any]:
    if not isinstance(worker, toromq.sync.Worker):
        async with worker:
            yield worker
        return
    await asyncio.to_thread(worker.__enter__)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.close)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


# --- starts -----------------------------------------------------------------------------------------------------------


@_all_kinds
async def test_a_job_that_began_too_often_fails_without_a_run(place: Place, kind: str) -> None:
    def run(job: Any) -> None:
        raise DelayedError(delay=5)

    job = await place.queue.add("n", attempts=9)
    async with _started(place.worker(kind, run, max_started_attempts=2)):
        ended = await place.ended(job.id, "failed")
        await aeventually(lambda: [told[0] for told in place.told] == ["failed"])
    assert (ended.failed_reason, ended.attempts_started, ended.attempts_made) == (
        "job started more than allowable limit", 3, 1,
    )  # fmt: skip
    assert place.ran == [job.id] * 2
    assert (type(place.told[0][2]), str(place.told[0][2])) == (UnrecoverableError, ended.failed_reason)


@_all_kinds
async def test_a_job_that_may_not_begin_again_fails_for_good(place: Place, kind: str) -> None:
    def run(job: Any) -> None:
        raise ValueError("why")

    job = await place.queue.add("n", attempts=9)
    async with _started(place.worker(kind, run, max_started_attempts=2)):
        ended = await place.ended(job.id, "failed")
    assert (ended.failed_reason, ended.attempts_started, ended.attempts_made) == ("why", 2, 2)
    assert place.ran == [job.id] * 2


@pytest.mark.parametrize("face", [toromq, toromq.sync])
async def test_a_failure_by_hand_counts_the_starts_as_well(place: Place, face: Any) -> None:
    async def call(method: Any, *arguments: Any) -> Any:
        return await (method(*arguments) if face is toromq else asyncio.to_thread(method, *arguments))

    job = await place.queue.add("n", attempts=9)
    worker = face.Worker("q", max_started_attempts=2, **place.options)
    first = await call(worker.get_next_job, "mine")
    again = await call(first.move_to_failed, ValueError("first"), "mine")
    assert await call(again.move_to_failed, ValueError("second"), "mine") is None
    assert (await place.ended(job.id, "failed")).failed_reason == "second"


# --- upkeep that is left out ------------------------------------------------------------------------------------------


@_all_kinds
async def test_the_look_for_stalled_jobs_can_be_left_to_others(place: Place, kind: str) -> None:
    dead, job = await place.queue.add_bulk([("n", 1), ("n", 2)])
    place.redis.lrem(place.key("wait"), 1, dead.id)
    place.redis.lpush(place.key("active"), dead.id)
    place.redis.sadd(place.key("stalled"), dead.id)
    async with _started(place.worker(kind, skip_stalled_check=True, stalled_interval=1)):
        await place.ended(job.id, "completed")
        assert place.redis.exists(place.key("stalled-check")) == 0
        assert await place.queue.get_job_state(dead.id) == "active"
        async with _started(place.worker(kind, stalled_interval=1)):
            await place.ended(dead.id, "completed")


@_all_kinds
async def test_a_lock_that_is_not_renewed_runs_out_and_stops_its_job(place: Place, kind: str) -> None:
    let_go = threading.Event()

    def run(job: Any) -> str:
        if job.attempts_started == 1:
            woken = threading.Event()
            job._cancellation.add_callback(lambda _: woken.set())
            woken.wait(_LONG)
            let_go.wait(_LONG)
        return f"by run {job.attempts_started}"

    options = {"skip_lock_renewal": True, "lock_duration": 200, "lock_renew_time": 20, "stalled_interval": 20}
    job = await place.queue.add("n")
    async with _started(place.worker(kind, run, concurrency=2, **options)):
        await aeventually(lambda: "lock_lost" in [told[0] for told in place.told])
        ended = await place.ended(job.id, "completed")
        let_go.set()
    assert (ended.returnvalue, ended.stalled_counter) == ("by run 2", 1)


@_all_kinds
async def test_a_lock_that_is_extended_lives_on_and_is_seen_to(place: Place, kind: str) -> None:
    let_go = threading.Event()
    lives: list[int] = []

    async def coroutine(job: Any) -> str:
        await job.extend_lock(job.token, _HOUR)
        lives.append(place.redis.pttl(place.key(f"{job.id}:lock")))
        await asyncio.to_thread(let_go.wait, _LONG)
        return "in time"

    def function(job: Any) -> str:
        job.extend_lock(job.token, _HOUR)
        lives.append(place.redis.pttl(place.key(f"{job.id}:lock")))
        let_go.wait(_LONG)
        return "in time"

    module: Any = toromq.sync if kind == "def, blocking worker" else toromq
    options = {"skip_lock_renewal": True, "lock_duration": 300, "lock_renew_time": 20}
    worker = module.Worker("q", coroutine if kind == "async def" else function, **place.options, **options)
    job = await place.queue.add("n")
    # Its lock is not extended, and runs out: by then the other would have run out as well.
    other = place.listening(place.worker("def", lambda job: let_go.wait(_LONG), **options))
    async with _started(place.listening(worker)):
        await aeventually(lambda: len(lives) == 1)
        short = await place.queue.add("n")
        async with _started(other):
            await aeventually(lambda: short.id in [told[1].id for told in place.told if told[0] == "lock_lost"])
            let_go.set()
            assert (await place.ended(job.id, "completed")).returnvalue == "in time"
    assert _HOUR - 60_000 < lives[0] <= _HOUR
    assert place.redis.lrem(place.key("active"), 1, short.id) == 1
    place.redis.delete(place.key(short.id))


@_all_kinds
async def test_a_worker_can_not_extend_what_it_lost(place: Place, kind: str) -> None:
    caught: list[Exception] = []

    async def coroutine(job: Any) -> None:
        place.redis.delete(place.key(f"{job.id}:lock"))
        try:
            await job.extend_lock(None, 1000)
        except LockMissingError as error:
            caught.append(error)
            place.redis.set(place.key(f"{job.id}:lock"), job.token, px=60_000)

    def function(job: Any) -> None:
        place.redis.delete(place.key(f"{job.id}:lock"))
        try:
            job.extend_lock(None, 1000)
        except LockMissingError as error:
            caught.append(error)
            place.redis.set(place.key(f"{job.id}:lock"), job.token, px=60_000)

    module: Any = toromq.sync if kind == "def, blocking worker" else toromq
    worker = module.Worker("q", coroutine if kind == "async def" else function, **place.options)
    job = await place.queue.add("n")
    async with _started(worker):
        await place.ended(job.id, "completed")
    assert [str(error) for error in caught] == [
        f"extend_lock of job {job.id}: the job has no lock: it ran out or was removed"
    ]


# --- metrics ----------------------------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("metrics", [Metrics(5), Metrics(max_data_points=MetricsTime.ONE_HOUR), MetricsTime.ONE_WEEK])
async def test_a_worker_counts_what_completes_and_fails(place: Place, kind: str, metrics: Any) -> None:
    def run(job: Any) -> None:
        if job.data == "bad":
            raise ValueError

    jobs = await place.queue.add_bulk([("n", data) for data in ("good", "good", "bad")])
    async with _started(place.worker(kind, run, metrics=metrics)):
        await aeventually(lambda: place.redis.exists(place.key("active"), place.key("wait")) == 0)
        for job, state in zip(jobs, ("completed", "completed", "failed"), strict=True):
            await place.ended(job.id, state)
    counted = [place.redis.hget(place.key(f"metrics:{state}"), "count") for state in ("completed", "failed")]
    assert counted == ["2", "1"]


@_all_kinds
async def test_nothing_is_counted_unless_it_was_asked_for(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    async with _started(place.worker(kind)):
        await place.ended(job.id, "completed")
    assert place.redis.keys(place.key("metrics*")) == []


# --- while Redis is away ----------------------------------------------------------------------------------------------


@_all_kinds
async def test_tries_follow_each_other_as_fast_as_is_asked_for(place: Place, kind: str) -> None:
    # Nothing listens there. With pauses of up to a second there would not be as many errors in this time.
    worker = place.worker(kind, connection="redis://127.0.0.1:9", run_retry_delay=5)
    async with _started(worker):
        await aeventually(lambda: len(place.told) > 60, 8)
        await (worker.close(True) if isinstance(worker, Worker) else asyncio.to_thread(worker.close, True))


# --- processors by name -----------------------------------------------------------------------------------------------


def _named(face: Any, place: Place, *names: str, default: Any = None, **options: Any) -> Any:
    """A worker with a processor for each name; a name in capitals gets a plain function in both faces."""
    worker = place.listening(face.Worker("q", default, **place.options, **options))
    for name in names:

        async def coroutine(job: Any, name: str = name) -> str:
            await asyncio.sleep(0)
            return f"{name} ran {job.name} in {threading.current_thread() is threading.main_thread()}"

        def function(job: Any, name: str = name) -> str:
            return f"{name} ran {job.name} in {threading.current_thread() is threading.main_thread()}"

        plain = face is toromq.sync or name.isupper()
        chosen: Any = function if plain else coroutine
        assert worker.processor(name)(chosen) is chosen
    return worker


@pytest.mark.parametrize("face", [toromq, toromq.sync])
async def test_jobs_go_to_the_processor_of_their_name(place: Place, face: Any) -> None:
    jobs = await place.queue.add_bulk([(name, None) for name in ("a", "B", "b", "a", "B")])
    async with _started(_named(face, place, "a", "B", "b", concurrency=3)):
        ended = [await place.ended(job.id, "completed") for job in jobs]
    on_loop = face is toromq
    first, second = f"a ran a in {on_loop}", "B ran B in False"
    assert [job.returnvalue for job in ended] == [first, second, f"b ran b in {on_loop}", first, second]


@pytest.mark.parametrize("face", [toromq, toromq.sync])
@pytest.mark.parametrize("names", [("a",), ("A",), ("a", "B")])
async def test_a_job_without_a_processor_for_its_name_fails_and_says_so(
    place: Place, face: Any, names: tuple[str, ...]
) -> None:
    job = await place.queue.add("else", attempts=2)
    async with _started(_named(face, place, *names)):
        ended = await place.ended(job.id, "failed")
    listed = ", ".join(repr(name) for name in names)
    assert ended.failed_reason == f"no processor for jobs named 'else'; this worker has them for {listed}"
    # Another worker of the queue may have one.
    assert ended.attempts_made == 2


@pytest.mark.parametrize("face", [toromq, toromq.sync])
@pytest.mark.parametrize("is_async", [False, True])
async def test_all_other_jobs_go_to_the_workers_own_processor(place: Place, face: Any, is_async: bool) -> None:
    async def coroutine(job: Any) -> str:
        return f"default ran {job.name}"

    def function(job: Any) -> str:
        return f"default ran {job.name}"

    if is_async and face is toromq.sync:
        with pytest.raises(ConfigurationError, match=r"use toromq\.Worker"):
            face.Worker("q", coroutine)
        return
    jobs = await place.queue.add_bulk([(name, None) for name in ("else", "a", "B")])
    worker = _named(face, place, "a", "B", default=coroutine if is_async else function)
    async with _started(worker):
        ended = [await place.ended(job.id, "completed") for job in jobs]
    assert [job.returnvalue.rpartition(" in ")[0] or job.returnvalue for job in ended] == [
        "default ran else", "a ran a", "B ran B",
    ]  # fmt: skip


@pytest.mark.parametrize("face", [toromq, toromq.sync])
async def test_mistakes_with_named_processors_are_refused(place: Place, face: Any) -> None:
    worker = face.Worker("q", **place.options)
    for wrong in (None, 7, lambda job: None):
        with pytest.raises(ConfigurationError, match=r"^name: got .*@worker\.processor\('welcome'\)"):
            worker.processor(wrong)
    with pytest.raises(ConfigurationError, match=r"^processor: got 7; allowed is a function that takes a job"):
        worker.processor("a")(7)
    worker.processor("a")(lambda job: None)
    with pytest.raises(ConfigurationError, match=r"^processor: there is one for jobs named 'a' already"):
        worker.processor("a")(lambda job: None)

    async def coroutine(job: Any) -> None: ...

    if face is toromq.sync:
        with pytest.raises(ConfigurationError, match=r"use toromq\.Worker"):
            worker.processor("b")(coroutine)
    async with _started(worker):
        with pytest.raises(ToroError, match="was started before; give it its processors first"):
            worker.processor("late")(lambda job: None)
    with pytest.raises(ToroError, match="was started before"):
        worker.processor("later")(lambda job: None)


async def test_mixed_processors_share_the_slots_and_are_cancelled_alike(place: Place) -> None:
    worker: Worker[Any, Any] = place.listening(Worker("q", concurrency=2, **place.options))
    running: set[str] = set()

    @worker.processor("coroutine")
    async def coroutine(job: Any) -> None:
        running.add(job.id)
        await asyncio.sleep(_LONG)

    @worker.processor("function")
    def function(job: Any) -> None:
        running.add(job.id)
        job._cancellation.wait(_LONG)
        job.raise_if_cancelled()

    jobs = await place.queue.add_bulk([(name, None) for name in ("function", "coroutine", "function", "coroutine")])
    async with worker:
        await aeventually(lambda: len(running) == 2)
        assert place.redis.llen(place.key("active")) == 2
        for n, job in enumerate(jobs):
            await aeventually(lambda job=job: job.id in running)
            assert await asyncio.to_thread(worker.cancel_job, job.id, str(n))
            assert (await place.ended(job.id, "failed")).failed_reason == str(n)
