"""Limits of a queue in both faces: what is stored and told, what is refused, and what a job's own limit does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.support.eventually import aeventually
from toromq import ConfigurationError, RateLimit, RateLimitError, WaitingError, sync

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_MANUAL = str(2**53 - 1)
# So long that it never ends by itself while a test runs.
_LONG = 600_000


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str) -> AsyncIterator[Any]:
    made = face.Queue("q", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


@pytest.fixture
def meta(redis: redis_py.Redis, prefix: str) -> Any:
    return lambda: redis.hgetall(f"{prefix}:q:meta")


# --- what is stored and told ------------------------------------------------------------------------------------------


async def test_a_queue_has_no_limits_of_itself(queue: Any) -> None:
    assert await done(queue.get_global_concurrency()) is None
    assert await done(queue.get_global_rate_limit()) is None
    assert await done(queue.is_maxed()) is False
    assert await done(queue.get_rate_limit_ttl()) == -2
    assert await done(queue.get_rate_limit_ttl(1)) == 0
    assert await done(queue.remove_rate_limit_key()) is False
    await done(queue.remove_global_concurrency())
    await done(queue.remove_global_rate_limit())


async def test_the_global_concurrency_is_set_told_and_removed(queue: Any, meta: Any) -> None:
    await done(queue.set_global_concurrency(3))
    assert (await done(queue.get_global_concurrency()), meta()) == (3, {"concurrency": "3"})
    await done(queue.set_global_concurrency(1))
    assert (await done(queue.get_global_concurrency()), meta()) == (1, {"concurrency": "1"})
    await done(queue.set_global_concurrency(0))
    assert (await done(queue.get_global_concurrency()), meta()) == (0, {"concurrency": "0"})
    await done(queue.remove_global_concurrency())
    assert (await done(queue.get_global_concurrency()), meta()) == (None, {})


async def test_the_global_rate_limit_is_set_told_and_removed(queue: Any, meta: Any) -> None:
    await done(queue.set_global_rate_limit(5, timedelta(seconds=1.5)))
    assert meta() == {"max": "5", "duration": "1500"}
    limit = await done(queue.get_global_rate_limit())
    assert (limit, type(limit)) == (RateLimit(max=5, duration=1500), RateLimit)
    await done(queue.set_global_rate_limit(max=1, duration=10))
    assert (await done(queue.get_global_rate_limit()), meta()) == (RateLimit(1, 10), {"max": "1", "duration": "10"})
    await done(queue.remove_global_rate_limit())
    assert (await done(queue.get_global_rate_limit()), meta()) == (None, {})


@pytest.mark.leaves_keys_broken("half a rate limit, and a concurrency that is no number")
@pytest.mark.parametrize("fields", [{"max": "5"}, {"duration": "100"}, {"max": "many", "duration": "100"}])
async def test_half_a_rate_limit_is_none(
    queue: Any, redis: redis_py.Redis, prefix: str, fields: dict[str, str]
) -> None:
    redis.hset(f"{prefix}:q:meta", mapping={**fields, "concurrency": "all"})
    assert await done(queue.get_global_rate_limit()) is None
    assert await done(queue.get_global_concurrency()) is None
    assert await done(queue.is_maxed()) is False


async def test_a_queue_is_maxed_when_as_many_are_active_as_may_be(
    face: Any, queue: Any, redisbox: RedisBox, prefix: str
) -> None:
    await done(queue.set_global_concurrency(2))
    await done(queue.add_bulk([("n", n) for n in range(3)]))
    hand = face.Worker("q", None, connection=redisbox.url, prefix=prefix)
    first = await done(hand.get_next_job("t", block=False))
    assert await done(queue.is_maxed()) is False
    second = await done(hand.get_next_job("t", block=False))
    assert await done(queue.is_maxed()) is True
    assert await done(hand.get_next_job("t", block=False)) is None
    await done(queue.set_global_concurrency(3))
    assert await done(queue.is_maxed()) is False
    for job in (first, second):
        await done(job.move_to_completed(None, "t", fetch_next=False))
    await done(hand.close())


async def test_a_limit_by_hand_is_stored_as_a_count_that_no_maximum_reaches(
    queue: Any, redis: redis_py.Redis, prefix: str
) -> None:
    await done(queue.rate_limit(timedelta(minutes=10)))
    key = f"{prefix}:q:limiter"
    assert redis.get(key) == _MANUAL
    assert _LONG / 2 < redis.pttl(key) <= _LONG
    for most in (None, 1, 2**53 - 2):
        assert _LONG / 2 < await done(queue.get_rate_limit_ttl(most)) <= _LONG
    assert await done(queue.remove_rate_limit_key()) is True
    assert not redis.exists(key)
    assert await done(queue.get_rate_limit_ttl()) == -2


@pytest.mark.parametrize(
    ("own", "asked", "limited"),
    [
        *((None, 3, True), (None, 4, False), (3, None, True), (4, None, False), (3, 4, False), (4, 3, True)),
        (None, None, True),
    ],
)
async def test_the_rest_of_a_window_is_told_by_the_maximum(
    queue: Any, redis: redis_py.Redis, prefix: str, own: int | None, asked: int | None, limited: bool
) -> None:
    if own is not None:
        await done(queue.set_global_rate_limit(own, 1000))
    redis.set(f"{prefix}:q:limiter", 3, px=_LONG)
    assert (await done(queue.get_rate_limit_ttl(asked)) > 0) == limited


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("set_global_concurrency", (-1,), "concurrency: got -1; allowed is a whole number from 0"),
        ("set_global_concurrency", (None,), "concurrency: got None; allowed is a whole number from 0"),
        ("set_global_concurrency", (True,), "concurrency: got True; allowed is a whole number from 0"),
        ("set_global_rate_limit", (0, 1000), "max: got 0; allowed is a whole number from 1"),
        ("set_global_rate_limit", (1.5, 1000), "max: got 1.5; allowed is a whole number from 1"),
        ("set_global_rate_limit", (2**53 - 1, 1000), "max: got 9007199254740991; allowed is a whole number from 1"),
        ("set_global_rate_limit", (1, 0), "duration: got 0; allowed is a timedelta or milliseconds, 1 or more"),
        ("set_global_rate_limit", (1, "1s"), "duration: got '1s'; allowed is a timedelta or milliseconds"),
        ("rate_limit", (0,), "duration: got 0; allowed is a timedelta or milliseconds, 1 or more"),
        ("rate_limit", (-5,), "duration: got -5; allowed is a timedelta or milliseconds"),
        ("get_rate_limit_ttl", (0,), "max_jobs: got 0; allowed is a whole number from 1"),
    ],
)
async def test_what_is_no_limit_is_refused_unsent(
    queue: Any, meta: Any, method: str, arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await done(getattr(queue, method)(*arguments))
    assert str(refused.value).startswith(said)
    assert meta() == {}


@pytest.mark.parametrize("given", [0, -1, "soon"])
def test_a_limit_that_a_job_brings_is_checked_where_it_is_raised(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^retry_after: got .*; allowed is a timedelta or milliseconds"):
        raise RateLimitError("too many requests", retry_after=given)


# --- a job that ran into a limit --------------------------------------------------------------------------------------


class Limited:
    """A processor that runs into a limit at the first run of each job named in `times`, in one of three ways."""

    def __init__(self, how: str, duration: int, times: int) -> None:
        self.how, self.duration, self.times = how, duration, times
        self.worker: Any = None
        self.runs: list[tuple[str, int]] = []

    def error(self, job: Any) -> RateLimitError | None:
        self.runs.append((job.data, job.attempts_started))
        if job.attempts_started > self.times:
            return None
        return RateLimitError(retry_after=self.duration) if self.how == "brought along" else RateLimitError("busy")

    async def on_the_loop(self, job: Any) -> None:
        if (error := self.error(job)) is not None:
            if self.how == "set by the worker":
                await self.worker.rate_limit(self.duration)
            raise error

    def in_a_thread(self, job: Any) -> None:
        if (error := self.error(job)) is not None:
            if self.how == "set by the worker":
                self.worker.rate_limit(self.duration)
            raise error


KINDS = [
    ("async def", "set by the worker"), ("async def", "brought along"), ("async def", "unset"),
    ("def", "brought along"), ("def", "unset"),
    ("blocking", "set by the worker"), ("blocking", "brought along"), ("blocking", "unset"),
]  # fmt: skip


class Running:
    """A worker whose jobs run into a limit, with its queue."""

    def __init__(self, kind: str, processor: Limited, options: dict[str, Any], more: dict[str, Any]) -> None:
        self.queue = toromq.Queue[Any, Any]("q", **options)
        self.blocks = kind == "blocking"
        run = processor.on_the_loop if kind == "async def" else processor.in_a_thread
        self.worker: Any = (sync.Worker if self.blocks else toromq.Worker)("q", run, **options, **more)
        processor.worker = self.worker

    async def __aenter__(self) -> Running:
        if self.blocks:
            await asyncio.to_thread(self.worker.__enter__)
        else:
            await self.worker.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await (asyncio.to_thread(self.worker.close) if self.blocks else self.worker.close())
        await self.queue.close()

    async def completed(self, count: int) -> None:
        async def so_many() -> bool:
            return (await self.queue.get_job_counts("completed"))["completed"] == count

        await aeventually(so_many)


def activations(redis: redis_py.Redis, prefix: str) -> list[tuple[int, str]]:
    """When jobs were made active by Redis' own clock, and which."""
    entries: Any = redis.xrange(f"{prefix}:q:events")
    return [(int(at.split("-")[0]), fields["jobId"]) for at, fields in entries if fields["event"] == "active"]


@pytest.mark.parametrize("limiter", [None, RateLimit(1000, 10)], ids=["no maximum", "a maximum"])
@pytest.mark.parametrize(("kind", "how"), KINDS)
async def test_a_job_that_ran_into_a_limit_keeps_its_place_and_its_attempts(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, kind: str, how: str, limiter: RateLimit | None
) -> None:
    options = {"connection": redisbox.url, "prefix": prefix}
    duration = 60
    processor = Limited(how, duration, times=2)
    running = Running(kind, processor, options, {"limiter": limiter})
    await running.queue.add_bulk([("n", "a"), ("n", "b", {"priority": 1}), ("n", "c", {"priority": 1})])
    async with running:
        await running.completed(3)
    assert processor.runs == [(name, run) for name in "abc" for run in (1, 2, 3)]
    for job in await running.queue.get_jobs("completed"):
        assert (job.attempts_made, job.attempts_started, job.failed_reason) == (1, 3, None)
        assert redis.hgetall(f"{prefix}:q:{job.id}").keys() & {"stacktrace", "failedReason"} == set()
    await running.queue.close()
    if how != "unset":
        starts = activations(redis, prefix)
        repeats = [second - first for (first, one), (second, two) in itertools.pairwise(starts) if one == two]
        assert len(repeats) == 6
        assert min(repeats) >= duration


async def test_a_limit_that_nobody_set_does_not_make_a_job_spin(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    processor = Limited("unset", 0, times=4)
    running = Running("async def", processor, {"connection": redisbox.url, "prefix": prefix}, {})
    await running.queue.add("n", "a")
    async with running:
        await running.completed(1)
    starts = [at for at, _ in activations(redis, prefix)]
    assert len(starts) == 5
    # At full speed four of them are within a few milliseconds.
    assert starts[-1] - starts[0] >= 4 * 45


async def test_a_limited_worker_sleeps_no_longer_than_it_may(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    processor = Limited("set by the worker", _LONG, times=3)
    options = {"connection": redisbox.url, "prefix": prefix}
    running = Running("async def", processor, options, {"maximum_rate_limit_delay": 20})
    await running.queue.add("n", "a")
    async with running:
        # Nobody knows of a maximum, so the limit only holds for the worker that set it, and that looks again.
        await running.completed(1)
    assert len(processor.runs) == 4
    await toromq.Queue("q", **options).remove_rate_limit_key()  # type: ignore[arg-type]


async def test_a_job_put_back_for_another_reason_waits_for_no_limit(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
    queue: Any = toromq.Queue("q", **options)
    await queue.add("n", 1)
    starts: list[int] = []

    async def processor(job: Any) -> None:
        starts.append(job.attempts_started)
        if job.attempts_started < 3:
            raise WaitingError

    # The window that its first start opens lasts longer than the test, and allows many more.
    async with toromq.Worker("q", processor, limiter=RateLimit(100, _LONG), **options):
        await aeventually(lambda: starts == [1, 2, 3])
    await queue.remove_rate_limit_key()
    await queue.close()


@pytest.mark.parametrize("asleep", ["under the worker's own maximum", "under the queue's maximum"])
async def test_a_worker_that_found_a_limit_by_hand_starts_nothing_until_it_is_removed(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, asleep: str
) -> None:
    options = {"connection": redisbox.url, "prefix": prefix}
    own = asleep == "under the worker's own maximum"
    processor = Limited("unset", 0, times=0)
    more = {"maximum_rate_limit_delay": 20, "limiter": RateLimit(1000, 10) if own else None}
    running = Running("async def", processor, options, more)
    if not own:
        await running.queue.set_global_rate_limit(1000, 10)
    await running.queue.rate_limit(_LONG)
    await running.queue.add("n", "a")
    async with running:
        # By then it has looked several times, and found the limit as often.
        looks = calls(redis)
        await aeventually(lambda: calls(redis) >= looks + 5)
        assert processor.runs == []
        assert await running.queue.remove_rate_limit_key()
        await running.completed(1)


def calls(redis: redis_py.Redis) -> int:
    """How many scripts were called on this server so far."""
    stats: Any = redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


# --- who is woken -----------------------------------------------------------------------------------------------------


async def test_a_sleeping_worker_takes_more_when_the_global_concurrency_is_raised(
    face: Any, queue: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    await done(queue.set_global_concurrency(1))
    await done(queue.add_bulk([("n", n) for n in range(4)]))
    started: list[int] = []
    end = asyncio.Event()

    async def processor(job: Any) -> None:
        started.append(job.data)
        await end.wait()

    # It would look by itself only after the test has failed.
    worker = toromq.Worker("q", processor, connection=redisbox.url, prefix=prefix, concurrency=4, drain_delay=600)
    async with worker:
        await aeventually(lambda: len(started) == 1)
        await asleep(redis, prefix)
        await done(queue.set_global_concurrency(3))
        await aeventually(lambda: len(started) == 3)
        await asleep(redis, prefix)
        await done(queue.remove_global_concurrency())
        await aeventually(lambda: len(started) == 4)
        end.set()


async def asleep(redis: redis_py.Redis, prefix: str) -> None:
    """Returns when a worker blocks on the marker, and there is none."""

    def sleeps() -> bool:
        clients = [client for client in redis.client_list() if client["name"].startswith(f"{prefix}:")]
        blocked = any(client["cmd"].lower() == "bzpopmin" and "b" in client["flags"] for client in clients)
        return blocked and not redis.exists(f"{prefix}:q:marker")

    await aeventually(sleeps)


async def test_a_finish_by_hand_wakes_who_waits_for_the_global_concurrency(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
    queue: Any = toromq.Queue("q", **options)
    await queue.set_global_concurrency(1)
    await queue.add_bulk([("n", n) for n in range(2)])
    hand: Any = toromq.Worker("q", None, **options)
    first = await hand.get_next_job("t", block=False)
    ran: list[int] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    async with toromq.Worker("q", processor, drain_delay=600, **options):
        await asleep(redis, prefix)
        await first.move_to_completed(None, "t", fetch_next=False)
        await aeventually(lambda: ran == [1])
    await hand.close()
    await queue.close()


async def test_a_worker_that_is_paused_under_a_limit_hands_on_what_woke_it(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix, "drain_delay": 600}
    queue: Any = toromq.Queue("q", connection=redisbox.url, prefix=prefix)
    ran: list[int] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    async def never(job: Any) -> None:
        raise AssertionError("it was to start nothing")

    limited: Any = toromq.Worker("q", never, limiter=RateLimit(1, 10), **options)
    async with limited:
        await asleep(redis, prefix)
        await queue.rate_limit(_LONG)
        await queue.add("n", 1)
        # It took the marker, found the limit and sleeps.
        await aeventually(lambda: not redis.exists(f"{prefix}:q:marker"))
        await limited.pause()
        await aeventually(lambda: redis.exists(f"{prefix}:q:marker"))
        # For this one there is no limit.
        async with toromq.Worker("q", processor, **options):
            await aeventually(lambda: ran == [1])
    await queue.remove_rate_limit_key()
    await queue.close()


async def limited(redis: redis_py.Redis, prefix: str, count: int) -> None:
    """Returns when so many workers wait for a change of the limits."""

    def sleep() -> bool:
        clients = [client for client in redis.client_list() if client["name"].startswith(f"{prefix}:")]
        return sum(client["cmd"].lower() == "xread" and "b" in client["flags"] for client in clients) == count

    await aeventually(sleep)


@pytest.mark.parametrize(
    ("limit", "change", "started"),
    [
        ("own", ("remove_rate_limit_key",), 6),
        ("queue's", ("remove_rate_limit_key",), 4),
        ("queue's", ("set_global_rate_limit", 5, _LONG), 5),
        ("queue's", ("remove_global_rate_limit",), 6),
        ("by hand", ("remove_rate_limit_key",), 6),
    ],
    ids=str,
)
async def test_workers_asleep_under_a_limit_are_woken_when_it_goes(
    redisbox: RedisBox,
    redis: redis_py.Redis,
    prefix: str,
    queue: Any,
    limit: str,
    change: tuple[Any, ...],
    started: int,
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix, "drain_delay": 600, "concurrency": 3}
    options["maximum_rate_limit_delay"] = _LONG
    ran: list[int] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    # Of each window a worker may start as many; the windows last longer than the test.
    if limit == "own":
        options["limiter"] = RateLimit(3, _LONG)
    elif limit == "queue's":
        await done(queue.set_global_rate_limit(2, _LONG))
    else:
        options["limiter"] = RateLimit(100, 10)
        await done(queue.rate_limit(_LONG))
    first = {"own": 3, "queue's": 2, "by hand": 0}[limit]
    await done(queue.add_bulk([("n", n) for n in range(6)]))
    async with toromq.Worker("q", processor, **options), toromq.Worker("q", processor, **options):
        await aeventually(lambda: len(ran) == first)
        await limited(redis, prefix, 2)
        await done(getattr(queue, change[0])(*change[1:]))
        await aeventually(lambda: len(ran) == started)
        # They sleep again where there is a limit still, and else wait for jobs.
        if started < 6:
            await limited(redis, prefix, 2)
            assert len(ran) == started
    await done(queue.remove_rate_limit_key())


async def test_a_limit_that_goes_while_a_worker_still_waits_for_jobs_wakes_it_as_well(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, queue: Any
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix, "drain_delay": 600}
    ran: list[int] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    async with toromq.Worker("q", processor, limiter=RateLimit(1, _LONG), **options):
        for n in range(3):
            await asleep(redis, prefix)
            await done(queue.add_bulk([("n", n), ("n", n)]))
            await aeventually(lambda n=n: len(ran) == 2 * n + 1)
            await done(queue.remove_rate_limit_key())
            await aeventually(lambda n=n: len(ran) == 2 * n + 2)
            await done(queue.remove_rate_limit_key())
    assert ran == [0, 0, 1, 1, 2, 2]


async def test_many_adds_do_not_wake_a_worker_under_a_limit(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, queue: Any
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix, "maximum_rate_limit_delay": _LONG}
    ran: list[int] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    async with toromq.Worker("q", processor, limiter=RateLimit(1, _LONG), **options):
        await done(queue.add("n", 0))
        await aeventually(lambda: ran == [0])
        await done(queue.add("n", 1))
        await limited(redis, prefix, 1)
        before = calls(redis)
        for n in range(20):
            await done(queue.add("n", n))
        # Each add is a script, and nothing else is called but what keeps locks and looks for stalled jobs.
        assert calls(redis) - before <= 22
        assert redis.exists(f"{prefix}:q:marker")
    await done(queue.remove_rate_limit_key())
    await done(queue.drain())


async def test_a_worker_that_can_t_listen_waits_for_the_end_of_a_limit_without_a_word(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, queue: Any
) -> None:
    options: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
    ran: list[int] = []
    errors: list[Exception] = []

    async def processor(job: Any) -> None:
        ran.append(job.data)

    # A job has the key, so it can't be read as a stream.
    redis.hset(f"{prefix}:q:limiter:wake", "name", "n")
    worker: Any = toromq.Worker("q", processor, limiter=RateLimit(1, 400), **options)
    worker.on("error", errors.append)
    async with worker:
        await done(queue.add_bulk([("n", n) for n in range(3)]))
        await aeventually(lambda: ran == [0, 1, 2])
    assert errors == []
    redis.delete(f"{prefix}:q:limiter:wake")
