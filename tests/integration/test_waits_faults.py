"""Waiting for a job's end while everything goes wrong: in an awkward order, without Redis, with events that are lost.

Where a job is removed when it ends, only its event can tell what it returned: such a result proves that no event went
unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.holding_proxy import HoldingProxy
from tests.support.invariants import check_invariants
from tests.support.redisbox import RedisBox
from tests.support.waiting import NAME, Desk
from toromq import JobFailedError, JobNotFoundError, JobTimeoutError, RedisConnectionError, Worker

if TYPE_CHECKING:
    import redis as redispy

_PREFIX = "waits"
# Shorter than the time after which all jobs are asked for in any case.
_SOON = 6000


@pytest.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    """Each face."""
    return request.param


@pytest_asyncio.fixture
async def desk(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> AsyncIterator[Desk]:
    """A queue on the shared server."""
    made = Desk(toromq, redisbox.url, prefix, redis)
    yield made
    await made.close()


@pytest.fixture
def proxy(redisbox: RedisBox) -> Iterator[HoldingProxy]:
    """A proxy before the shared server."""
    with HoldingProxy(redisbox.socket_path) as started:
        yield started


@pytest_asyncio.fixture
async def held(proxy: HoldingProxy, redis: redispy.Redis, prefix: str) -> AsyncIterator[Desk]:
    """A queue through the proxy, with a reader that reads already; its jobs are ended past the proxy."""
    made = Desk(toromq, proxy.url, prefix, redis)
    made.options["connection"] = toromq.Connection(proxy.url)
    # It keeps the reader.
    job = await made.jobs.add("never", {}, delay=3_600_000)
    keeper = await made.waiting(job)
    await aeventually(made.reads)
    yield made
    for kind in ("events", "other"):
        proxy.let_go(kind)  # type: ignore[arg-type]
    keeper.cancel()
    await made.close()


@pytest_asyncio.fixture
async def direct(redisbox: RedisBox, redis: redispy.Redis, prefix: str) -> AsyncIterator[Desk]:
    """The same queue without the proxy."""
    made = Desk(toromq, redisbox.url, prefix, redis)
    yield made
    await made.close()


# ==================================================================================================
# ORDER
# ==================================================================================================


class TestOrder:
    async def test_the_event_comes_after_the_answer(self, proxy: HoldingProxy, held: Desk, direct: Desk) -> None:
        job = await direct.jobs.add("n", {}, remove_on_complete=True)
        waiting = await held.waiting(job)
        proxy.hold("events", told=True)
        await direct.complete("late")
        await aeventually(lambda: proxy.held("events", "told") > 0)
        assert not waiting.done()
        proxy.let_go("events")
        assert await waiting == "late"

    async def test_the_event_comes_before_the_answer(self, proxy: HoldingProxy, held: Desk, direct: Desk) -> None:
        job = await direct.jobs.add("n", {}, remove_on_complete=True)
        proxy.hold("other", said=True)
        waiting = held.wait(job)
        await aeventually(lambda: proxy.held("other", "said") > 0)
        # The question did not get through, so it will find nothing.
        await direct.complete("early")
        await aeventually(held.reads)
        proxy.let_go("other")
        assert await waiting == "early"

    async def test_the_question_finds_nothing_and_the_event_is_still_to_come(
        self, proxy: HoldingProxy, held: Desk, direct: Desk
    ) -> None:
        job = await direct.jobs.add("n", {}, remove_on_complete=True)
        proxy.hold("other", said=True)
        waiting = held.wait(job)
        await aeventually(lambda: proxy.held("other", "said") > 0)
        proxy.hold("events", told=True)
        await direct.complete("on its way")
        await aeventually(lambda: proxy.held("events", "told") > 0)
        proxy.let_go("other")
        # Answered by now, as this comes after it on the same connection.
        assert await held.jobs.get_job(job.id) is None
        assert not waiting.done()
        proxy.let_go("events")
        assert await waiting == "on its way"

    @pytest.mark.parametrize("known", [False, True], ids=["the first wait", "a second wait"])
    async def test_the_failure_of_an_earlier_run_is_no_end_of_a_later_one(
        self, proxy: HoldingProxy, held: Desk, direct: Desk, known: bool
    ) -> None:
        job = await direct.jobs.add("n", {}, remove_on_complete=True)
        proxy.hold("events", told=True)
        await direct.fail("the first time")
        await aeventually(lambda: proxy.held("events", "told") > 0)
        if known:
            with pytest.raises(JobFailedError):
                await held.wait(job)
        failed = await direct.jobs.get_job(job.id)
        assert failed is not None
        await failed.retry()
        waiting = await held.waiting(job)
        # The news of the failure comes now, after the answer that the job waits again.
        proxy.let_go("events")
        await direct.complete("the second time")
        assert await waiting == "the second time"

    async def test_it_ends_while_the_first_reader_is_on_its_way(self, proxy: HoldingProxy, direct: Desk) -> None:
        held = Desk(toromq, proxy.url, direct.options["prefix"], direct.redis)
        first, second = await direct.jobs.add_bulk([("n", {}), ("n", {}, {"remove_on_complete": True})])
        proxy.hold("events", told=True)
        waiting = [held.wait(first), held.wait(second)]
        await aeventually(lambda: proxy.held("events", "told") > 0)
        await direct.complete("kept")
        proxy.let_go("events")
        assert await waiting[0] == "kept"
        await direct.complete("removed")
        assert await waiting[1] == "removed"
        await held.close()

    async def test_a_thousand_jobs_end_while_their_waits_begin(self, desk: Desk) -> None:
        async def echo(job: Any) -> Any:
            return job.data

        async with Worker(NAME, echo, concurrency=20, **desk.options):
            for _ in range(5):
                jobs = await desk.jobs.add_bulk([("n", n) for n in range(200)])
                begun = []
                for job in jobs:
                    begun.append(desk.wait(job))
                    if len(begun) % 10 == 0:
                        await asyncio.sleep(0)
                assert await asyncio.gather(*begun) == list(range(200))


# ==================================================================================================
# CONNECTIONS THAT BREAK
# ==================================================================================================


def _finish(desk: Desk, pipe: Any, job_id: str, value: str) -> None:
    """A waiting job completes and is removed."""
    pipe.lrem(f"{desk.base}wait", 0, job_id)
    pipe.delete(f"{desk.base}{job_id}")
    pipe.xadd(f"{desk.base}events", {"event": "completed", "jobId": job_id, "returnvalue": value})


class TestBrokenConnections:
    async def test_what_happened_while_the_reader_was_away_is_read_when_it_is_back(self, desk: Desk) -> None:
        jobs = await desk.jobs.add_bulk([("n", n) for n in range(2500)])
        waiting = [desk.wait(job) for job in jobs]
        with pytest.raises(JobTimeoutError):
            await desk.wait(jobs[-1], 0)
        for part in range(5):
            await aeventually(desk.reads)
            (reader,) = desk.readers()
            # All at one moment: the reader can't be back in between.
            pipe = desk.redis.pipeline(transaction=True)
            pipe.client_kill_filter(_id=reader["id"])
            for n in range(part, 2500, 5):
                _finish(desk, pipe, jobs[n].id, str(n))
            pipe.execute()
        assert await asyncio.gather(*waiting) == list(range(2500))

    async def test_a_job_that_vanished_while_the_reader_was_away_is_missed_when_it_is_back(self, desk: Desk) -> None:
        job = await desk.jobs.add("n", {})
        waiting = await desk.waiting(job, _SOON)
        await aeventually(desk.reads)
        (reader,) = desk.readers()
        pipe = desk.redis.pipeline(transaction=True)
        pipe.client_kill_filter(_id=reader["id"])
        # As on a server that lost its last writes: no event tells of it, nor is one missing.
        pipe.lrem(f"{desk.base}wait", 0, job.id)
        pipe.delete(f"{desk.base}{job.id}")
        pipe.execute()
        with pytest.raises(JobNotFoundError, match="was removed while it was waited for"):
            await waiting

    async def test_every_connection_is_cut_again_and_again(self, desk: Desk) -> None:
        async def echo(job: Any) -> Any:
            return job.data

        async def cut() -> None:
            while True:
                await asyncio.sleep(0.05)
                names = (f"{desk.options['prefix']}:", "waited")
                for client in desk.redis.client_list():
                    if client["name"].startswith(names):
                        desk.redis.client_kill_filter(_id=client["id"])

        connection = toromq.Connection(_url(desk), client_name="waited")
        queue: toromq.Queue[Any, Any] = toromq.Queue(NAME, connection=connection, prefix=desk.options["prefix"])
        cutting = asyncio.ensure_future(cut())
        async with queue, Worker(NAME, echo, concurrency=5, **desk.options):
            for round in range(10):
                jobs = await desk.jobs.add_bulk([("n", n, {"delay": 50}) for n in range(30)])
                ends = await asyncio.gather(*(queue.wait_until_finished(job.id) for job in jobs))
                assert ends == list(range(30)), f"round {round}"
        cutting.cancel()

    async def test_a_connection_that_falls_silent_is_replaced(
        self, proxy: HoldingProxy, held: Desk, direct: Desk
    ) -> None:
        job = await direct.jobs.add("n", {}, remove_on_complete=True)
        waiting = await held.waiting(job)
        proxy.hold("events", told=True, said=True)
        (silent,) = held.readers()
        await direct.complete("unheard")
        await aeventually(lambda: silent["id"] not in {client["id"] for client in held.readers()}, 30)
        proxy.let_go("events")
        assert await waiting == "unheard"


def _url(desk: Desk) -> str:
    options = desk.redis.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}"


# ==================================================================================================
# A SERVER THAT DIES
# ==================================================================================================


class TestServer:
    @pytest.mark.parametrize("times", [1, 3])
    async def test_a_thousand_waiters_outlive_a_server_that_is_killed(self, face: Any, times: int) -> None:
        async def echo(job: Any) -> Any:
            return job.data

        count = 1000 if face is toromq else 100
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            desk = Desk(face, box.url, _PREFIX, box.client())
            jobs = await desk.jobs.add_bulk([("n", n) for n in range(count)])
            waiting = [desk.wait(job) for job in jobs]
            for number in range(times):
                await aeventually(desk.reads)
                box.restart(kill=True)
                async with Worker(NAME, echo, concurrency=10, **desk.options):
                    for job in jobs[number::times]:
                        assert await desk.jobs.wait_until_finished(job.id) == job.data
            assert await asyncio.gather(*waiting) == list(range(count))
            await aeventually(desk.reads)
            assert check_invariants(box.client(), _PREFIX) == []
            await desk.close()

    async def test_a_server_that_comes_back_without_the_jobs_ends_the_waits(self, face: Any) -> None:
        with RedisBox() as box:
            desk = Desk(face, box.url, _PREFIX, box.client())
            jobs = await desk.jobs.add_bulk([("n", n) for n in range(100)])
            waiting = [desk.wait(job) for job in jobs]
            await desk.waiting(jobs[0], 0)
            await aeventually(desk.reads)
            box.restart(kill=True)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ends] == [JobNotFoundError] * 100
            # And the reader reads what the new server says.
            job = await desk.jobs.add("n", {}, remove_on_complete=True)
            waiting = [await desk.waiting(job)]
            await desk.complete("new")
            assert await waiting[0] == "new"
            await desk.close()

    async def test_a_wait_that_has_begun_goes_on_while_redis_is_away(self, face: Any) -> None:
        with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
            desk = Desk(face, f"{box.url}", _PREFIX, box.client())
            desk.options["connection"] = connection = toromq.Connection(box.url, command_timeout=200)
            desk.queue = face.Queue(NAME, connection=connection, prefix=_PREFIX)
            job = await desk.jobs.add("n", {})
            waiting = await desk.waiting(job)
            limited = await desk.waiting(job, 600)
            box.kill()
            with pytest.raises(RedisConnectionError):
                await desk.wait(job)
            with pytest.raises(JobTimeoutError):
                await limited
            assert not waiting.done()
            box.start()
            await desk.complete("after all")
            assert await waiting == "after all"
            await desk.close()

    async def test_a_server_that_hangs_is_waited_for(self, face: Any) -> None:
        with RedisBox() as box:
            desk = Desk(face, box.url, _PREFIX, box.client())
            job = await desk.jobs.add("n", {}, remove_on_complete=True)
            waiting = await desk.waiting(job)
            box.pause()
            limited = desk.wait(job, 300)
            with pytest.raises(JobTimeoutError):
                await limited
            box.unpause()
            await desk.complete("awake")
            assert await waiting == "awake"
            await desk.close()


# ==================================================================================================
# EVENTS THAT ARE LOST
# ==================================================================================================


class TestLostEvents:
    async def test_an_event_that_was_trimmed_before_it_was_read_is_noticed_with_the_next(self, desk: Desk) -> None:
        first, second, third = await desk.jobs.add_bulk([("n", n) for n in range(3)])
        waiting = [await desk.waiting(job, _SOON) for job in (first, second)]
        pipe = desk.redis.pipeline(transaction=True)
        for n, job in enumerate((first, second)):
            pipe.lrem(f"{desk.base}wait", 0, job.id)
            pipe.hset(f"{desk.base}{job.id}", mapping={"returnvalue": n, "finishedOn": 1, "atm": 1, "ats": 1})
            pipe.zadd(f"{desk.base}completed", {job.id: 1})
            pipe.xadd(f"{desk.base}events", {"event": "completed", "jobId": job.id, "returnvalue": n})
        pipe.xtrim(f"{desk.base}events", 0, approximate=False)
        pipe.xadd(f"{desk.base}events", {"event": "waiting", "jobId": third.id})
        pipe.execute()
        assert [await task for task in waiting] == [0, 1]

    async def test_a_stream_that_keeps_nothing_loses_events_but_no_waiter(self, desk: Desk) -> None:
        async def echo(job: Any) -> Any:
            return job.data

        desk.redis.hset(f"{desk.base}meta", "opts.maxLenEvents", 0)
        jobs = await desk.jobs.add_bulk([("n", n) for n in range(300)])
        waiting = [desk.wait(job) for job in jobs]
        await desk.waiting(jobs[0], 0)
        async with Worker(NAME, echo, concurrency=50, **desk.options):
            assert await asyncio.gather(*waiting) == list(range(300))

    async def test_a_stream_that_is_deleted_and_begun_anew_is_followed(self, desk: Desk) -> None:
        job, gone = await desk.jobs.add_bulk([("n", {}), ("n", {}, {"remove_on_complete": True})])
        waiting = await desk.waiting(gone, _SOON)
        other = await desk.waiting(job, _SOON)
        pipe = desk.redis.pipeline(transaction=True)
        pipe.delete(f"{desk.base}events", f"{desk.base}{gone.id}")
        pipe.lrem(f"{desk.base}wait", 0, gone.id)
        pipe.execute()
        # Its first event wakes the reader, which sees that it is another stream.
        await desk.complete("in the new one")
        assert await other == "in the new one"
        with pytest.raises(JobNotFoundError):
            await waiting

    async def test_a_queue_that_is_obliterated_ends_the_waits(self, face: Any, redisbox: RedisBox, prefix: str) -> None:
        desk = Desk(face, redisbox.url, prefix, redisbox.client())
        jobs = await desk.jobs.add_bulk([("n", n) for n in range(50)])
        waiting = [desk.wait(job) for job in jobs]
        await desk.waiting(jobs[0], 0)
        await desk.jobs.obliterate()
        # No event says so, and the stream is gone: the next look of a reader that heard nothing finds out.
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [JobNotFoundError] * 50
        await desk.close()

    async def test_a_stream_whose_ids_go_back_is_followed_again(self, desk: Desk) -> None:
        key = f"{desk.base}events"
        desk.redis.xadd(key, {"event": "x"}, id=f"{2**60}-0")
        job = await desk.jobs.add("n", {}, remove_on_complete=True)
        waiting = await desk.waiting(job)
        await aeventually(desk.reads)
        pipe = desk.redis.pipeline(transaction=True)
        pipe.delete(key)
        pipe.xadd(key, {"event": "x"}, id="5-0")
        pipe.execute()
        # Not heard of until the reader has looked; then again at once.
        await desk.complete("unheard")
        with pytest.raises(JobNotFoundError):
            await waiting
        job = await desk.jobs.add("n", {}, remove_on_complete=True)
        waiting = await desk.waiting(job, _SOON)
        await desk.complete("heard")
        assert await waiting == "heard"

    async def test_jobs_that_are_drained_without_an_event_end_the_waits_all_the_same(self, desk: Desk) -> None:
        job = await desk.jobs.add("n", {})
        busy = await desk.jobs.add("n", {}, delay=3_600_000)
        waiting = await desk.waiting(job)
        await desk.jobs.drain()
        while not waiting.done():
            # Also where there is never a silence.
            await busy.update_progress(1)
            await asyncio.sleep(0.05)
        with pytest.raises(JobNotFoundError, match="was removed while it was waited for"):
            await waiting


# ==================================================================================================
# EVENTS THAT ARE NONE
# ==================================================================================================


@pytest.mark.leaves_keys_broken("entries that are no events")
async def test_entries_that_are_no_events_are_passed_over(desk: Desk) -> None:
    key = f"{desk.base}events"
    job = await desk.jobs.add("n", {}, remove_on_complete=True)
    waiting = await desk.waiting(job)
    entries: list[dict[Any, Any]] = [
        {"jobId": job.id, "returnvalue": "1"},
        {"event": "", "jobId": job.id},
        {"event": "completed"},
        {"event": "completed", "returnvalue": "1", "jobId": f"{job.id}0"},
        {"event": "Completed", "returnvalue": "1", "jobId": job.id},
        {b"\xff\xfe": b"\xff", "event": b"\xff\xff", "jobId": job.id},
        {"event": b"completed\xff", "jobId": job.id},
        {"event": "error", "jobId": job.id, "x" * 1000: "y" * 100_000},
        {"event": "stalled", "jobId": job.id},
        {"event": "progress", "jobId": job.id, "data": "{oh"},
        {"event": "retries-exhausted", "jobId": job.id},
    ]
    for entry in entries:
        desk.redis.xadd(key, entry)
    await desk.complete("the real one")
    assert await waiting == "the real one"
