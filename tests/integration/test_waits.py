"""Waiting for a job's end, in both faces: how it ends, what all waiters share, what is left behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.support.eventually import aeventually, eventually
from tests.support.waiting import NAME, Desk
from toromq import (
    ConfigurationError,
    Connection,
    JobFailedError,
    JobNotFoundError,
    JobTimeoutError,
    Queue,
    RedisConnectionError,
    SerializationError,
    ToroError,
    Worker,
)
from toromq._bridge import Answer

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox


@pytest.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    """Each face."""
    return request.param


@pytest_asyncio.fixture
async def desk(face: Any, redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> AsyncIterator[Desk]:
    """A queue of each face."""
    made = Desk(face, redisbox.url, prefix, redis)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def other(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> AsyncIterator[Desk]:
    """A queue of the async face alone, where the face makes no difference."""
    made = Desk(toromq, redisbox.url, prefix, redis)
    yield made
    await made.close()


# ==================================================================================================
# HOW IT ENDS
# ==================================================================================================

_RESULTS = [{"sent": True, "to": ["å", 1.5, None]}, [], "", 0, 0.5, False, None, 2**60]


@pytest.mark.parametrize("result", _RESULTS, ids=repr)
async def test_a_result_is_the_same_for_those_who_waited_and_those_who_come_later(desk: Desk, result: Any) -> None:
    job = await desk.jobs.add("n", {})
    waiting = await desk.waiting(job)
    await desk.complete(result)
    for value in (await waiting, await desk.wait(job), await desk.wait(job, 0)):
        assert value == result
        assert type(value) is type(result)


async def test_a_job_is_waited_for_by_its_own_method(desk: Desk) -> None:
    job = await desk.call(desk.queue.add, "n", {})
    waiting = asyncio.ensure_future(desk.call(job.wait_until_finished, timedelta(seconds=30)))
    await aeventually(desk.reads)
    await desk.complete({"a": 1})
    assert await waiting == {"a": 1}
    assert await desk.call(job.wait_until_finished) == {"a": 1}


@pytest.mark.parametrize("later", [False, True], ids=["meanwhile", "before"])
async def test_a_failure_is_raised_with_its_reason(desk: Desk, later: bool) -> None:
    job = await desk.jobs.add("n", {})
    waiting = None if later else await desk.waiting(job)
    await desk.fail('no luck, "åäö"')
    with pytest.raises(JobFailedError) as failure:
        await (waiting or desk.wait(job))
    assert isinstance(failure.value, ToroError)
    assert str(failure.value) == f"job {job.id} of queue 'mail' failed: no luck, \"åäö\""
    seen = failure.value
    assert (seen.job_id, seen.failed_reason, seen.queue_name) == (job.id, 'no luck, "åäö"', "mail")


async def test_a_job_that_is_tried_again_has_not_ended(desk: Desk) -> None:
    job = await desk.jobs.add("n", {}, attempts=3)
    waiting = await desk.waiting(job)
    await desk.fail("first")
    await desk.fail("second")
    with pytest.raises(JobTimeoutError):
        await desk.wait(job, 0)
    await desk.complete("third")
    assert await waiting == "third"


@pytest.mark.parametrize("timeout", [None, 0, 5000])
async def test_a_job_that_never_was_is_not_found(desk: Desk, timeout: int | None) -> None:
    with pytest.raises(JobNotFoundError, match="there is no job none of queue 'mail'") as failure:
        await desk.wait("none", timeout)
    assert failure.value.job_id == "none"


async def test_a_job_that_was_removed_before_is_not_found(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    await desk.jobs.remove(job.id)
    with pytest.raises(JobNotFoundError, match=f"there is no job {job.id} of"):
        await desk.wait(job)


async def test_a_job_that_is_removed_meanwhile_ends_the_wait(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    with pytest.raises(JobTimeoutError):
        await desk.wait(job, 0)
    waiting = await desk.waiting(job)
    await desk.jobs.remove(job.id)
    with pytest.raises(JobNotFoundError, match=f"job {job.id} of queue 'mail' was removed"):
        await waiting


async def test_a_job_that_was_cleaned_away_ends_the_wait(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    # Only what says that jobs were cleaned can end it within this time.
    waiting = await desk.waiting(job, 5000)
    assert await desk.jobs.clean(0, 10, "wait") == [job.id]
    with pytest.raises(JobNotFoundError):
        await waiting


async def test_the_result_of_a_job_that_is_removed_at_its_end_reaches_those_who_waited(desk: Desk) -> None:
    jobs = await desk.jobs.add_bulk([("n", {}, {"remove_on_complete": True, "remove_on_fail": True})] * 2)
    kept = [await desk.waiting(job) for job in jobs for _ in range(2)]
    for task in kept:
        assert not task.done()
    await desk.complete("gone")
    await desk.fail("gone too")
    assert [await task for task in kept[:2]] == ["gone", "gone"]
    for task in kept[2:]:
        with pytest.raises(JobFailedError, match="gone too"):
            await task
    for job in jobs:
        with pytest.raises(JobNotFoundError):
            await desk.wait(job)


async def test_when_the_time_is_up_the_job_goes_on(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    with pytest.raises(TimeoutError, match=f"job {job.id} of queue 'mail' did not end within 30 ms; it goes on") as end:
        await desk.wait(job, timedelta(milliseconds=30))
    assert isinstance(end.value, JobTimeoutError)
    assert (end.value.job_id, end.value.queue_name) == (job.id, "mail")
    assert await desk.jobs.get_job_state(job.id) == "waiting"
    await desk.complete(1)
    assert await desk.wait(job, 30_000) == 1


async def test_a_time_of_zero_only_looks(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    with pytest.raises(JobTimeoutError, match="has not ended; it goes on"):
        await desk.wait(job, 0)
    await desk.complete(1)
    assert await desk.wait(job, 0) == 1


@pytest.mark.parametrize("timeout", [-1, "5", True, float("nan"), timedelta(seconds=-1)])
async def test_a_time_that_is_none_is_refused(desk: Desk, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout: got"):
        await desk.wait("1", timeout)
    with pytest.raises(ConfigurationError, match=r"job_id: got 1\.5"):
        await desk.call(desk.queue.wait_until_finished, 1.5)
    assert desk.readers() == []


@pytest.mark.leaves_keys_broken("a result that is no JSON")
async def test_a_result_that_is_no_json_is_told_and_not_waited_for(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    waiting = await desk.waiting(job)
    await desk.complete(1)
    assert await waiting == 1
    desk.redis.hset(f"{desk.base}{job.id}", "returnvalue", "{oh")
    with pytest.raises(SerializationError, match=f"the result of job {job.id} of queue 'mail' is no JSON"):
        await desk.wait(job)
    second = await desk.jobs.add("n", {})
    waiting = await desk.waiting(second)
    fields: dict[Any, Any] = {"event": "completed", "jobId": second.id, "returnvalue": "undefined"}
    desk.redis.xadd(f"{desk.base}events", fields)
    with pytest.raises(SerializationError):
        await waiting
    desk.redis.hdel(f"{desk.base}{job.id}", "returnvalue")
    assert await desk.wait(job) is None


async def test_a_result_has_the_type_of_the_queue(desk: Desk) -> None:
    typed = desk.face.Queue(NAME, result_type=_Sent, **desk.options)
    jobs = await desk.jobs.add_bulk([("n", n) for n in range(3)])
    waiting = [asyncio.ensure_future(desk.call(typed.wait_until_finished, job.id)) for job in jobs]
    await desk.complete({"to": "å"})
    await desk.complete(None)
    await desk.complete({"from": "å"})
    assert await waiting[0] == _Sent(to="å")
    assert await waiting[1] is None
    with pytest.raises(SerializationError, match=f"the result of job {jobs[2].id} of queue 'mail'"):
        await waiting[2]
    await desk.call(typed.close)


@dataclass
class _Sent:
    to: str


async def test_a_worker_answers_those_who_wait(desk: Desk) -> None:
    async def reply(job: Any) -> Any:
        if job.data % 3 == 0:
            raise ValueError(f"no {job.data}")
        return job.data * 2

    jobs = await desk.jobs.add_bulk([("n", n, {"remove_on_complete": n % 2 == 0}) for n in range(60)])
    waiting = [await desk.waiting(job) for job in jobs]
    async with Worker(NAME, reply, concurrency=7, **desk.options):
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    for n, end in enumerate(ends):
        if n % 3 == 0:
            assert isinstance(end, JobFailedError)
            assert end.failed_reason == f"no {n}"
        else:
            assert end == n * 2


# ==================================================================================================
# WHAT IS SHARED
# ==================================================================================================


async def test_a_thousand_waiters_share_one_connection_and_few_questions(face: Any, desk: Desk) -> None:
    count = 1000 if face is toromq else 100
    jobs = await desk.jobs.add_bulk([("n", n) for n in range(count)])
    before = desk.asked()
    sockets = len(desk.redis.client_list())
    waiting = [desk.wait(job) for job in jobs]
    await aeventually(desk.reads)
    for n in range(count):
        await desk.complete(n)
        assert len(desk.readers()) == 1
    assert await asyncio.gather(*waiting) == list(range(count))
    # The reader, one for its questions, and one for those who end the jobs by hand.
    assert len(desk.redis.client_list()) <= sockets + 3
    # Two scripts a job for taking and ending it, and the questions: of all together who begin at one time; threads
    # begin one after the other. The rest are looks of the reader at its stream.
    assert desk.asked() - before - 2 * count < count * (0.5 if face is toromq else 1.5)


async def test_both_faces_and_all_queues_of_a_process_share_a_reader(
    redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> None:
    desks = [Desk(face, redisbox.url, prefix, redis) for face in (toromq, toromq.sync, toromq)]
    job = await desks[0].jobs.add("n", {})
    waiting = [await desk.waiting(job) for desk in desks]
    assert len(desks[0].readers()) == 1
    # A user who leaves takes nothing from the others.
    await desks[0].close()
    with pytest.raises(ToroError, match="the queue was closed while job"):
        await waiting[0]
    await desks[1].complete("shared")
    assert [await task for task in waiting[1:]] == ["shared"] * 2
    for desk in desks[1:]:
        await desk.close()
    await desks[0].left_alone()


async def test_another_queue_prefix_or_server_has_a_reader_of_its_own(
    redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> None:
    places: list[dict[str, Any]] = [
        {"connection": redisbox.url, "prefix": prefix},
        {"connection": redisbox.url, "prefix": f"{prefix}:more"},
        {"connection": redisbox.unix_url, "prefix": prefix},
        {"connection": Connection(redisbox.url, client_name="web"), "prefix": prefix},
    ]
    queues: list[Queue[Any, Any]] = [Queue(name, **place) for place in places for name in ("mail", "post")]
    jobs = [await queue.add("n", {}) for queue in queues]
    waiting = [asyncio.ensure_future(job.wait_until_finished()) for job in jobs]
    await aeventually(lambda: sum(client["name"].endswith(":qe") for client in redis.client_list()) == len(queues))
    for queue in queues:
        await queue.close()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, ToroError) for end in ends)


async def test_a_reader_stays_for_a_moment_and_serves_the_next(other: Desk) -> None:
    readers = set()
    for n in range(3):
        job = await other.jobs.add("n", {})
        waiting = await other.waiting(job)
        await other.complete(n)
        assert await waiting == n
        readers |= {client["id"] for client in other.readers()}
    assert len(readers) == 1
    await other.left_alone()
    job = await other.jobs.add("n", {})
    waiting = await other.waiting(job)
    await other.complete("again")
    assert await waiting == "again"


# ==================================================================================================
# WHAT IS LEFT BEHIND
# ==================================================================================================


async def test_a_closed_queue_ends_its_waits_and_closes_the_reader(desk: Desk) -> None:
    job = await desk.jobs.add("n", {})
    waiting = [await desk.waiting(job) for _ in range(3)]
    await desk.call(desk.queue.close)
    for task in waiting:
        with pytest.raises(ToroError, match=f"the queue was closed while job {job.id} was waited for"):
            await task
    await desk.left_alone()
    # As everything of a closed queue, it begins anew when it is used.
    again = await desk.waiting(job)
    await desk.complete(1)
    assert await again == 1


def _answers() -> int:
    """How many somebody waits for, or still holds."""
    gc.collect()
    return sum(isinstance(thing, Answer) for thing in gc.get_objects())


async def test_a_cancelled_wait_leaves_nothing_behind(other: Desk) -> None:
    before = _answers()
    jobs = await other.jobs.add_bulk([("n", n) for n in range(200)])
    waiting = [await other.waiting(job) for job in jobs]
    for task in waiting:
        task.cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    del waiting, ends, task
    assert _answers() == before
    await other.left_alone()


async def test_one_cancelled_wait_is_no_concern_of_the_others(other: Desk) -> None:
    job = await other.jobs.add("n", {})
    waiting = [await other.waiting(job) for _ in range(3)]
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    async with asyncio.timeout(30):
        await other.complete("for two")
        assert [await waiting[0], await waiting[2]] == ["for two"] * 2


async def test_asyncios_own_time_limit_ends_a_wait(other: Desk) -> None:
    job = await other.jobs.add("n", {})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(job.wait_until_finished(), 0.05)
    await other.left_alone()


def test_a_blocking_wait_hears_ctrl_c(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> None:
    with toromq.sync.Queue(NAME, connection=redisbox.url, prefix=prefix) as queue:
        job = queue.add("n", {})

        def reads() -> bool:
            return any(client["name"].endswith(":qe") for client in redis.client_list())

        def interrupt() -> None:
            eventually(reads)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            job.wait_until_finished()
        thread.join()
        # The queue is still in use, so it can only be the wait that let go.
        eventually(lambda: not reads(), 20)
        with pytest.raises(toromq.JobTimeoutError):
            job.wait_until_finished(10)


def test_a_loop_that_ends_takes_its_waits_along(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> None:
    connection = Connection(redisbox.url)
    queue: Queue[Any, Any] = Queue(NAME, connection=connection, prefix=prefix)

    def reads() -> bool:
        return any(client["name"].endswith(":qe") for client in redis.client_list())

    async def begin() -> asyncio.Task[Any]:
        job = await queue.add("n", {})
        task = asyncio.ensure_future(job.wait_until_finished())
        await aeventually(reads)
        return task

    # Closed by asyncio.run, which cancels what is left.
    asyncio.run(begin())  # type: ignore[arg-type]
    eventually(lambda: not reads(), 20)
    # And by hand, which doesn't.
    loop = asyncio.new_event_loop()
    task: Any = loop.run_until_complete(begin())
    loop.close()
    # Nobody hears that it was never finished: it is said to the loop's handler, which says it to the log.
    task._log_destroy_pending = False
    del task, loop
    gc.collect()
    eventually(lambda: not reads(), 20)
    asyncio.run(queue.close())


# ==================================================================================================
# WITHOUT REDIS, AND WITH ONE THAT REFUSES
# ==================================================================================================


async def test_a_wait_that_can_not_begin_is_given_up(face: Any) -> None:
    connection = Connection("redis://127.0.0.1:1", command_timeout=300)
    queue = face.Queue(NAME, connection=connection)
    with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1"):
        await _done(face, queue.wait_until_finished, "1")
    with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1"):
        await _done(face, queue.wait_until_finished, "1", 60_000)
    with pytest.raises(JobTimeoutError):
        await _done(face, queue.wait_until_finished, "1", 50)
    await _done(face, queue.close)


async def _done(face: Any, operation: Any, *arguments: Any) -> Any:
    if face is toromq:
        return await operation(*arguments)
    return await asyncio.to_thread(operation, *arguments)


@pytest.mark.leaves_keys_broken("a key of another type")
async def test_a_stream_that_is_none_is_told(desk: Desk) -> None:
    desk.redis.set(f"{desk.base}events", "x")
    with pytest.raises(ToroError, match="WRONGTYPE"):
        await desk.wait("1")


@pytest.mark.parametrize("refused", ["xread", "xinfo|stream"])
async def test_what_the_server_refuses_is_told(
    face: Any, redisbox: RedisBox, redis: redispy.Redis, prefix: str, refused: str
) -> None:
    user = f"u{prefix}"
    redis.acl_setuser(user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=[f"-{refused}"])
    desk = Desk(face, redisbox.url.replace("//", f"//{user}:any@"), prefix, redis)
    try:
        job = await desk.jobs.add("n", {})
        with pytest.raises(ToroError, match=r"NOPERM|ermission"):
            await desk.wait(job)
    finally:
        await desk.close()
        redis.acl_deluser(user)
