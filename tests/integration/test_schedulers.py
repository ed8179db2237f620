"""Job schedulers: what an upsert makes, what workers make of it, and what is refused before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually, eventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from tests.support.scheduling import HOUR, Runs, delayed, now
from toromq import ConfigurationError, JobScheduler, JobSchedulerTemplate, Queue
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
        eventually(lambda: len(ran) >= 3)
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
