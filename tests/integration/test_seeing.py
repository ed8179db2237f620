"""What can be seen of jobs, in both faces; and what listeners hear of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, JobNotFoundError, Queue, ToroError, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
_STATES = ("active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children")
_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])
_all_kinds = pytest.mark.parametrize("kind", _KINDS)


class Place:
    """A queue of its own, and workers for it of each kind."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis = client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format

    def worker(self, kind: str, **options: Any) -> Any:
        """A worker whose jobs report progress and do what their data says."""

        def end(job: Any) -> str:
            if job.data == "fail":
                raise ValueError("why")
            return f"{job.data} done"

        async def coroutine(job: Any) -> str:
            await job.update_progress(50)
            return end(job)

        def function(job: Any) -> str:
            job.update_progress(50)
            return end(job)

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        return module.Worker("q", coroutine if kind == "async def" else function, **self.options, **options)

    async def ended(self, *jobs: Any) -> None:
        """Returns when all of them have ended."""

        async def all_ended() -> bool:
            return {await self.queue.get_job_state(job.id) for job in jobs} <= {"completed", "failed"}

        await aeventually(all_ended)  # type: ignore[arg-type]

    async def one_in_each_state(self) -> dict[str, list[str]]:
        """Three waiting jobs and two in each other state; gives their ids, oldest first."""
        ids: dict[str, list[str]] = {state: [] for state in _STATES}
        for _ in range(2):
            for state in ("active", "completed", "failed"):
                ids[state].append((await self.queue.add("n", "fail" if state == "failed" else "x")).id)
                hand: Worker[Any, Any] = Worker("q", **self.options)
                job = await hand.get_next_job(state, block=False)
                assert job is not None
                if state == "completed":
                    await job.move_to_completed("done", state, fetch_next=False)
                elif state == "failed":
                    await job.move_to_failed(ValueError("why"), state, fetch_next=False)
        ids["waiting"] = [job.id for job in await self.queue.add_bulk([("n", n) for n in range(3)])]
        for n in range(2):
            ids["delayed"].append((await self.queue.add("n", delay=3_600_000 + n)).id)
            ids["prioritized"].append((await self.queue.add("n", priority=n + 1)).id)
        return ids


async def _call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a method of either face."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


@contextlib.asynccontextmanager
async def _started(worker: Any) -> AsyncIterator[Any]:
    is_async = hasattr(worker, "__aenter__")
    await _call(worker.__aenter__ if is_async else worker.__enter__)
    try:
        yield worker
    finally:
        await _call(worker.close)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


# --- jobs -------------------------------------------------------------------------------------------------------------


@_both_faces
async def test_counts_states_and_jobs_agree(place: Place, face: Any) -> None:
    ids = await place.one_in_each_state()
    queue = face.Queue("q", **place.options)
    assert await _call(queue.get_job_counts) == {state: len(ids[state]) for state in _STATES}
    assert await _call(queue.get_job_counts, "failed", "wait") == {"failed": 2, "waiting": 3}
    for state, expected in ids.items():
        assert [job.id for job in await _call(queue.get_jobs, state, asc=True)] == expected
        assert [job.id for job in await _call(queue.get_jobs, state)] == expected[::-1]
        for job_id in expected:
            assert await _call(queue.get_job_state, job_id) == state
            job = await _call(queue.get_job, job_id)
            assert isinstance(job, face.Job)
            assert await _call(job.get_state) == state
    assert len(await _call(queue.get_jobs)) == sum(map(len, ids.values()))
    both = await _call(queue.get_jobs, ["failed", "completed"], asc=True)
    assert [job.id for job in both] == ids["failed"] + ids["completed"]
    assert await _call(queue.get_job_state, "no such job") == "unknown"
    assert await _call(queue.get_job, "no such job") is None


@_both_faces
@pytest.mark.parametrize("state", ["waiting", "delayed", "prioritized"])
@pytest.mark.parametrize(
    ("start", "end", "oldest_first"),
    [
        (0, 0, "0"),
        (0, 1, "01"),
        (2, 3, "23"),
        (3, 9, "34"),
        (0, -1, "01234"),
        (1, -2, "123"),
        (-2, -1, "34"),
        (7, 9, ""),
    ],
)
async def test_ranges_count_from_the_end_they_are_read_from(
    place: Place, face: Any, state: str, start: int, end: int, oldest_first: str
) -> None:
    options: dict[str, Any] = {"delayed": {"delay": 3_600_000}, "prioritized": {"priority": 1}}.get(state, {})
    # One by one, since jobs that are added together may share a score.
    for n in range(5):
        await place.queue.add("n", n, **options)
    queue = face.Queue("q", **place.options)
    found = await _call(queue.get_jobs, state, start, end, True)
    assert "".join(str(job.data) for job in found) == oldest_first
    found = await _call(queue.get_jobs, state, start, end)
    assert "".join(str(4 - job.data) for job in found) == oldest_first


@_both_faces
async def test_a_job_shows_all_that_is_stored_of_it(place: Place, face: Any) -> None:
    added = await place.queue.add("name", {"to": "x"}, priority=3, attempts=2, timestamp=1_000_000, keep_logs=2)
    async with _started(place.worker("async def", name="w-1")):
        await place.ended(added)
    queue = face.Queue("q", **place.options)
    job = await _call(queue.get_job, added.id)
    assert (job.name, job.data, job.queue_name, job.id) == ("name", {"to": "x"}, "q", added.id)
    assert (job.timestamp, job.delay, job.priority, job.progress) == (1_000_000, 0, 3, 50)
    assert (job.opts["attempts"], job.opts["kl"], job.opts["priority"]) == (2, 2, 3)
    assert (job.attempts_made, job.attempts_started, job.stalled_counter) == (1, 1, 0)
    assert (job.returnvalue, job.failed_reason, job.stacktrace) == ("{'to': 'x'} done", None, [])
    assert (job.processed_by, job.parent, job.parent_key, job.deferred_failure) == ("w-1", None, None, None)
    assert job.timestamp < job.processed_on <= job.finished_on
    assert "{" not in repr(job)


@_both_faces
async def test_logs_are_kept_in_order_and_cut(place: Place, face: Any) -> None:
    added = await place.queue.add("n", keep_logs=3)
    queue = face.Queue("q", **place.options)
    job = await _call(queue.get_job, added.id)
    assert [await _call(job.log, f"line {n}") for n in range(5)] == [1, 2, 3, 3, 3]
    assert await _call(queue.get_job_logs, job.id) == (["line 2", "line 3", "line 4"], 3)
    assert await _call(queue.get_job_logs, job.id, 0, 1) == (["line 2", "line 3"], 3)
    assert (await _call(queue.get_job_logs, job.id, 0, 1, asc=False)).logs == ["line 4", "line 3"]
    assert await _call(queue.add_job_log, job.id, "last", 1) == 1
    assert await _call(queue.get_job_logs, job.id) == (["last"], 1)
    assert await _call(queue.get_job_logs, "no such job") == ([], 0)


@_both_faces
async def test_progress_and_data_are_stored_and_read_back(place: Place, face: Any) -> None:
    added = await place.queue.add("n", {"step": 1})
    queue = face.Queue("q", **place.options)
    job = await _call(queue.get_job, added.id)
    assert (job.data, job.progress) == ({"step": 1}, 0)
    await _call(job.update_data, {"step": 2})
    await _call(job.update_progress, "half")
    assert (job.data, job.progress) == ({"step": 2}, "half")
    await _call(queue.update_job_progress, added.id, {"of": [1, 2]})
    again = await _call(queue.get_job, added.id)
    assert (again.data, again.progress) == ({"step": 2}, {"of": [1, 2]})
    with pytest.raises(toromq.SerializationError, match=r"^progress\.of: "):
        await _call(job.update_progress, {"of": object()})


@_both_faces
@pytest.mark.parametrize("change", ["update_data", "update_progress", "log", "update_job_progress", "add_job_log"])
async def test_changing_a_job_that_is_gone_is_refused(place: Place, face: Any, change: str) -> None:
    added = await place.queue.add("n")
    queue = face.Queue("q", **place.options)
    job = await _call(queue.get_job, added.id)
    place.redis.delete(place.key(added.id))
    place.redis.delete(place.key("wait"))
    of_queue = "_job_" in change
    call = functools.partial(getattr(queue, change), added.id) if of_queue else getattr(job, change)
    with pytest.raises(JobNotFoundError, match=f"of job {added.id}: ") as caught:
        await _call(call, "x")
    assert (caught.value.code, caught.value.job_id) == (-1, added.id)
    assert place.redis.keys(place.key(f"{added.id}*")) == []


# --- listeners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("are_async", [False, True], ids=["plain listeners", "async listeners"])
@_all_kinds
async def test_listeners_hear_of_everything(place: Place, kind: str, are_async: bool) -> None:
    if are_async and kind == "def, blocking worker":
        with pytest.raises(ConfigurationError, match=r"use toromq\.Worker"):
            place.worker(kind).on("completed", _call)
        return
    heard: dict[str, list[tuple[Any, ...]]] = {}
    worker = place.worker(kind)
    for event in ("active", "completed", "failed", "progress", "drained", "paused", "resumed", "ready", "closing",
                  "closed", "error", "stalled", "lock_lost"):  # fmt: skip

        def listener(*arguments: Any, event: str = event) -> None:
            heard.setdefault(event, []).append(arguments)

        async def later(*arguments: Any, event: str = event) -> None:
            await asyncio.sleep(0)
            heard.setdefault(event, []).append(arguments)

        worker.on(event, later if are_async else listener)
    jobs = await place.queue.add_bulk([("n", "ok"), ("n", "fail")])
    async with _started(worker):
        await place.ended(*jobs)
        await aeventually(lambda: "drained" in heard)
        await _call(worker.pause)
        await _call(worker.resume)
    await aeventually(lambda: "closed" in heard)
    assert {event: len(calls) for event, calls in heard.items()} == {
        "ready": 1, "active": 2, "progress": 2, "completed": 1, "failed": 1, "drained": 1, "paused": 1, "resumed": 1,
        "closing": 1, "closed": 1,
    }  # fmt: skip
    assert [job.id for (job,) in heard["active"]] == [job.id for job in jobs]
    assert [(job.id, progress) for job, progress in heard["progress"]] == [(job.id, 50) for job in jobs]
    ((completed, result),) = heard["completed"]
    ((failed, error),) = heard["failed"]
    assert (completed.id, result) == (jobs[0].id, "ok done")
    assert (failed.id, type(error), str(error), failed.attempts_made) == (jobs[1].id, ValueError, "why", 1)
    assert failed.failed_reason == "why"
    # A listener gets the kind of job that its own face has.
    module: Any = toromq.sync if kind == "def, blocking worker" else toromq
    assert {type(call[0]) for event in ("active", "progress", "completed", "failed") for call in heard[event]} == {
        module.Job
    }
    assert [heard[event] for event in ("ready", "drained", "paused", "resumed", "closed")] == [[()]] * 5


@_both_faces
async def test_listeners_come_and_go(redisbox: RedisBox, face: Any) -> None:
    worker = face.Worker("q", connection=redisbox.url)
    heard: list[str] = []

    @worker.on("paused")  # type: ignore[untyped-decorator]
    def decorated() -> None:
        heard.append("decorated")

    plain = worker.on("paused", lambda: heard.append("plain"))
    once = worker.once("paused", lambda: heard.append("once"))
    assert callable(decorated)
    assert callable(once)
    await _call(worker.pause)
    assert heard == ["decorated", "plain", "once"]
    await _call(worker.pause)
    worker.off("paused", plain)
    worker.off("paused", plain)  # Twice is harmless
    await _call(worker.pause)
    assert heard[3:] == ["decorated", "plain", "decorated"]


@_both_faces
async def test_a_listener_for_one_event_can_be_taken_off_before(redisbox: RedisBox, face: Any) -> None:
    worker = face.Worker("q", connection=redisbox.url)
    heard: list[str] = []
    worker.off("paused", worker.once("paused", lambda: heard.append("once")))
    await _call(worker.pause)
    assert heard == []


@_both_faces
def test_unknown_events_and_what_is_no_listener_are_refused(redisbox: RedisBox, face: Any) -> None:
    worker = face.Worker("q", connection=redisbox.url)
    for add in (worker.on, worker.once):
        with pytest.raises(ConfigurationError, match=r"^event: got 'complete'; allowed are active, .*completed"):
            add("complete", lambda: None)
        with pytest.raises(ConfigurationError, match=r"^listener: got 7"):
            add("completed", 7)


@_all_kinds
async def test_a_listener_that_raises_is_logged_and_harms_nothing(
    place: Place, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    worker = place.worker(kind)

    def broken(*arguments: Any) -> None:
        raise LookupError("broken listener")

    async def broken_later(*arguments: Any) -> None:
        raise LookupError("broken listener")

    events = ("active", "progress", "completed", "failed")
    for event in events:
        worker.on(event, broken if kind == "def, blocking worker" else broken_later)
        worker.on(event, broken)
        worker.on(event, lambda *_, event=event: heard.append(event))
    jobs = await place.queue.add_bulk([("n", "ok"), ("n", "fail")])
    async with _started(worker):
        await place.ended(*jobs)
        await aeventually(lambda: set(heard) == set(events))
    assert await place.queue.get_job_counts("completed", "failed") == {"completed": 1, "failed": 1}
    await aeventually(lambda: len(caplog.records) == 12)  # Of two jobs: three events, two broken listeners each
    assert {(record.name, record.levelno) for record in caplog.records} == {("toromq", logging.ERROR)}
    assert all("LookupError: broken listener" in str(record.exc_text) for record in caplog.records)
    assert all(sum(f"a listener for {event} " in r.message for r in caplog.records) >= 2 for event in events)


@pytest.mark.leaves_keys_broken("a key that is no job is how a worker gets an error")
@_all_kinds
async def test_an_error_without_listener_is_logged(place: Place, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    place.redis.set(place.key("wrong"), "text")
    place.redis.rpush(place.key("wait"), "wrong")
    async with _started(place.worker(kind)):
        await aeventually(lambda: len(caplog.records) == 1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("toromq", logging.ERROR)
    assert record.message.startswith("worker of q: the key of waiting job wrong")


# In a process of its own, because it may never end.
_CLOSES_IN_A_LISTENER = """
import sys, toromq, toromq.sync
url, prefix = sys.argv[1:]
toromq.sync.Queue("q", connection=url, prefix=prefix).add("n")
worker = toromq.sync.Worker("q", lambda job: None, connection=url, prefix=prefix)
worker.on("completed", lambda job, result: worker.close())
worker.run()
"""


async def test_a_listener_of_a_blocking_worker_can_close_it(place: Place) -> None:
    arguments = [_CLOSES_IN_A_LISTENER, place.options["connection"], place.options["prefix"]]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", *arguments)
    try:
        assert await asyncio.wait_for(process.wait(), 5) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_an_async_listener_can_close_its_worker(place: Place) -> None:
    job = await place.queue.add("n", "ok")
    worker = place.worker("async def")

    @worker.on("completed")  # type: ignore[untyped-decorator]
    async def completed(job: Any, result: Any) -> None:
        await worker.close()

    assert inspect.iscoroutinefunction(completed)
    await asyncio.wait_for(worker.run(), 20)
    assert await job.get_state() == "completed"


@_both_faces
def test_the_same_error_is_logged_once_in_a_while(
    redisbox: RedisBox, face: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("toromq._listeners.time.monotonic", lambda: now)
    worker = face.Worker("q", connection=redisbox.url)
    for error in ("away", "away", "refused", "away"):
        worker._tell("error", ToroError(error))
    now += 10
    worker._tell("error", ToroError("away"))
    assert [record.message.split(": ")[1] for record in caplog.records] == ["away", "refused", "away"]
