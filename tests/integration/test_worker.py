"""What becomes of a job, by how its processor ended, for all kinds of processors; and what a rate limit allows."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from toromq import ConfigurationError, Queue, RateLimit, RateLimitError, UnrecoverableError, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
_HOUR = 3_600_000

pytestmark = pytest.mark.parametrize("kind", _KINDS)


class Place:
    """A queue of its own, and workers for it whose processor is a plain function, whatever their kind."""

    def __init__(self, kind: str, url: str, prefix: str, client: redispy.Redis) -> None:
        self.kind, self.redis = kind, client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format

    def worker(self, run: Callable[[Any], Any], **options: Any) -> Any:
        """A worker that was not started."""

        async def processor(job: Any) -> Any:
            return run(job)

        if self.kind == "def, blocking worker":
            return toromq.sync.Worker("q", run, **self.options, **options)
        return Worker("q", processor if self.kind == "async def" else run, **self.options, **options)

    @contextlib.asynccontextmanager
    async def working(self, run: Callable[[Any], Any], **options: Any) -> AsyncIterator[Any]:
        """A worker that runs within the block."""
        async with self.started(self.worker(run, **options)) as worker:
            yield worker

    @contextlib.asynccontextmanager
    async def started(self, worker: Any) -> AsyncIterator[Any]:
        """The worker, running within the block."""
        if self.kind != "def, blocking worker":
            async with worker:
                yield worker
            return
        await asyncio.to_thread(worker.__enter__)
        try:
            yield worker
        finally:
            await asyncio.to_thread(worker.close)

    async def ended(self, job_id: str, state: str, timeout: float = 10) -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found, timeout)

    async def all_ended(self) -> None:
        """Returns when no job waits or runs."""

        async def idle() -> bool:
            return not any((await self.queue.get_job_counts("waiting", "active", "delayed")).values())

        await aeventually(idle)  # type: ignore[arg-type]


@pytest.fixture
async def place(kind: str, redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(kind, redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


class Failing:
    """A processor that raises `error` at the first `times` runs, and tells how often each job ran."""

    def __init__(self, error: Callable[[], BaseException], times: int = 10**6) -> None:
        self.error, self.times = error, times
        self.made: list[int] = []

    def __call__(self, job: Any) -> str:
        self.made.append(job.attempts_made)
        if len(self.made) <= self.times:
            raise self.error()
        return "at last"


class Mute(Exception):
    """Can't be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Odd(BaseException):
    """No Exception."""


class Hopeless(UnrecoverableError):
    """A user's own."""


# --- what a processor returns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, 0, "text", "\x00 \u2028 é \U0001f600", [1, [2.5, None]], {"a": {"b": True}}, 2**60], ids=repr
)
async def test_a_result_is_stored_as_it_was_returned(place: Place, value: Any) -> None:
    job = await place.queue.add("n", {"given": value})
    async with place.working(lambda job: job.data["given"]):
        ended = await place.ended(job.id, "completed")
    assert ended.returnvalue == value
    assert (ended.attempts_made, ended.attempts_started, ended.failed_reason) == (1, 1, None)


@pytest.mark.parametrize(
    ("value", "path"), [({"a": [1, {2}]}, "returnvalue.a[1]"), (b"x", "returnvalue"), ("\ud800", "returnvalue")]
)
async def test_a_result_that_is_no_json_fails_the_job_for_good_and_names_the_path(
    place: Place, value: Any, path: str
) -> None:
    job = await place.queue.add("n", attempts=3)
    async with place.working(lambda _: value):
        ended = await place.ended(job.id, "failed")
    assert ended.attempts_started == 1
    assert ended.failed_reason.startswith(f"{path}:")


# --- what a processor raises ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: ValueError("why"), "why"),
        (lambda: ValueError(), "ValueError"),
        (lambda: ValueError("a\ud800b"), "a?b"),
        (lambda: ValueError("nul \x00 and \U0001f600"), "nul \x00 and \U0001f600"),
        (Mute, "Mute, whose message could not be made"),
        (lambda: Odd("odd"), "odd"),
        (lambda: ExceptionGroup("several", [ValueError("one"), TypeError("two")]), "several (2 sub-exceptions)"),
        (lambda: asyncio.CancelledError("on its own"), "on its own"),
        (asyncio.CancelledError, "CancelledError"),
        (lambda: Hopeless("no use"), "no use"),
    ],
    ids=["message", "none", "surrogate", "nul", "unprintable", "base", "group", "cancelled", "cancelled bare", "own"],
)
async def test_whatever_is_raised_fails_the_attempt_and_the_worker_goes_on(
    place: Place, error: Callable[[], BaseException], reason: str
) -> None:
    job, after = await place.queue.add_bulk([("n", 1), ("n", 2)])
    processor = Failing(error, times=1)
    async with place.working(processor):
        failed = await place.ended(job.id, "failed")
        await place.ended(after.id, "completed")
    assert (failed.failed_reason, failed.attempts_made, processor.made) == (reason, 1, [0, 0])
    (trace,) = failed.stacktrace
    assert type(error()).__name__ in trace


@pytest.mark.parametrize("limit", [None, 2, 1, 0])
async def test_tracebacks_are_pythons_own_and_the_newest_are_kept(place: Place, limit: int | None) -> None:
    def cause(job: Any) -> None:
        raise KeyError(f"cause {job.attempts_made}")

    def processor(job: Any) -> None:
        try:
            cause(job)
        except KeyError as error:
            raise ValueError(f"failure {job.attempts_made}") from error

    options = {} if limit is None else {"stack_trace_limit": limit}
    job = await place.queue.add("n", attempts=3, **options)  # type: ignore[arg-type]
    async with place.working(processor):
        ended = await place.ended(job.id, "failed")
    kept = [0, 1, 2][3 - (3 if limit is None else limit) :]
    assert len(ended.stacktrace) == len(kept)
    for n, trace in zip(kept, ended.stacktrace, strict=True):
        assert trace.startswith("Traceback (most recent call last):\n")
        assert f"KeyError: 'cause {n}'" in trace
        assert f'test_worker.py", line {cause.__code__.co_firstlineno + 1}, in cause\n' in trace
        assert "The above exception was the direct cause" in trace
        assert trace.rstrip().endswith(f"ValueError: failure {n}")


@pytest.mark.parametrize(
    ("error", "attempts", "runs", "state"),
    [
        (ValueError, 3, [0, 1, 2], "failed"),
        (ValueError, 4, [0, 1, 2, 3], "completed"),
        (ValueError, 0, [0], "failed"),
        (asyncio.CancelledError, 3, [0, 1, 2], "failed"),
        (UnrecoverableError, 4, [0], "failed"),
        (Hopeless, 4, [0], "failed"),
    ],
)
async def test_a_job_is_tried_as_often_as_it_has_attempts(
    place: Place, error: type[BaseException], attempts: int, runs: list[int], state: str
) -> None:
    job = await place.queue.add("n", attempts=attempts)
    processor = Failing(error, times=3)
    async with place.working(processor):
        ended = await place.ended(job.id, state)
    assert processor.made == runs
    assert (ended.attempts_made, ended.attempts_started) == (len(runs), len(runs))


async def test_a_rate_limited_job_is_the_next_to_run_and_spends_no_attempt(place: Place) -> None:
    first, second = await place.queue.add_bulk([("n", 1), ("n", 2)])
    ran: list[str] = []

    def processor(job: Any) -> None:
        ran.append(job.id)
        if len(ran) < 4:
            raise RateLimitError

    async with place.working(processor):
        ended = await place.ended(first.id, "completed")
        await place.ended(second.id, "completed")
    assert ran == [first.id] * 4 + [second.id]
    assert (ended.attempts_made, ended.attempts_started, ended.failed_reason) == (1, 4, None)


# --- when it is tried again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "made", "low", "high"),
    [
        (_HOUR, 0, _HOUR, _HOUR),
        (_HOUR, 4, _HOUR, _HOUR),
        ({"type": "fixed", "delay": _HOUR}, 2, _HOUR, _HOUR),
        ({"type": "fixed", "delay": _HOUR, "jitter": 0.5}, 0, _HOUR // 2, _HOUR),
        ({"type": "fixed", "delay": _HOUR, "jitter": 1}, 0, 0, _HOUR),
        ({"type": "exponential", "delay": _HOUR}, 0, _HOUR, _HOUR),
        ({"type": "exponential", "delay": _HOUR}, 3, 8 * _HOUR, 8 * _HOUR),
        ({"type": "exponential", "delay": _HOUR, "jitter": 0.25}, 2, 3 * _HOUR, 4 * _HOUR),
    ],
    ids=str,
)
async def test_a_retry_waits_as_long_as_its_backoff_says(
    place: Place, backoff: Any, made: int, low: int, high: int
) -> None:
    job = await place.queue.add("n", attempts=10, backoff=backoff)
    place.redis.hset(place.key(job.id), "atm", made)
    async with place.working(Failing(ValueError)):
        waits = await place.ended(job.id, "delayed")
    assert low <= waits.delay <= high
    assert waits.attempts_made == made + 1


async def _answer_later(answer: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.mark.parametrize("is_async", [False, True], ids=["plain strategy", "async strategy"])
@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        (_HOUR, "delayed", None),
        (_HOUR + 0.4, "delayed", None),
        (0, "completed", None),
        (None, "completed", None),
        (-1, "failed", None),
        (RuntimeError("broken strategy"), "completed", RuntimeError),
        ("soon", "completed", ValueError),
        (math.nan, "completed", ValueError),
        (math.inf, "completed", ValueError),
    ],
    ids=str,
)
async def test_ones_own_strategy_decides_on_the_retry(
    place: Place, answer: Any, state: str, told: type[Exception] | None, is_async: bool
) -> None:
    asked: list[tuple[Any, ...]] = []
    errors: list[Exception] = []

    def strategy(attempt: int, kind: str, error: BaseException, job: Any) -> Any:
        asked.append((attempt, kind, str(error), job.id))
        if is_async:
            return _answer_later(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    job = await place.queue.add("n", attempts=3, backoff={"type": "mine"})
    worker = place.worker(Failing(lambda: ValueError("why"), times=1), backoff_strategy=strategy)
    worker.on("error", errors.append)
    async with place.started(worker):
        ended = await place.ended(job.id, state)
        assert asked == [(1, "mine", "why", job.id)]
        if state == "delayed":
            assert ended.delay >= _HOUR
        if told is None:
            assert errors == []
        else:
            await aeventually(lambda: len(errors) == 1 and isinstance(errors[0], told))


async def test_a_strategy_that_is_missing_is_told_and_the_job_tried_at_once(place: Place) -> None:
    errors: list[Exception] = []
    job = await place.queue.add("n", attempts=2, backoff={"type": "mine"})
    worker = place.worker(Failing(ValueError, times=1))
    worker.on("error", errors.append)
    async with place.started(worker):
        await place.ended(job.id, "completed")
        await aeventually(lambda: [type(error) for error in errors] == [ConfigurationError])
    assert "'mine'" in str(errors[0])


async def test_a_strategy_is_not_asked_where_no_try_is_left(place: Place) -> None:
    asked: list[int] = []
    job = await place.queue.add("n", attempts=2, backoff={"type": "mine"})
    strategy = lambda attempt, *_: asked.append(attempt) or 1  # noqa: E731
    async with place.working(Failing(ValueError), backoff_strategy=strategy):
        await place.ended(job.id, "failed")
    assert asked == [1]


async def test_listeners_get_the_job_as_it_was_written_down(place: Place) -> None:
    told: list[Any] = []

    def tell(job: Any, _: Any) -> None:
        told.append((job.attempts_made, job.finished_on, job.returnvalue, job.failed_reason, len(job.stacktrace)))

    added = await place.queue.add("n", attempts=2)
    worker = place.worker(Failing(lambda: ValueError("why"), times=1))
    worker.on("failed", tell)
    worker.on("completed", tell)
    async with place.started(worker):
        ended = await place.ended(added.id, "completed")
        await aeventually(lambda: len(told) == 2)
    assert told[0] == (1, None, None, "why", 1)
    assert told[1] == (2, ended.finished_on, "at last", "why", 1)
    told.clear()

    added = await place.queue.add("n")
    worker = place.worker(Failing(lambda: ValueError("why")))
    worker.on("failed", tell)
    async with place.started(worker):
        ended = await place.ended(added.id, "failed")
        await aeventually(lambda: len(told) == 1)
    assert told == [(1, ended.finished_on, None, "why", 1)]


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["completed", "failed"])
@pytest.mark.parametrize(
    ("own", "workers", "kept"),
    [
        (None, None, "01234"),
        (True, None, ""),
        (2, None, "34"),
        (0, None, ""),
        ({"count": 1}, None, "4"),
        ({"age": 3600}, None, "1234"),
        ({"age": 3600, "count": 2}, None, "34"),
        (None, True, ""),
        (None, {"age": 3600}, "1234"),
        (False, True, "01234"),
        (3, 1, "234"),
    ],
    ids=str,
)
async def test_finished_jobs_are_kept_by_their_own_policy_else_the_workers(
    place: Place, own: Any, workers: Any, kept: str, state: str
) -> None:
    option = "remove_on_complete" if state == "completed" else "remove_on_fail"
    options = {} if own is None else {option: own}
    jobs = await place.queue.add_bulk([("n", n, options) for n in range(5)])

    def processor(job: Any) -> None:
        if job.data == 1:
            # By now the first is two hours old.
            old = job.timestamp - 2 * _HOUR
            if place.redis.zadd(place.key(state), {jobs[0].id: old}, xx=True, ch=True):
                place.redis.hset(place.key(jobs[0].id), "finishedOn", old)
        if state == "failed":
            raise ValueError

    async with place.working(processor, **{option: workers}):
        await place.all_ended()
    left = await place.queue.get_jobs(state, asc=True)
    assert "".join(str(job.data) for job in left) == kept
    assert [bool(place.redis.exists(place.key(job.id))) for job in jobs] == [str(job.data) in kept for job in jobs]


# --- how many may begin -----------------------------------------------------------------------------------------------


async def test_no_more_jobs_start_in_a_window_than_the_limiter_allows(place: Place) -> None:
    most, duration = 3, 200
    await place.queue.add_bulk([("n", n) for n in range(8)])
    async with place.working(lambda _: None, concurrency=8, limiter=RateLimit(most, duration)):
        await place.all_ended()
    # Entry ids are Redis' own clock, by which the limiter's key expires.
    entries: list[Any] = place.redis.xrange(place.key("events"))  # type: ignore[assignment]
    starts = [int(entry.split("-")[0]) for entry, fields in entries if fields["event"] == "active"]
    assert len(starts) == 8
    while starts:
        window = [start for start in starts if start < starts[0] + duration]
        assert len(window) <= most
        starts = starts[len(window) :]
