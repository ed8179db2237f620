"""Jobs that their own processors put somewhere else, in every kind of processor: later, back, behind their children."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from tests.support.redisbox import RedisBox
from toromq import (
    ConfigurationError,
    DelayedError,
    JobNotFoundError,
    Queue,
    RateLimitError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from toromq.errors import FailedChildrenError, LockMismatchError, LockMissingError

if TYPE_CHECKING:
    import redis as redispy

_KINDS = ("async def", "def", "def, blocking worker")
_HOUR = 3_600_000
# Only to end a test that found a deadlock.
_LONG = 20
_all_kinds = pytest.mark.parametrize("kind", _KINDS)
_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])

# A processor as a generator: it yields what an async one would await, and is sent what that gave.
Steps = Callable[[Any], Any]


async def _as_coroutine(steps: Any) -> Any:
    answer, error = None, None
    while True:
        try:
            step = steps.throw(error) if error is not None else steps.send(answer)
        except StopIteration as end:
            return end.value
        answer, error = None, None
        try:
            answer = await step if inspect.isawaitable(step) else step
        except Exception as raised:
            error = raised


def _as_function(steps: Any) -> Any:
    """The same, where calling was doing; a call that raised did so inside the generator."""
    answer = None
    while True:
        try:
            answer = steps.send(answer)
        except StopIteration as end:
            return end.value


class Place:
    """A queue of its own, its keys, and workers whose processor is a generator, whatever their kind."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis, self.prefix = client, prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[tuple[str, int, int]] = []
        self.told: list[tuple[Any, ...]] = []

    def worker(self, kind: str, steps: Steps, **options: Any) -> Any:
        """A worker that notes what it runs and what it tells."""

        async def coroutine(job: Any) -> Any:
            self.ran.append((job.id, job.attempts_made, job.attempts_started))
            return await _as_coroutine(steps(job))

        def function(job: Any) -> Any:
            self.ran.append((job.id, job.attempts_made, job.attempts_started))
            return _as_function(steps(job))

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        processor = coroutine if kind == "async def" else function
        worker = module.Worker("q", processor, **{**self.options, **options})
        for event in ("completed", "failed", "stalled", "lock_lost", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    @contextlib.asynccontextmanager
    async def working(self, kind: str, steps: Steps, **options: Any) -> AsyncIterator[Any]:
        """A worker that runs within the block."""
        worker = self.worker(kind, steps, **options)
        if not isinstance(worker, toromq.sync.Worker):
            async with worker:
                yield worker
            return
        await asyncio.to_thread(worker.__enter__)
        try:
            yield worker
        finally:
            await asyncio.to_thread(worker.close)

    async def ended(self, job_id: str, state: str) -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)

    def give_child(self, parent_id: str, child_id: str = "c", prefix_of_key: str = "") -> str:
        """A pending child in a queue of its own; gives its key."""
        base = f"{self.prefix}:children"
        key = f"{base}:{child_id}"
        parent = f'{{"id":"{parent_id}","queueKey":"{self.prefix}:q"}}'
        fields = {"name": "c", "data": "{}", "opts": "{}", "timestamp": 1, "delay": 0, "priority": 0}
        self.redis.hset(key, mapping={**fields, "parentKey": self.key(parent_id), "parent": parent})
        self.redis.lpush(f"{base}:wait", child_id)
        self.redis.zadd(f"{base}:marker", {"0": 0})
        self.redis.sadd(self.key(f"{parent_id}:dependencies"), key)
        return key

    async def finish_children(self) -> None:
        """Completes them all."""
        async with toromq.Worker("children", _nothing, **self.options):
            await aeventually(lambda: self.redis.exists(f"{self.prefix}:children:wait") == 0)

    def events(self, job_id: str) -> list[tuple[str, str | None]]:
        """What was published of a job, with the state it came from."""
        entries = [fields for _, fields in self.redis.xrange(self.key("events"))]
        return [(fields["event"], fields.get("prev")) for fields in entries if fields.get("jobId") == job_id]


async def _nothing(job: Any) -> None:
    pass


async def _call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a method of either face."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redispy.Redis) -> AsyncIterator[Place]:
    """One for each test."""
    place = Place(redisbox.url, prefix, redis)
    yield place
    await place.queue.close()


# --- later ------------------------------------------------------------------------------------------------------------


def _moved_by_call(due: int) -> Steps:
    def steps(job: Any) -> Any:
        yield job.move_to_delayed(due)
        assert 0 < job.delay <= due
        raise DelayedError

    return steps


def _moved_by_call_with_a_datetime(due: int) -> Steps:
    def steps(job: Any) -> Any:
        yield job.move_to_delayed(datetime.fromtimestamp(due / 1000, UTC), job.token)
        raise DelayedError("see you")

    return steps


def _raised_with(**when: Any) -> Steps:
    def steps(job: Any) -> Any:
        yield None
        raise DelayedError(**when)

    return steps


@_all_kinds
@pytest.mark.parametrize("make", [_moved_by_call, _moved_by_call_with_a_datetime, lambda due: _raised_with(run_at=due)])
async def test_a_job_can_be_put_off_until_a_moment(place: Place, kind: str, make: Callable[[int], Steps]) -> None:
    due = time.time_ns() // 1_000_000 + _HOUR
    job = await place.queue.add("n", attempts=3)
    async with place.working(kind, make(due)):
        later = await place.ended(job.id, "delayed")
        after = await place.queue.add("n")
        await aeventually(lambda: after.id in [ran[0] for ran in place.ran])
    assert _HOUR - 60_000 < later.delay <= _HOUR + 1
    score = place.redis.zscore(place.key("delayed"), job.id)
    assert due <= score // 4096 <= due + 60_000
    assert (later.attempts_made, later.attempts_started) == (0, 1)
    assert (later.failed_reason, later.stacktrace, place.told) == (None, [], [])
    assert place.redis.exists(place.key(f"{job.id}:lock"), place.key("active")) == 0
    assert place.events(job.id)[-2:] == [("active", "waiting"), ("delayed", None)]


@_all_kinds
@pytest.mark.parametrize("delay", [_HOUR, timedelta(hours=1)])
async def test_a_job_can_be_put_off_for_a_time(place: Place, kind: str, delay: Any) -> None:
    job = await place.queue.add("n")
    async with place.working(kind, _raised_with(delay=delay)):
        later = await place.ended(job.id, "delayed")
    assert _HOUR - 60_000 < later.delay <= _HOUR + 1
    assert place.told == []


@_all_kinds
@pytest.mark.parametrize("by_call", [True, False])
async def test_a_job_that_was_put_off_runs_again_when_it_is_due(place: Place, kind: str, by_call: bool) -> None:
    def steps(job: Any) -> Any:
        if job.attempts_started < 3:
            if not by_call:
                raise DelayedError(delay=20)
            yield job.move_to_delayed(time.time_ns() // 1_000_000 + 20)
            raise DelayedError
        return "at last"

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        ended = await place.ended(job.id, "completed")
    assert (ended.returnvalue, ended.attempts_made) == ("at last", 1)
    assert place.ran == [(job.id, 0, n) for n in (1, 2, 3)]


@_all_kinds
async def test_a_moment_that_has_passed_is_now(place: Place, kind: str) -> None:
    def steps(job: Any) -> Any:
        if job.attempts_started == 1:
            yield job.move_to_delayed(0)
            raise DelayedError
        return job.delay

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        assert (await place.ended(job.id, "completed")).returnvalue == 0


@_all_kinds
async def test_a_delay_that_does_not_say_until_when_is_told_and_loses_nothing(place: Place, kind: str) -> None:
    def steps(job: Any) -> Any:
        yield None
        if job.attempts_started == 1:
            raise DelayedError
        return "fine"

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        assert (await place.ended(job.id, "completed")).returnvalue == "fine"
        await aeventually(lambda: {told[0] for told in place.told} == {"error", "completed"})
    (error,) = (told[1] for told in place.told if told[0] == "error")
    assert str(error).startswith(f"the processor of job {job.id} raised DelayedError and did not say until when")


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"delay": -1}, "delay: got -1"),
        ({"delay": "1"}, "delay: got '1'"),
        ({"run_at": datetime(2035, 1, 1)}, "run_at: got the naive datetime"),
        ({"delay": 1, "run_at": 1}, "delay and run_at: give one of them"),
    ],
)
def test_a_bad_time_is_refused_where_it_is_given(when: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        DelayedError(**when)


# --- back -------------------------------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("priority", [0, 7])
@pytest.mark.parametrize("how", ["call", "WaitingError", "RateLimitError", "call, RateLimitError"])
async def test_a_job_that_goes_back_is_the_next_to_run(place: Place, kind: str, priority: int, how: str) -> None:
    def steps(job: Any) -> Any:
        if job.data == "back" and job.attempts_started == 1:
            if "call" in how:
                yield job.move_to_wait()
            raise RateLimitError if "RateLimitError" in how else WaitingError

    jobs = await place.queue.add_bulk([("n", data, {"priority": priority}) for data in ("back", "other")])
    async with place.working(kind, steps):
        await place.ended(jobs[1].id, "completed")
        back = await place.ended(jobs[0].id, "completed")
    assert [ran[0] for ran in place.ran] == [jobs[0].id, jobs[0].id, jobs[1].id]
    assert (back.attempts_made, back.attempts_started) == (1, 2)
    assert [told[0] for told in place.told] == ["completed"] * 2
    assert place.events(back.id)[2:4] == [("active", "waiting"), ("waiting", "active")]


@_all_kinds
async def test_a_run_that_goes_on_beside_a_later_run_of_its_job_harms_nobody(place: Place, kind: str) -> None:
    let_go = threading.Event()

    def steps(job: Any) -> Any:
        if job.attempts_started == 1:
            yield job.move_to_wait()
            yield _until(let_go, kind)
            raise WaitingError
        return f"by run {job.attempts_started}"

    job = await place.queue.add("n")
    async with place.working(kind, steps, concurrency=2, lock_renew_time=50):
        # The other slot takes it while the first run goes on.
        ended = await place.ended(job.id, "completed")
        let_go.set()
        after = await place.queue.add_bulk([("n", n) for n in range(4)])
        for one in after:
            await aeventually(lambda one=one: one.id in [ran[0] for ran in place.ran])
    assert (ended.returnvalue, ended.attempts_made) == ("by run 2", 1)
    assert "error" not in [told[0] for told in place.told]
    assert "lock_lost" not in [told[0] for told in place.told]


def _until(event: threading.Event, kind: str) -> Any:
    if kind == "async def":
        return aeventually(event.is_set, _LONG)
    return event.wait(_LONG)


# --- behind its children ----------------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("how", ["all", "one", "WaitingChildrenError"])
async def test_a_job_waits_for_its_children_and_runs_again(place: Place, kind: str, how: str) -> None:
    job = await place.queue.add("n")
    child = f"{place.prefix}:children:c"

    def steps(job: Any) -> Any:
        if job.attempts_started == 1:
            place.give_child(job.id)
            if how != "WaitingChildrenError":
                assert (yield job.move_to_waiting_children(child=child if how == "one" else None)) is True
            raise WaitingChildrenError
        assert (yield job.move_to_waiting_children()) is False
        return "all done"

    async with place.working(kind, steps):
        waiting = await place.ended(job.id, "waiting-children")
        assert (waiting.attempts_made, waiting.attempts_started, place.told) == (0, 1, [])
        assert place.redis.exists(place.key(f"{job.id}:lock"), place.key("active")) == 0
        assert place.events(job.id)[-1] == ("waiting-children", "active")
        await place.finish_children()
        ended = await place.ended(job.id, "completed")
    assert (ended.returnvalue, ended.attempts_made, ended.attempts_started) == ("all done", 1, 2)


@_all_kinds
async def test_a_job_without_pending_children_goes_on_and_completes(place: Place, kind: str) -> None:
    def steps(job: Any) -> Any:
        alone = yield job.move_to_waiting_children()
        return [alone, (yield job.move_to_waiting_children(child=f"{place.prefix}:children:none"))]

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        assert (await place.ended(job.id, "completed")).returnvalue == [False, False]


@_all_kinds
async def test_a_signal_to_wait_for_children_that_are_not_there_runs_the_job_again(place: Place, kind: str) -> None:
    def steps(job: Any) -> Any:
        yield None
        if job.attempts_started == 1:
            raise WaitingChildrenError
        return "fine"

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        ended = await place.ended(job.id, "completed")
    assert (ended.returnvalue, ended.attempts_made, ended.attempts_started) == ("fine", 1, 2)


@_all_kinds
@pytest.mark.parametrize("how", ["call", "WaitingChildrenError", "caught"])
@pytest.mark.leaves_keys_broken("a failed child that is no job")
async def test_a_failed_child_fails_the_job_for_good_unless_it_is_caught(place: Place, kind: str, how: str) -> None:
    def steps(job: Any) -> Any:
        if how == "WaitingChildrenError":
            raise WaitingChildrenError
        try:
            yield job.move_to_waiting_children()
        except FailedChildrenError:
            if how == "call":
                raise
            raise ValueError("one child is missing") from None

    job = await place.queue.add("n", attempts=2)
    place.redis.zadd(place.key(f"{job.id}:unsuccessful"), {f"{place.prefix}:children:c": 1})
    async with place.working(kind, steps):
        ended = await place.ended(job.id, "failed")
        await aeventually(lambda: [told[0] for told in place.told].count("failed") == ended.attempts_made)
    if how == "caught":
        assert (ended.failed_reason, ended.attempts_made) == ("one child is missing", 2)
    else:
        reason = f"move_to_waiting_children of job {job.id}: the job has at least one failed child"
        assert (ended.failed_reason, ended.attempts_made) == (reason, 1)
        assert isinstance(place.told[0][2], FailedChildrenError)
        assert place.told[0][2].code == -9


@_both_faces
async def test_a_child_is_named_by_its_job_or_its_key(place: Place, face: Any) -> None:
    parents = await place.queue.add_bulk([("n", n) for n in range(2)])
    worker = face.Worker("q", **place.options)
    queue = face.Queue("children", **place.options)
    for parent in parents:
        job = await _call(worker.get_next_job, "mine")
        assert job.id == parent.id
        key = place.give_child(job.id, f"c{job.id}")
        child = await _call(queue.get_job, f"c{job.id}")
        for wrong in (7, "c", "children:c", b"a:b:c"):
            with pytest.raises(ConfigurationError, match=r"^child: got"):
                await _call(job.move_to_waiting_children, child=wrong)
        assert await _call(job.move_to_waiting_children, child=child if parent is parents[0] else key) is True
    await place.finish_children()
    for _ in parents:
        job = await _call(worker.get_next_job, "mine")
        await _call(job.move_to_completed, None, "mine", fetch_next=False)


# --- processors that go on --------------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("how", ["returned", "raised ValueError: why"])
async def test_what_a_processor_says_after_it_moved_its_job_is_told_and_not_stored(
    place: Place, kind: str, how: str
) -> None:
    def steps(job: Any) -> Any:
        yield job.move_to_delayed(time.time_ns() // 1_000_000 + _HOUR)
        if how != "returned":
            raise ValueError("why")
        return "a result"

    job = await place.queue.add("n", attempts=3)
    async with place.working(kind, steps):
        await aeventually(lambda: [told[0] for told in place.told] == ["error"])
        later = await place.ended(job.id, "delayed")
    assert str(place.told[0][1]) == (
        f"the processor of job {job.id} moved it to delayed and then {how}, which is not stored; raise DelayedError "
        "after the move"
    )
    assert (later.attempts_made, later.returnvalue, later.failed_reason, later.finished_on) == (0, None, None, None)


@_all_kinds
async def test_a_processor_keeps_its_slot_until_it_ends(place: Place, kind: str) -> None:
    let_go = threading.Event()

    def steps(job: Any) -> Any:
        if job.data == "first":
            yield job.move_to_delayed(time.time_ns() // 1_000_000 + _HOUR)
            yield _until(let_go, kind)
            raise DelayedError

    first, second, third = await place.queue.add_bulk([("n", data) for data in ("first", "second", "third")])
    async with place.working(kind, steps, lock_renew_time=20, name="busy") as worker:
        await place.ended(first.id, "delayed")
        assert worker.cancel_job(first.id) is False
        # The others are left to whoever has a slot.
        async with place.working("async def", _once_let(let_go), name="other"):
            assert (await place.ended(second.id, "active")).processed_by == "other"
            assert await place.queue.get_job_state(third.id) == "waiting"
            let_go.set()
            await place.ended(third.id, "completed")
        after = await place.queue.add("n")
        assert (await place.ended(after.id, "completed")).processed_by == "busy"
    assert {told[0] for told in place.told} == {"completed"}


@_all_kinds
async def test_a_second_move_is_refused_and_frees_no_slot(place: Place, kind: str) -> None:
    let_go = threading.Event()
    refused: list[Exception] = []

    def steps(job: Any) -> Any:
        if job.data != "first":
            return
        yield job.move_to_delayed(time.time_ns() // 1_000_000 + _HOUR)
        try:
            yield job.move_to_wait()
        except LockMissingError as error:
            refused.append(error)
        yield _until(let_go, kind)
        raise DelayedError

    _, second, third = await place.queue.add_bulk([("n", data) for data in ("first", "second", "third")])
    async with place.working(kind, steps, name="busy"):
        await aeventually(lambda: bool(refused))
        async with place.working("async def", _once_let(let_go), name="other"):
            assert (await place.ended(second.id, "active")).processed_by == "other"
            assert await place.queue.get_job_state(third.id) == "waiting"
            let_go.set()
            await place.ended(third.id, "completed")


async def test_a_move_that_nobody_awaits_costs_no_slot(place: Place) -> None:
    moves: list[asyncio.Future[Any]] = []

    async def forgetful(job: Any) -> None:
        moves.append(asyncio.ensure_future(job.move_to_delayed(time.time_ns() // 1_000_000 + _HOUR)))

    jobs = await place.queue.add_bulk([("n", number) for number in range(30)])
    async with toromq.Worker("q", forgetful, **place.options, concurrency=2):
        for job in jobs:
            await place.ended(job.id, "completed")
    assert {type(error) for error in await asyncio.gather(*moves, return_exceptions=True)} == {LockMissingError}


async def test_a_processor_that_ends_while_its_job_is_moved_is_told_so() -> None:
    errors: list[str] = []
    moves: list[asyncio.Future[Any]] = []
    with RedisBox() as box:

        async def impatient(job: Any) -> None:
            box.pause()
            moves.append(asyncio.ensure_future(job.move_to_delayed(time.time_ns() // 1_000_000 + _HOUR)))
            # From now on it is not this worker's.
            await aeventually(lambda: not worker._native.held(None))  # type: ignore[union-attr]
            asyncio.get_running_loop().call_later(0.05, box.unpause)
            raise ValueError("why")

        worker: toromq.Worker[Any, Any] = toromq.Worker("q", impatient, connection=box.url)
        worker.on("error", lambda error: errors.append(str(error)))
        async with Queue("q", connection=box.url) as queue, worker:
            job = await queue.add("n")
            await aeventually(lambda: bool(errors))
            assert await job.is_delayed()
            await asyncio.gather(*moves)
    assert errors == [
        f"the processor of job {job.id} ended before the answer to its move_to_delayed was there; what it returned or "
        "raised is not stored"
    ]
    assert (worker._errors, worker._results) == ({}, {})


@_all_kinds
async def test_a_parent_that_returns_too_early_leaves_no_result_behind(place: Place, kind: str) -> None:
    def steps(job: Any) -> Any:
        place.give_child(job.id)
        return "too early"
        yield

    await place.queue.add("n")
    async with place.working(kind, steps) as worker:
        await aeventually(lambda: [told[0] for told in place.told] == ["failed"])
        assert (worker._errors, worker._results) == ({}, {})


def _once_let(event: threading.Event) -> Steps:
    def steps(job: Any) -> Any:
        yield aeventually(event.is_set, _LONG)

    return steps


@_all_kinds
@pytest.mark.leaves_keys_broken("a lock that was taken away")
@pytest.mark.parametrize("move", ["move_to_delayed", "move_to_wait", "move_to_waiting_children"])
@pytest.mark.parametrize(("lock", "error"), [("another worker", LockMismatchError), (None, LockMissingError)])
async def test_a_job_whose_lock_is_gone_can_not_be_moved(
    place: Place, kind: str, move: str, lock: str | None, error: type[Exception]
) -> None:
    caught: list[BaseException] = []

    def steps(job: Any) -> Any:
        if lock is None:
            place.redis.delete(place.key(f"{job.id}:lock"))
        else:
            place.redis.set(place.key(f"{job.id}:lock"), lock, px=60_000)
        place.give_child(job.id)
        try:
            yield getattr(job, move)(*([_HOUR] if move == "move_to_delayed" else []))
        except error as refused:
            caught.append(refused)
            raise

    job = await place.queue.add("n")
    async with place.working(kind, steps):
        await aeventually(lambda: [told[0] for told in place.told] == ["lock_lost", "error"])
    assert [(type(one), one.job_id) for one in caught] == [(error, job.id)]  # type: ignore[attr-defined]
    assert str(caught[0]).startswith(f"{move} of job {job.id}: ")
    assert await job.get_state() == "active"
    assert place.redis.hget(place.key(job.id), "failedReason") is None


@_all_kinds
async def test_a_removed_job_can_not_be_moved(place: Place, kind: str) -> None:
    caught: list[BaseException] = []

    def steps(job: Any) -> Any:
        place.redis.delete(place.key(job.id), place.key(f"{job.id}:lock"), place.key("active"))
        try:
            yield job.move_to_wait()
        except JobNotFoundError as error:
            caught.append(error)
            raise UnrecoverableError("gone") from None

    await place.queue.add("n")
    async with place.working(kind, steps):
        await aeventually(lambda: [told[0] for told in place.told] == ["lock_lost", "error"])
    assert len(caught) == 1


# --- by hand ----------------------------------------------------------------------------------------------------------


@_both_faces
async def test_jobs_fetched_by_hand_are_moved_and_keep_their_locks(place: Place, face: Any) -> None:
    added = await place.queue.add("n")
    worker = face.Worker("q", lock_duration=60_000, **place.options)
    job = await _call(worker.get_next_job, "mine")
    await _call(job.extend_lock, "mine", 600_000)
    assert 540_000 < place.redis.pttl(place.key(f"{job.id}:lock")) <= 600_000
    await _call(job.extend_lock, None, timedelta(minutes=20))
    assert 1_140_000 < place.redis.pttl(place.key(f"{job.id}:lock")) <= 1_200_000
    await _call(job.move_to_wait)
    assert await place.queue.get_job_state(added.id) == "waiting"
    again = await _call(worker.get_next_job, "other")
    # Another object of the same job knows no token, and takes one.
    queue = face.Queue("q", **place.options)
    same = await _call(queue.get_job, added.id)
    for call in (same.move_to_wait, same.move_to_waiting_children, lambda: same.extend_lock(None, 1)):
        with pytest.raises(ConfigurationError, match=r"^token: job .* give the token under which it is locked"):
            await (_call(call) if face is toromq.sync or asyncio.iscoroutinefunction(call) else call())
    place.give_child(again.id)
    assert await _call(same.move_to_waiting_children, "other") is True
    await place.finish_children()
    last = await _call(worker.get_next_job, "last")
    await _call(last.move_to_delayed, time.time_ns() // 1_000_000 + _HOUR)
    assert (await place.ended(added.id, "delayed")).attempts_started == 3


@_both_faces
async def test_a_refused_move_changes_nothing(place: Place, face: Any) -> None:
    added = await place.queue.add("n")
    worker = face.Worker("q", **place.options)
    job = await _call(worker.get_next_job, "mine")
    place.give_child(job.id)
    before = keyspace(place.redis, place.prefix)
    for token, error in (("other", LockMismatchError), ("", ConfigurationError), ("0", ConfigurationError)):
        for call, arguments in (
            (job.move_to_delayed, (_HOUR, token)),
            (job.move_to_wait, (token,)),
            (job.move_to_waiting_children, (token,)),
            (job.extend_lock, (token, 5)),
        ):
            with pytest.raises(error):
                await _call(call, *arguments)
    for when in (datetime(2035, 1, 1), "now", None, -1):
        with pytest.raises(ConfigurationError, match=r"^timestamp: got"):
            await _call(job.move_to_delayed, when)
    for duration in (0, -1, "1", None, timedelta(0)):
        with pytest.raises(ConfigurationError, match=r"^duration: got"):
            await _call(job.extend_lock, "mine", duration)
    assert keyspace(place.redis, place.prefix) == before
    place.redis.delete(place.key(f"{added.id}:dependencies"), f"{place.prefix}:children:c")
    place.redis.delete(f"{place.prefix}:children:wait")
    await _call(job.move_to_completed, None, "mine", fetch_next=False)


# --- replies that get lost --------------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("move", ["move_to_delayed", "move_to_wait", "move_to_waiting_children"])
async def test_a_move_whose_reply_was_lost_is_recognised(
    place: Place, kind: str, move: str, redisbox: RedisBox
) -> None:
    command = "move_to_waiting_children" if move == "move_to_waiting_children" else "finish_and_fetch"
    moved: list[Any] = []

    def steps(job: Any) -> Any:
        if job.attempts_started > 1:
            return "again"
        if move == "move_to_waiting_children":
            place.give_child(job.id)
        # One of the two is the move itself; the other is a fetch or a marker's.
        proxy.lose(command)
        moved.append((yield getattr(job, move)(*([time.time_ns() // 1_000_000] if move == "move_to_delayed" else []))))
        raise {"move_to_delayed": DelayedError, "move_to_wait": WaitingError}.get(move, WaitingChildrenError)

    for name, source, *_ in toromq._native.scripts():
        if name == "move_to_waiting_children":
            place.redis.script_load(source)
    with LossyProxy(redisbox.url) as proxy:
        job = await place.queue.add("n")
        async with place.working(kind, steps, connection=proxy.url):
            if move == "move_to_waiting_children":
                await place.ended(job.id, "waiting-children")
                await place.finish_children()
            ended = await place.ended(job.id, "completed")
        assert proxy.lost == 1
    assert (ended.returnvalue, ended.attempts_started, ended.attempts_made) == ("again", 2, 1)
    assert len(moved) == 1
    assert "lock_lost" not in [told[0] for told in place.told]
    assert "failed" not in [told[0] for told in place.told]


async def test_a_run_whose_move_is_unanswered_keeps_its_slot_beside_a_later_run(
    place: Place, redisbox: RedisBox
) -> None:
    times, let_go = 15, threading.Event()
    running: list[str] = []
    most: list[int] = []

    def steps(job: Any) -> Any:
        running.append(job.id)
        most.append(len(running))
        try:
            if job.data == "parent" and job.attempts_started == 1:
                place.give_child(job.id)
                proxy.lose("move_to_waiting_children", times)
                yield job.move_to_waiting_children()
                raise WaitingChildrenError
            yield _until(let_go, "async def")
        finally:
            running.remove(job.id)

    for name, source, *_ in toromq._native.scripts():
        if name == "move_to_waiting_children":
            place.redis.script_load(source)
    with LossyProxy(redisbox.url) as proxy:
        job = await place.queue.add("n", "parent")
        async with place.working("async def", steps, connection=proxy.url, concurrency=2, run_retry_delay=10):
            await place.ended(job.id, "waiting-children")
            await place.finish_children()
            await aeventually(lambda: len(place.ran) == 2)
            assert running == [job.id] * 2
            other = await place.queue.add("n", "other")
            await aeventually(lambda: proxy.lost == times, _LONG)
            let_go.set()
            await place.ended(other.id, "completed")
    assert max(most) == 2
