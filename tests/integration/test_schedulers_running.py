"""Job schedulers at work: each job brings forth the next, whatever is stored of it and whatever is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually
from tests.support.lossy import LossyProxy
from tests.support.scheduling import HOUR, Runs, delayed, now
from toromq import Queue, Worker
from toromq.errors import SchedulerConflictError

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox


@pytest.fixture
async def queue(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue("q", connection=redisbox.url, prefix=prefix) as made:
        yield made


@pytest.fixture
def key(prefix: str) -> Any:
    return f"{prefix}:q:{{}}".format


# -- going on ----------------------------------------------------------------------------------------------------------


async def test_each_job_brings_forth_the_next(queue: Queue[Any, Any], redisbox: RedisBox) -> None:
    first = await queue.upsert_job_scheduler("s", every=50, limit=4, data={"a": [1.5]}, opts={"backoff": 7})
    assert first is not None
    async with Runs(queue, redisbox.url) as runs:
        jobs = await runs.ran(4)
    assert [job.opts["repeat"] for job in jobs] == [{"every": 50, "limit": 4, "count": n} for n in (1, 2, 3, 4)]
    slots = [int(job.id.rpartition(":")[2]) for job in jobs]
    assert [slot % 50 for slot in slots] == [slots[0] % 50] * 4
    assert slots == sorted(set(slots))
    assert {job.opts["backoff"]["delay"] for job in jobs} == {7}
    assert [job.data for job in jobs] == [{"a": [1.5]}] * 4
    assert await queue.count() == 0
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert (scheduler.iteration_count, scheduler.next) == (4, slots[-1])
    assert runs.errors == []


async def test_the_next_job_is_there_before_this_one_runs(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    seen: list[list[str]] = []

    async def look(job: Any) -> None:
        seen.append(delayed(redis, key))

    await queue.upsert_job_scheduler("s", every=HOUR)
    async with Worker("q", look, connection=redisbox.url, prefix=queue.prefix):
        await aeventually(lambda: seen)
    assert len(seen[0]) == 1


def _has_run(redis: redispy.Redis, key: Any, due: int) -> None:
    fields = {"name": "s", "data": "{}", "opts": "{}", "timestamp": due, "delay": 0, "priority": 0, "rjk": "s"}
    ended = now()
    outcome = {"atm": 1, "ats": 1, "processedOn": ended, "finishedOn": ended, "returnvalue": "1"}
    redis.hset(key(f"repeat:s:{due}"), mapping={**fields, **outcome})
    redis.zadd(key("completed"), {f"repeat:s:{due}": ended})


@pytest.mark.parametrize("when", [{"every": HOUR}, {"pattern": "@yearly", "immediately": True}])
async def test_a_series_does_not_end_where_the_jobs_of_its_next_times_have_run(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any, when: dict[str, Any]
) -> None:
    first = await queue.upsert_job_scheduler("s", **when)
    assert first is not None
    due = int(first.id.rpartition(":")[2])
    years = [datetime(datetime.now(UTC).year + n, 1, 1, tzinfo=UTC) for n in (1, 2, 3)]
    times = [due + n * HOUR for n in (1, 2, 3)] if "every" in when else [round(y.timestamp() * 1000) for y in years]
    for taken in times[:-1]:
        _has_run(redis, key, taken)
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
    assert runs.errors == []
    assert redis.zscore(key("repeat"), "s") == times[-1]
    assert delayed(redis, key) == [f"repeat:s:{times[-1]}"]


async def test_a_worker_that_finds_no_free_time_says_so(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    first = await queue.upsert_job_scheduler("s", every=HOUR)
    assert first is not None
    for n in range(1, 1002):
        _has_run(redis, key, int(first.id.rpartition(":")[2]) + n * HOUR)
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
    (error,) = runs.errors
    assert isinstance(error, SchedulerConflictError)


async def test_other_jobs_do_not_wait_for_it(queue: Queue[Any, Any], redisbox: RedisBox) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    plain = await queue.add("plain")
    with LossyProxy(redisbox.url) as proxy:
        proxy.lose("iterate_schedulers", times=1, cut=False)
        async with Runs(queue, proxy.url, concurrency=2, lock_duration=60_000) as runs:
            await runs.ran(1)
            assert [run.id for run in runs.jobs] == [plain.id]
            assert await job.get_state() == "active"
            await runs.worker.close(force=True)


async def test_data_and_name_are_the_schedulers_and_options_the_jobs(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    await queue.upsert_job_scheduler("s", every=30, limit=2, name="old", data={"v": 1}, opts={"attempts": 2})
    redis.hset(key("repeat:s"), mapping={"name": "new", "data": '{"v":2}', "opts": '{"attempts":9}'})
    async with Runs(queue, redisbox.url) as runs:
        jobs = await runs.ran(2)
    assert [(job.name, job.data, job.opts["attempts"]) for job in jobs] == [("old", {"v": 1}, 2), ("new", {"v": 2}, 2)]


@pytest.mark.parametrize("opts", ["{}", '{"attempts":1}', '{"repeat":null}'])
async def test_a_job_whose_options_lost_their_series_runs_and_goes_on(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any, opts: str
) -> None:
    job = await queue.upsert_job_scheduler("s", every=30, limit=3, opts={"attempts": 2})
    assert job is not None
    redis.hset(key(job.id), "opts", opts)
    async with Runs(queue, redisbox.url) as runs:
        jobs = await runs.ran(3)
    assert jobs[0].id == job.id
    assert jobs[1].opts["repeat"] == {"every": 30, "limit": 3, "count": 2, "offset": jobs[1].opts["repeat"]["offset"]}
    assert jobs[1].opts["attempts"] == 2
    assert [str(error) for error in runs.errors] == [
        f"the stored opts of job {job.id} don't say when the next job of scheduler s is due; it is made by the "
        "scheduler's record"
    ]


async def test_a_job_whose_options_are_no_json_fails_and_the_series_goes_on(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=30, limit=3)
    assert job is not None
    redis.hset(key(job.id), "opts", "{")
    async with Runs(queue, redisbox.url) as runs:
        jobs = await runs.ran(2)
    assert [run.opts["repeat"]["count"] for run in jobs] == [2, 3]
    failed = await queue.get_job(job.id)
    assert failed is not None
    assert "the stored opts of job" in (failed.failed_reason or "")
    # A key of the test's own making must not look like a job's.
    await queue.clean(0, type="failed")


async def test_a_job_of_a_scheduler_that_is_gone_runs(queue: Queue[Any, Any], redisbox: RedisBox) -> None:
    job = await queue.upsert_job_scheduler("s", every=30)
    assert job is not None
    await queue.remove_job_scheduler("s")
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
        await aeventually(lambda: job.is_completed())
    assert await queue.count() == 0
    assert runs.errors == []


async def test_a_record_of_another_type_is_told_and_the_job_runs(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=30)
    assert job is not None
    redis.delete(key("repeat:s"))
    redis.set(key("repeat:s"), "x")
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
        await aeventually(lambda: job.is_completed())
        await aeventually(lambda: runs.errors)
    assert "making its next job of job scheduler s" in str(runs.errors[0])
    redis.delete(key("repeat:s"), key("repeat"))


async def test_what_an_old_client_repeated_runs_once_more(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    old = "n:id::zone:30"
    job = await queue.upsert_job_scheduler(old, every=30)
    assert job is not None
    redis.hdel(key(f"repeat:{old}"), "ic")
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
        await aeventually(lambda: runs.errors)
        await aeventually(lambda: job.is_completed())
    assert "made by an old client" in str(runs.errors[0])
    assert await queue.count() == 0
    await queue.remove_job_scheduler(old)


async def test_a_job_that_was_to_fail_brings_forth_the_next_before(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    redis.hset(key(job.id), "defa", "no more")
    async with Runs(queue, redisbox.url) as runs:
        await aeventually(lambda: job.is_failed())
    assert runs.jobs == []
    assert len(delayed(redis, key)) == 1


async def test_by_hand_the_next_one_is_made_as_well(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    first = await queue.upsert_job_scheduler("s", every=HOUR, opts={"attempts": 2})
    assert first is not None
    redis.hset(key(first.id), "opts", "{}")
    errors: list[Any] = []
    worker: Worker[Any, Any] = Worker("q", None, connection=redisbox.url, prefix=queue.prefix)
    worker.on("error")(errors.append)
    job = await worker.get_next_job("t", block=False)
    assert job is not None
    assert job.id == first.id
    assert len(delayed(redis, key)) == 1
    await job.move_to_completed(None, "t", False)
    await worker.close()
    assert ["don't say when" in str(error) for error in errors] == [True]


async def test_a_retry_brings_forth_no_second(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR, opts={"attempts": 3})
    assert job is not None
    tries: list[int] = []

    async def fail(job: Any) -> None:
        tries.append(job.attempts_started)
        raise ValueError("no")

    async with Worker("q", fail, connection=redisbox.url, prefix=queue.prefix):
        await aeventually(lambda: job.is_failed())
    assert tries == [1, 2, 3]
    assert len(delayed(redis, key)) == 1


# -- what may go wrong on the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_that_was_lost_makes_no_second_job(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any, times: int
) -> None:
    await queue.upsert_job_scheduler("s", every=HOUR)
    with LossyProxy(redisbox.url) as proxy:
        proxy.lose("iterate_schedulers", times)
        async with Runs(queue, proxy.url, run_retry_delay=50) as runs:
            await runs.ran(1)
        assert proxy.lost == times
    assert len(runs.jobs) == 1
    assert len(delayed(redis, key)) == 1
    assert runs.errors


async def test_a_closing_worker_hands_back_what_it_can_make_no_next_one_for(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    with LossyProxy(redisbox.url) as proxy:
        proxy.lose("iterate_schedulers", times=1000)
        async with Runs(queue, proxy.url, run_retry_delay=50) as runs:
            await aeventually(lambda: len(runs.errors) > 1)
    assert runs.jobs == []
    assert await job.get_state() == "waiting"
    # The first try was done, and whoever runs it now makes none.
    async with Runs(queue, redisbox.url) as others:
        await others.ran(1)
    assert len(delayed(redis, key)) == 1


@pytest.mark.parametrize("force", [False, True])
async def test_a_close_does_not_wait_for_ever(queue: Queue[Any, Any], redisbox: RedisBox, force: bool) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    with LossyProxy(redisbox.url) as proxy:
        proxy.lose("iterate_schedulers", times=1000)
        runs = Runs(queue, proxy.url, run_retry_delay=60_000)
        await runs.worker.__aenter__()
        await aeventually(lambda: runs.errors)
        await asyncio.wait_for(runs.worker.close(force=force), 20)
    assert await job.get_state() == "waiting"


@pytest.mark.parametrize("options", [{"every": HOUR}, {"every": HOUR, "start_date": now() + HOUR}])
async def test_an_upsert_whose_answer_was_lost_makes_one_job(
    queue: Queue[Any, Any], redisbox: RedisBox, options: dict[str, Any]
) -> None:
    with LossyProxy(redisbox.url) as proxy:
        async with Queue("q", connection=proxy.url, prefix=queue.prefix) as lossy:
            await lossy.upsert_job_scheduler("other", every=HOUR)
            proxy.lose("upsert_job_scheduler", 2)
            job = await lossy.upsert_job_scheduler("s", **options)
        assert proxy.lost == 2
    assert job is not None
    assert [found.id for found in await queue.get_jobs() if found.repeat_job_key == "s"] == [job.id]
    scheduler = await queue.get_job_scheduler("s")
    assert scheduler is not None
    assert scheduler.iteration_count == 1


async def test_a_lost_lock_ends_the_wait_for_the_next_one(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    with LossyProxy(redisbox.url) as proxy:
        proxy.lose("iterate_schedulers", times=1000)
        options = {"run_retry_delay": 50, "lock_duration": 400, "skip_lock_renewal": True, "stalled_interval": 300}
        async with Runs(queue, proxy.url, **options) as runs:
            # Taken out by the stalled check, it comes back, and is held again under another lock.
            await aeventually(lambda: int(redis.hget(key(job.id), "ats") or 0) >= 2)
    assert runs.jobs == []
