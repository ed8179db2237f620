"""Job schedulers: what an upsert makes, what workers make of it, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from toromq import ConfigurationError, JobScheduler, JobSchedulerTemplate, Queue, Worker
from toromq.errors import SchedulerConflictError

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

HOUR = 3_600_000


@pytest.fixture
async def queue(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue("q", connection=redisbox.url, prefix=prefix) as made:
        yield made


@pytest.fixture
def key(prefix: str) -> Any:
    return f"{prefix}:q:{{}}".format


class Runs:
    """A worker that notes what it runs."""

    def __init__(self, queue: Queue[Any, Any], url: str, **options: Any) -> None:
        self.jobs: list[Any] = []
        self.errors: list[Exception] = []
        self.worker = Worker("q", self._run, connection=url, prefix=queue.prefix, **options)
        self.worker.on("error")(self.errors.append)

    async def _run(self, job: Any) -> int:
        self.jobs.append(job)
        return len(self.jobs)

    async def __aenter__(self) -> Runs:
        await self.worker.__aenter__()
        return self

    async def __aexit__(self, *why: Any) -> None:
        await self.worker.__aexit__(*why)

    async def ran(self, count: int) -> list[Any]:
        await aeventually(lambda: len(self.jobs) >= count, message=f"{count} runs; errors: {self.errors}")
        return self.jobs


def now() -> int:
    return time.time_ns() // 1_000_000


def delayed(redis: redispy.Redis, key: Any) -> list[str]:
    return [str(job_id) for job_id in redis.zrange(key("delayed"), 0, -1)]


# -- setting one up ----------------------------------------------------------------------------------------------------


async def test_an_upsert_gives_the_first_job(queue: Queue[Any, Any]) -> None:
    before = now()
    job = await queue.upsert_job_scheduler("s", every=HOUR, name="n", data={"a": [1]}, opts={"priority": 2})
    assert job is not None
    assert (job.name, job.data, job.priority, job.delay, job.repeat_job_key) == ("n", {"a": [1]}, 2, 0, "s")
    assert before <= job.timestamp <= now()
    assert job.id == f"repeat:s:{job.timestamp}"
    stored = await queue.get_job(job.id)
    assert stored is not None
    assert stored.to_json() == job.to_json()
    assert await job.get_state() == "prioritized"


async def test_the_queues_default_options_hold_for_its_jobs(redisbox: RedisBox, prefix: str) -> None:
    defaults = {"attempts": 3, "delay": 500, "remove_on_complete": True}
    async with Queue("q", connection=redisbox.url, prefix=prefix, default_job_options=defaults) as made:
        await made.upsert_job_scheduler("s", every=HOUR, opts={"attempts": 5})
        scheduler = await made.get_job_scheduler("s")
        assert scheduler is not None
        assert scheduler.template == JobSchedulerTemplate(None, {"attempts": 5, "remove_on_complete": True})


async def test_a_scheduler_reads_as_it_was_set_up(queue: Queue[Any, Any]) -> None:
    start, end = datetime.now(UTC) + timedelta(hours=1), now() + 5 * HOUR
    given: dict[str, Any] = {"every": timedelta(seconds=90), "start_date": start, "end_date": end, "limit": 7}
    await queue.upsert_job_scheduler("s", **given, data={"a": 1}, opts={"backoff": 100, "keep_logs": 3})
    due = round(start.timestamp() * 1000)
    expected = JobScheduler(
        key="s",
        name="s",
        next=due,
        iteration_count=1,
        limit=7,
        start_date=due,
        end_date=end,
        every=90_000,
        offset=due % 90_000,
        template=JobSchedulerTemplate({"a": 1}, {"backoff": {"type": "fixed", "delay": 100}, "keep_logs": 3}),
    )
    assert await queue.get_job_scheduler("s") == expected
    assert await queue.get_job_schedulers() == [expected]
    assert await queue.get_job_scheduler("other") is None
    assert await queue.is_job_scheduler("s") is True
    assert await queue.is_job_scheduler("other") is False


async def test_schedulers_are_listed_by_the_time_of_their_next_job(queue: Queue[Any, Any]) -> None:
    for hours in (2, 1, 3):
        await queue.upsert_job_scheduler(f"s{hours}", every=HOUR, start_date=now() + hours * HOUR)

    async def keys(*page: int, **order: bool) -> list[str]:
        return [scheduler.key for scheduler in await queue.get_job_schedulers(*page, **order)]

    assert await keys() == ["s3", "s2", "s1"]
    assert await keys(asc=True) == ["s1", "s2", "s3"]
    assert await keys(1, 1) == ["s2"]
    assert await queue.get_job_schedulers_count() == 3


async def test_an_upsert_again_replaces_the_job_that_waits(queue: Queue[Any, Any], redis: redispy.Redis) -> None:
    first = await queue.upsert_job_scheduler("s", every=HOUR, start_date=now() + HOUR)
    second = await queue.upsert_job_scheduler("s", every=HOUR, start_date=now() + HOUR, data={"new": True})
    assert first is not None
    assert second is not None
    assert first.id == second.id
    assert [job.data for job in await queue.get_delayed()] == [{"new": True}]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_that_nobody_ran_is_replaced_as_well(queue: Queue[Any, Any], paused: bool) -> None:
    if paused:
        await queue.pause()
    first = await queue.upsert_job_scheduler("s", every=HOUR)
    await queue.upsert_job_scheduler("s", every=HOUR, data=[])
    assert first is not None
    assert [(job.id, job.data) for job in await queue.get_jobs()] == [(first.id, [])]


async def test_removing_takes_the_delayed_job_along(queue: Queue[Any, Any], redis: redispy.Redis, prefix: str) -> None:
    await queue.upsert_job_scheduler("s", every=HOUR, start_date=now() + HOUR)
    assert await queue.remove_job_scheduler("s") is True
    assert await queue.remove_job_scheduler("s") is False
    assert await queue.count() == 0
    assert {name.rpartition(":")[2] for name in keyspace(redis, prefix)} == {"events", "id", "marker", "meta"}


async def test_its_next_job_is_not_removed_alone(queue: Queue[Any, Any]) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    with pytest.raises(SchedulerConflictError, match=r"remove that instead"):
        await queue.remove(job.id)
    await queue.drain(delayed=True)
    assert await job.get_state() == "waiting"


async def test_nothing_is_made_with_a_limit_of_none(queue: Queue[Any, Any], redis: redispy.Redis, prefix: str) -> None:
    assert await queue.upsert_job_scheduler("s", every=HOUR, limit=0) is None
    assert keyspace(redis, prefix) == {}


async def test_slots_that_are_taken_are_stepped_over_up_to_a_point(
    queue: Queue[Any, Any], redis: redispy.Redis, key: Any
) -> None:
    start = now() + HOUR
    for n in range(33):
        redis.hset(key(f"repeat:s:{start + n * 1000}"), "name", "n")
    with pytest.raises(SchedulerConflictError, match=r"upsert of job scheduler s: .*all taken"):
        await queue.upsert_job_scheduler("s", every=1000, start_date=start)
    for n in range(33):
        redis.delete(key(f"repeat:s:{start + n * 1000}"))


# -- patterns ----------------------------------------------------------------------------------------------------------


async def test_a_pattern_is_meant_in_utc_unless_a_zone_is_given(queue: Queue[Any, Any]) -> None:
    await queue.upsert_job_scheduler("utc", pattern="0 15 3 * * *", start_date=datetime(2035, 7, 3, tzinfo=UTC))
    job = await queue.upsert_job_scheduler(
        "madrid", pattern="15 3 * * *", tz="Europe/Madrid", start_date=datetime(2035, 7, 3, tzinfo=UTC)
    )
    utc, madrid = await queue.get_job_scheduler("utc"), await queue.get_job_scheduler("madrid")
    assert utc is not None
    assert madrid is not None
    assert (utc.tz, madrid.tz) == ("UTC", "Europe/Madrid")
    expected = [datetime(2035, 7, 3, hour, 15, tzinfo=UTC).timestamp() * 1000 for hour in (3, 1)]
    assert [utc.next, madrid.next] == expected
    assert job is not None
    assert job.opts["prevMillis"] == madrid.next
    assert job.opts["repeat"]["tz"] == "Europe/Madrid"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "x"}, r"^pattern: .*\bx\b"),
        ({"pattern": "61 * * * *"}, "^pattern: .*minute.*61"),
        ({"pattern": "0 0 31 2 *"}, "^pattern: "),
        ({"pattern": "* * * * * * *"}, "^pattern: .*fields"),
        ({"pattern": "* * * * *", "tz": "Europe/Madird"}, "^tz: .*Europe/Madird"),
        ({"pattern": "* * * * *", "tz": ""}, "^tz: .*zone"),
        ({"pattern": 5}, "pattern: got 5"),
    ],
)
async def test_a_pattern_that_cannot_be_read_is_not_sent(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await queue.upsert_job_scheduler("s", **options)
    assert keyspace(redis, prefix) == {}


async def test_the_first_job_of_a_pattern_may_be_due_at_once(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", immediately=True)
    assert job is not None
    assert job.delay == 0
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
    (following,) = delayed(redis, key)
    due = datetime.fromtimestamp(int(following.rpartition(":")[2]) / 1000, UTC)
    assert (due.month, due.day, due.hour, due.minute) == (1, 1, 0, 0)


async def test_no_time_before_the_end_is_no_scheduler(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    # Half a year away.
    pattern = f"0 0 1 {(soon.month + 5) % 12 + 1} *"
    assert await queue.upsert_job_scheduler("s", pattern=pattern, end_date=soon) is None
    assert keyspace(redis, prefix) == {}


async def test_an_h_is_chosen_once(queue: Queue[Any, Any]) -> None:
    seeds = [{}, {}, {"hash_seed": "s"}, {"hash_seed": "another"}]
    jobs = [await queue.upsert_job_scheduler("s", pattern="H H H H *", **seed) for seed in seeds]
    ids = [job.id for job in jobs if job is not None]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert [job.opts["repeat"]["hashSeed"] for job in jobs if job is not None] == ["s", "s", "s", "another"]
    plain = await queue.upsert_job_scheduler("plain", pattern="0 0 1 MAR THU")
    assert plain is not None
    assert "hashSeed" not in plain.opts["repeat"]


async def test_times_that_are_taken_are_passed_over(queue: Queue[Any, Any], redis: redispy.Redis, key: Any) -> None:
    """Jobs that were promoted have run before their time, and are kept."""
    start = int(datetime(2035, 7, 3, tzinfo=UTC).timestamp() * 1000)
    taken = [key(f"repeat:s:{start + n * 1000}") for n in range(1, 32)]
    for name in taken:
        redis.hset(name, "name", "n")
    job = await queue.upsert_job_scheduler("s", pattern="* * * * * *", start_date=start)
    assert job is not None
    assert job.id == f"repeat:s:{start + 32_000}"
    await queue.remove_job_scheduler("s")
    redis.hset(key(f"repeat:s:{start + 32_000}"), "name", "n")
    with pytest.raises(SchedulerConflictError, match=r"upsert of job scheduler s: .*is taken"):
        await queue.upsert_job_scheduler("s", pattern="* * * * * *", start_date=start)
    redis.delete(*taken, key(f"repeat:s:{start + 32_000}"))


async def test_a_job_whose_pattern_cannot_be_read_runs_and_is_the_last(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis, key: Any
) -> None:
    job = await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", immediately=True)
    assert job is not None
    redis.hset(key(job.id), "opts", '{"repeat":{"pattern":"W W W","count":1}}')
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
        await aeventually(lambda: runs.errors)
        await aeventually(lambda: job.is_completed())
    assert "job scheduler s makes no further job" in str(runs.errors[0])
    assert delayed(redis, key) == []


@pytest.mark.parametrize("zone", ["Asia/Tokyo", ":Asia/Tokyo", ":/usr/share/zoneinfo/Asia/Tokyo"])
async def test_a_pattern_without_a_zone_is_meant_in_that_of_the_machine(
    queue: Queue[Any, Any],
    redisbox: RedisBox,
    redis: redispy.Redis,
    key: Any,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
) -> None:
    """As Node's workers have it; ours always give one."""
    monkeypatch.setenv("TZ", zone)
    job = await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *", immediately=True)
    assert job is not None
    redis.hset(key(job.id), "opts", '{"repeat":{"pattern":"0 0 1 1 *","count":1}}')
    async with Runs(queue, redisbox.url) as runs:
        await runs.ran(1)
    (following,) = delayed(redis, key)
    due = datetime.fromtimestamp(int(following.rpartition(":")[2]) / 1000, UTC)
    assert (due.month, due.day, due.hour) == (12, 31, 15)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("immediately", [False, True])
async def test_an_upsert_of_a_pattern_whose_answer_was_lost_makes_one_job(
    queue: Queue[Any, Any], redisbox: RedisBox, immediately: bool, times: int
) -> None:
    with LossyProxy(redisbox.url) as proxy:
        async with Queue("q", connection=proxy.url, prefix=queue.prefix) as lossy:
            await lossy.upsert_job_scheduler("other", every=HOUR)
            proxy.lose("upsert_job_scheduler", times)
            job = await lossy.upsert_job_scheduler("s", pattern="0 0 1 1 *", immediately=immediately)
    assert job is not None
    assert [found.id for found in await queue.get_jobs() if found.repeat_job_key == "s"] == [job.id]


# -- both faces --------------------------------------------------------------------------------------------------------


@pytest.fixture
def blocking(redisbox: RedisBox, prefix: str) -> Iterator[toromq.sync.Queue[Any, Any]]:
    with toromq.sync.Queue("q", connection=redisbox.url, prefix=prefix) as made:
        yield made


def test_the_blocking_face_has_them_too(blocking: toromq.sync.Queue[Any, Any], redisbox: RedisBox) -> None:
    job = blocking.upsert_job_scheduler("s", every=50, limit=3, data={"a": 1})
    assert isinstance(job, toromq.sync.Job)
    ran: list[Any] = []
    worker = toromq.sync.Worker("q", lambda job: ran.append(job.data), connection=redisbox.url, prefix=blocking.prefix)
    with worker:
        deadline = time.monotonic() + 10
        while len(ran) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ran == [{"a": 1}] * 3
    scheduler = blocking.get_job_scheduler("s")
    assert scheduler is not None
    assert (scheduler.iteration_count, blocking.get_job_schedulers()) == (3, [scheduler])
    assert blocking.get_job_schedulers_count() == 1
    assert blocking.remove_job_scheduler("s") is True


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "every and pattern: give one of them"),
        ({"every": 1000, "pattern": "* * * * *"}, "every and pattern: give one of them"),
        ({"every": 0}, "every: got 0; .*1 or more"),
        ({"every": timedelta(microseconds=1)}, "every: got .*1 or more"),
        ({"every": "1s"}, "every: got '1s'"),
        ({"every": 1000, "tz": "UTC"}, "tz: got 'UTC'; it belongs to a pattern"),
        ({"every": 1000, "hash_seed": "x"}, "hash_seed: got 'x'; it belongs to a pattern"),
        ({"pattern": "* * * * *", "offset": 5}, "offset: got 5; it belongs to every"),
        ({"every": 1000, "offset": -1}, "offset: got -1"),
        ({"every": 1000, "limit": -1}, "limit: got -1"),
        ({"every": 1000, "limit": 1.5}, "limit: got 1.5"),
        ({"every": 1000, "immediately": 1}, "immediately: got 1"),
        ({"every": 1000, "immediately": True, "start_date": 5}, "immediately and start_date: give one of them"),
        ({"every": 1000, "start_date": datetime(2035, 7, 3)}, "start_date: got the naive datetime"),
        ({"every": 1000, "end_date": 5}, "end_date: got 5, which has passed"),
        ({"every": 1000, "start_date": 2**50, "end_date": 2**49}, "end_date: got .* before start_date"),
        ({"every": 1000, "name": 5}, "^name: got 5"),
        ({"every": 1000, "opts": 5}, "opts: got 5; allowed is a dict"),
        ({"every": 1000, "opts": {"attempts": -1}}, r"opts\.attempts: got -1"),
        ({"every": 1000, "opts": {"job_id": "x"}}, r"opts\.job_id: not allowed"),
        ({"every": 1000, "opts": {"delay": 5}}, r"opts\.delay: not allowed"),
        ({"every": 1000, "opts": {"deduplication": {"id": "d"}}}, r"opts\.deduplication: not allowed"),
        ({"every": 1000, "data": "xxxxxxxxxx", "opts": {"size_limit": 5}}, "^data: 12 bytes"),
    ],
)
async def test_what_is_not_allowed_is_not_sent(
    queue: Queue[Any, Any], redis: redispy.Redis, prefix: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await queue.upsert_job_scheduler("s", **arguments)
    assert keyspace(redis, prefix) == {}


async def test_unknown_options_of_jobs_are_refused(queue: Queue[Any, Any]) -> None:
    with pytest.raises(TypeError, match=r"opts\..*no option 'atempts'; did you mean 'attempts'"):
        await queue.upsert_job_scheduler("s", every=1000, opts={"atempts": 3})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("given", ["", 5, None])
async def test_ids_are_texts(queue: Queue[Any, Any], given: Any) -> None:
    for operation in (queue.get_job_scheduler, queue.remove_job_scheduler):
        with pytest.raises(ConfigurationError, match=r"^id: got"):
            await operation(given)
    with pytest.raises(ConfigurationError, match=r"^id: got"):
        await queue.upsert_job_scheduler(given, every=1000)


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
