"""Jobs that are fetched and finished by hand, in both faces; and workers whose keys somebody changed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import select
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.support.eventually import aeventually, eventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from toromq import ConfigurationError, Queue, ToroError, UnrecoverableError, _bridge
from toromq.errors import LockMismatchError, LockMissingError

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_KINDS = ("async def", "def", "def, blocking worker")
# Only to end a test that found a deadlock.
_LONG = 20
_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])
_all_kinds = pytest.mark.parametrize("kind", _KINDS)


class Place:
    """A queue of its own, its keys, and workers for it of each kind."""

    def __init__(self, url: str, prefix: str, client: redispy.Redis) -> None:
        self.redis = client
        self.prefix = prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.queue: Queue[Any, Any] = Queue("q", **self.options)
        self.key = f"{prefix}:q:{{}}".format
        self.ran: list[str] = []
        self.told: list[tuple[Any, ...]] = []

    def worker(self, kind: str, run: Callable[[Any], Any] = lambda job: None, **options: Any) -> Any:
        """A worker that notes what it runs and what it tells."""

        async def coroutine(job: Any) -> Any:
            self.ran.append(job.id)
            result = run(job)
            return await result if inspect.isawaitable(result) else result

        def function(job: Any) -> Any:
            self.ran.append(job.id)
            return run(job)

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        worker = module.Worker("q", coroutine if kind == "async def" else function, **self.options, **options)
        for event in ("completed", "failed", "stalled", "lock_lost", "error"):
            worker.on(event, lambda *arguments, event=event: self.told.append((event, *arguments)))
        return worker

    async def ended(self, job_id: str, state: str) -> Any:
        """The job, once it is in this state."""

        async def found() -> Any:
            assert await self.queue.get_job_state(job_id) == state
            return await self.queue.get_job(job_id)

        return await aeventually(found)

    def make_active(self, job_id: str, **fields: Any) -> None:
        """As a worker leaves it that died."""
        assert self.redis.lrem(self.key("wait"), 1, job_id) == 1
        for field, value in {"processedOn": 1, "ats": 1, **fields}.items():
            self.redis.hset(self.key(job_id), field, value)
        self.redis.lpush(self.key("active"), job_id)


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


# --- fetching and finishing by hand -----------------------------------------------------------------------------------


@_both_faces
async def test_jobs_are_fetched_and_completed_by_hand(place: Place, face: Any) -> None:
    added = await place.queue.add_bulk([("n", n) for n in range(3)])
    worker = face.Worker("q", name="w", lock_duration=20_000, **place.options)
    first = await _call(worker.get_next_job, "mine")
    assert (first.id, first.data, first.token, first.attempts_started) == (added[0].id, 0, "mine", 1)
    assert place.redis.get(place.key(f"{first.id}:lock")) == "mine"
    assert 0 < place.redis.pttl(place.key(f"{first.id}:lock")) <= 20_000
    second = await _call(first.move_to_completed, {"sum": 1}, "mine")
    assert second.id == added[1].id
    assert await _call(second.move_to_completed, None, "mine", fetch_next=False) is None
    third = await _call(worker.get_next_job, "other", block=False)
    assert await _call(third.move_to_completed, 3, "other") is None
    assert await _call(worker.get_next_job, "mine", block=False) is None
    done = [await place.ended(job.id, "completed") for job in added]
    assert [(job.returnvalue, job.attempts_made, job.processed_by) for job in done] == [
        ({"sum": 1}, 1, "w"),
        (None, 1, "w"),
        (3, 1, "w"),
    ]
    assert place.redis.exists(*(place.key(f"{job.id}:lock") for job in added)) == 0


@_both_faces
async def test_a_job_that_failed_by_hand_is_tried_again_while_it_has_attempts(place: Place, face: Any) -> None:
    added = await place.queue.add("n", attempts=3)
    worker = face.Worker("q", **place.options)
    job = await _call(worker.get_next_job, "mine")
    again = await _call(job.move_to_failed, ValueError("first"), "mine")
    assert (again.id, again.attempts_made, again.attempts_started) == (added.id, 1, 2)
    assert await _call(again.move_to_failed, UnrecoverableError("for good"), "mine") is None
    ended = await place.ended(added.id, "failed")
    assert (ended.failed_reason, ended.attempts_made, len(ended.stacktrace)) == ("for good", 2, 2)
    assert ended.stacktrace[0].strip() == "ValueError: first"


@_both_faces
async def test_a_job_that_was_finished_by_hand_knows_it(place: Place, face: Any) -> None:
    added = await place.queue.add_bulk([("n", n, {"attempts": 2}) for n in range(2)])
    worker = face.Worker("q", **place.options)
    done = await _call(worker.get_next_job, "mine")
    failed = await _call(done.move_to_completed, {"sum": 1}, "mine")
    stored = await place.ended(added[0].id, "completed")
    assert (done.returnvalue, done.attempts_made, done.finished_on) == ({"sum": 1}, 1, stored.finished_on)
    await _call(failed.move_to_failed, ValueError("first"), "mine", fetch_next=False)
    assert (failed.failed_reason, failed.attempts_made, failed.finished_on) == ("first", 1, None)
    last = await _call(worker.get_next_job, "mine")
    await _call(last.move_to_failed, ValueError("second"), "mine", fetch_next=False)
    stored = await place.ended(added[1].id, "failed")
    assert (last.failed_reason, last.attempts_made, last.finished_on) == ("second", 2, stored.finished_on)


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@_both_faces
@pytest.mark.parametrize(
    ("error", "reason"), [(ValueError(), "ValueError"), (ValueError("\ud800"), "?"), (_Mute(), "_Mute, whose message")]
)
async def test_the_reason_of_a_failure_by_hand_is_made_as_workers_make_it(
    place: Place, face: Any, error: Exception, reason: str
) -> None:
    added = await place.queue.add("n")
    worker = face.Worker("q", **place.options)
    job = await _call(worker.get_next_job, "mine")
    await _call(job.move_to_failed, error, "mine")
    assert str((await place.ended(added.id, "failed")).failed_reason).startswith(reason)


@_both_faces
async def test_a_blocking_fetch_waits_for_a_job(place: Place, face: Any) -> None:
    worker = face.Worker("q", drain_delay=_LONG, **place.options)
    fetching = asyncio.create_task(_call(worker.get_next_job, "mine"))
    await aeventually(lambda: any(client["cmd"] == "bzpopmin" for client in place.redis.client_list()))
    added = await place.queue.add("n")
    job = await asyncio.wait_for(fetching, _LONG)
    assert job.id == added.id
    await _call(job.move_to_completed, None, "mine")


@_both_faces
@pytest.mark.parametrize("added_before", [True, False])
async def test_a_blocking_fetch_ends_when_a_job_is_due(place: Place, face: Any, added_before: bool) -> None:
    worker = face.Worker("q", drain_delay=_LONG, **place.options)
    if added_before:
        added = await place.queue.add("n", delay=200)
    fetching = asyncio.create_task(_call(worker.get_next_job, "mine"))
    if not added_before:
        await aeventually(lambda: any(client["cmd"] == "bzpopmin" for client in place.redis.client_list()))
        added = await place.queue.add("n", delay=200)
    # Without a look at the due time it would end with the drain delay, and without a job.
    job = await asyncio.wait_for(fetching, _LONG / 2)
    assert job.id == added.id
    await _call(job.move_to_completed, None, "mine")


@_both_faces
async def test_a_blocking_fetch_ends_with_the_rate_limit(place: Place, face: Any) -> None:
    worker = face.Worker("q", drain_delay=_LONG, **place.options)
    added = await place.queue.add("n")
    await place.queue.rate_limit(200)
    job = await asyncio.wait_for(_call(worker.get_next_job, "mine"), _LONG / 2)
    assert job.id == added.id
    await _call(job.move_to_completed, None, "mine")


async def test_a_fetch_that_nobody_waits_for_any_more_takes_no_job(place: Place) -> None:
    def is_waiting() -> bool:
        # Others of the server may have waited before.
        return any(client["id"] not in before and "b" in client["flags"] for client in place.redis.client_list())

    before = {client["id"] for client in place.redis.client_list()}
    worker = toromq.Worker("q", drain_delay=_LONG, **place.options)
    fetching = asyncio.create_task(worker.get_next_job("mine"))
    await aeventually(is_waiting)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await aeventually(lambda: not is_waiting())
    added = await place.queue.add("n")
    assert place.redis.zrange(place.key("marker"), 0, -1) == ["0"]
    assert await added.get_state() == "waiting"
    job = await worker.get_next_job("mine")
    assert job is not None
    assert (job.id, job.attempts_started) == (added.id, 1)
    await job.move_to_completed(None, "mine")


async def test_a_job_that_came_too_late_goes_back(place: Place) -> None:
    added = await place.queue.add("n")
    worker = toromq.Worker("q", **place.options)
    await worker.wait_until_ready()
    # So it is fetched when nobody waits any more.
    place.redis.client_pause(300)
    fetching = asyncio.create_task(worker.get_next_job("mine"))
    await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await aeventually(lambda: place.redis.hget(place.key(added.id), "ats") == "1")
    await aeventually(lambda: place.redis.lrange(place.key("wait"), 0, -1) == [added.id])
    assert not place.redis.exists(place.key(f"{added.id}:lock"))


@pytest.mark.parametrize("is_given", [False, True])
async def test_a_job_that_was_on_its_way_goes_back(place: Place, is_given: bool) -> None:
    added = await place.queue.add("n")
    worker = toromq.Worker("q", **place.options)
    await worker.wait_until_ready()
    fetching = asyncio.create_task(worker.get_next_job("mine"))
    await asyncio.sleep(0)
    port = _bridge.port()
    # While the loop does nothing else.
    eventually(lambda: select.select([port._port.fileno()], [], [], 0)[0])
    if is_given:
        port.deliver()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert place.redis.hget(place.key(added.id), "ats") == "1"
    await aeventually(lambda: place.redis.lrange(place.key("wait"), 0, -1) == [added.id])
    assert not place.redis.exists(place.key(f"{added.id}:lock"))


@_both_faces
async def test_a_blocking_fetch_in_vain_leaves_the_marker_to_others(place: Place, face: Any) -> None:
    worker = face.Worker("q", drain_delay=0.5, **place.options)
    fetching = asyncio.create_task(_call(worker.get_next_job, "mine"))
    await aeventually(lambda: any(client["cmd"] == "bzpopmin" for client in place.redis.client_list()))
    added = await place.queue.add("n", delay=600_000)
    assert await fetching is None
    assert [member for member, _ in place.redis.zrange(place.key("marker"), 0, -1, withscores=True)] == ["1"]
    await added.remove()


@_both_faces
@pytest.mark.parametrize("finish", ["move_to_completed", "move_to_failed"])
@pytest.mark.parametrize(
    ("token", "lock", "error"), [("other", "mine", LockMismatchError), ("mine", None, LockMissingError)]
)
async def test_a_finish_without_the_lock_is_refused_and_changes_nothing(
    place: Place, face: Any, finish: str, token: str, lock: str | None, error: type[Exception]
) -> None:
    added = await place.queue.add("n", attempts=2)
    worker = face.Worker("q", lock_duration=30_000 if lock else 10, **place.options)
    job = await _call(worker.get_next_job, "mine")
    await aeventually(lambda: place.redis.get(place.key(f"{job.id}:lock")) == lock)
    before = keyspace(place.redis, place.prefix)
    argument = "result" if finish == "move_to_completed" else ValueError("why")
    with pytest.raises(error) as caught:
        await _call(getattr(job, finish), argument, token)
    assert caught.value.job_id == added.id  # type: ignore[attr-defined]
    assert keyspace(place.redis, place.prefix) == before


@_both_faces
async def test_mistakes_by_hand_are_refused_with_what_to_do(place: Place, face: Any) -> None:
    added = await place.queue.add("n")
    worker = face.Worker("q", **place.options)
    for token in ("", "0", None, 7):
        with pytest.raises(ConfigurationError, match=r"^token: got"):
            await _call(worker.get_next_job, token)
    queue = face.Queue("q", **place.options)
    job = await _call(queue.get_job, added.id)
    for finish, argument in ((job.move_to_completed, None), (job.move_to_failed, ValueError())):
        with pytest.raises(ToroError, match=r"get it with worker\.get_next_job"):
            await _call(finish, argument, "mine")
    fetched = await _call(worker.get_next_job, "mine")
    with pytest.raises(toromq.SerializationError, match=r"^returnvalue"):
        await _call(fetched.move_to_completed, object(), "mine")
    await _call(fetched.move_to_completed, None, "mine")


@_both_faces
@pytest.mark.parametrize("finish", ["move_to_completed", "move_to_failed", "move_to_failed and retry"])
async def test_a_finish_by_hand_whose_reply_was_lost_is_recognised(
    place: Place, face: Any, finish: str, redisbox: RedisBox
) -> None:
    added = await place.queue.add("n", attempts=2 if "retry" in finish else 1, backoff=3_600_000)
    with LossyProxy(redisbox.url) as proxy:
        worker = face.Worker("q", **{**place.options, "connection": proxy.url})
        job = await _call(worker.get_next_job, "mine")
        proxy.lose("finish_and_fetch")
        if finish == "move_to_completed":
            await _call(job.move_to_completed, "result", "mine", fetch_next=False)
        else:
            await _call(job.move_to_failed, ValueError("why"), "mine", fetch_next=False)
        assert proxy.lost == 1
    ended = await place.queue.get_job(added.id)
    assert ended is not None
    states = {"move_to_completed": "completed", "move_to_failed": "failed"}
    assert await ended.get_state() == states.get(finish, "delayed")
    assert (ended.attempts_made, job.attempts_made, len(ended.stacktrace)) == (1, 1, "failed" in finish)


# --- a lock that is taken away ----------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize("lock", [None, "another worker"])
async def test_a_job_whose_lock_is_gone_is_stopped_and_its_result_not_written(
    place: Place, kind: str, lock: str | None
) -> None:
    go_on = threading.Event()
    ends: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(_LONG)
        except asyncio.CancelledError as error:
            ends.append(str(error))
            raise
        return "late"

    def run(job: Any) -> Any:
        if kind == "async def":
            return waits()
        go_on.wait(_LONG)
        ends.append("returned")
        return "late"

    job = await place.queue.add("n", attempts=3)
    async with _started(place.worker(kind, run, lock_renew_time=50)):
        await aeventually(lambda: place.ran == [job.id])
        lock_key = place.key(f"{job.id}:lock")
        if lock is None:
            place.redis.delete(lock_key)
        else:
            place.redis.set(lock_key, lock, px=60_000)
        await aeventually(lambda: [told[0] for told in place.told] == ["lock_lost"])
        go_on.set()
    assert place.told[0][1].id == job.id
    assert ends == ["the job's lock was lost" if kind == "async def" else "returned"]
    fields = place.redis.hgetall(place.key(job.id))
    assert fields.keys() & {"returnvalue", "failedReason", "finishedOn", "atm"} == set()
    assert (await job.get_state(), place.redis.get(lock_key)) == ("active", lock)
    assert [told[0] for told in place.told] == ["lock_lost"]


@_all_kinds
async def test_a_result_that_finds_its_lock_gone_is_not_written(place: Place, kind: str) -> None:
    def run(job: Any) -> str:
        place.redis.delete(place.key(f"{job.id}:lock"))
        return "late"

    job = await place.queue.add("n")
    async with _started(place.worker(kind, run)):
        await aeventually(lambda: [told[0] for told in place.told] == ["lock_lost", "error"])
    assert place.told[0][1].id == job.id
    assert isinstance(place.told[1][1], LockMissingError)
    assert (await job.get_state(), "returnvalue" in place.redis.hgetall(place.key(job.id))) == ("active", False)


@_all_kinds
async def test_a_run_that_its_own_worker_took_over_is_told_and_keeps_its_slot(place: Place, kind: str) -> None:
    let_go = threading.Event()
    first_ends: list[str | None] = []

    async def waits(job: Any) -> str:
        if (job.data, job.attempts_started) == ("stolen", 1):
            try:
                await asyncio.sleep(_LONG)
            except asyncio.CancelledError:
                # It does not end for that.
                first_ends.append(job.cancel_reason)
                await aeventually(let_go.is_set, _LONG)
        return f"by run {job.attempts_started}"

    def run(job: Any) -> Any:
        if kind == "async def":
            return waits(job)
        if (job.data, job.attempts_started) == ("stolen", 1):
            job._cancellation.wait(_LONG)
            first_ends.append(job.cancel_reason)
            let_go.wait(_LONG)
        return f"by run {job.attempts_started}"

    job = await place.queue.add("n", "stolen")
    # Renewal comes too late to see the loss; the stalled check has put the job back by then.
    async with _started(place.worker(kind, run, concurrency=2, stalled_interval=20, name="first")) as worker:
        await aeventually(lambda: place.ran == [job.id])
        place.redis.delete(place.key(f"{job.id}:lock"))
        ended = await place.ended(job.id, "completed")
        await aeventually(lambda: first_ends == ["the job's lock was lost"])
        worker.concurrency = 1
        # What it had asked for with two slots is called off: no job comes to it from now on.
        await aeventually(lambda: place.redis.info("clients")["blocked_clients"] == 0)
        async with _started(place.worker(kind, name="other")):
            after = [await place.queue.add("n") for _ in range(3)]
            assert {(await place.ended(one.id, "completed")).processed_by for one in after} == {"other"}
        let_go.set()
        last = await place.queue.add("n")
        assert (await place.ended(last.id, "completed")).processed_by == "first"
    assert (ended.returnvalue, ended.stalled_counter) == ("by run 2", 1)
    assert [told[0] for told in place.told].count("lock_lost") == 1
    assert [told[0] for told in place.told].count("error") == 0


# --- jobs of workers that died ----------------------------------------------------------------------------------------


@_all_kinds
@pytest.mark.parametrize(("stalled", "most", "fails"), [(0, 1, False), (1, 1, True), (0, 0, True), (1, 2, False)])
async def test_a_job_without_lock_runs_again_until_it_stalled_too_often(
    place: Place, kind: str, stalled: int, most: int, fails: bool
) -> None:
    dead, alive = await place.queue.add_bulk([("n", 1), ("n", 2)])
    place.make_active(dead.id, stc=stalled)
    place.make_active(alive.id)
    place.redis.set(place.key(f"{alive.id}:lock"), "another worker", px=60_000)
    async with _started(place.worker(kind, stalled_interval=50, max_stalled_count=most)):
        ended = await place.ended(dead.id, "failed" if fails else "completed")
        await aeventually(lambda: {told[0] for told in place.told} == {"stalled", "failed" if fails else "completed"})
    assert place.ran == ([] if fails else [dead.id])
    assert (ended.stalled_counter, ended.attempts_made) == (stalled + 1, 1)
    assert ended.failed_reason == ("job stalled more than allowable limit" if fails else None)
    assert ("stalled", dead.id) in place.told
    assert await alive.get_state() == "active"


@_all_kinds
async def test_a_failure_that_was_decided_before_fails_the_job_without_a_run(place: Place, kind: str) -> None:
    job, after = await place.queue.add_bulk([("n", 1, {"attempts": 5}), ("n", 2)])
    place.redis.hset(place.key(job.id), "defa", "child x failed")
    async with _started(place.worker(kind)):
        ended = await place.ended(job.id, "failed")
        await place.ended(after.id, "completed")
        await aeventually(lambda: {told[0] for told in place.told} == {"failed", "completed"})
    assert (ended.failed_reason, ended.deferred_failure, place.ran) == ("child x failed", None, [after.id])
    (failed,) = (told for told in place.told if told[0] == "failed")
    assert (failed[1].id, type(failed[2]), str(failed[2])) == (job.id, UnrecoverableError, "child x failed")


# --- jobs that somebody broke -----------------------------------------------------------------------------------------


@pytest.mark.leaves_keys_broken("what is tested is a job that somebody broke")
@_all_kinds
@pytest.mark.parametrize(
    ("field", "stored"),
    [("data", b"{"), ("data", b"'a'"), ("data", b""), ("data", b'"\xff"'), ("opts", b"{"), ("opts", b"\xfe")],
)
async def test_a_job_that_holds_no_json_fails_and_the_next_one_runs(
    place: Place, kind: str, field: str, stored: bytes
) -> None:
    job, after = await place.queue.add_bulk([("n", 1, {"attempts": 5}), ("n", 2)])
    place.redis.hset(place.key(job.id), field, stored)
    async with _started(place.worker(kind)):
        ended = await place.ended(job.id, "failed")
        await place.ended(after.id, "completed")
    assert ended.failed_reason.startswith(f"the stored {field} of job {job.id} is no JSON (")
    assert place.ran == [after.id]


@_all_kinds
@pytest.mark.parametrize("opts", ["[]", "5", "null", '"x"', '{"attempts":"2","backoff":[]}'])
async def test_options_that_are_no_options_count_as_none(place: Place, kind: str, opts: str) -> None:
    good, bad = await place.queue.add_bulk([("n", "good"), ("n", "bad")])

    def run(job: Any) -> str:
        if job.data == "bad":
            raise ValueError("why")
        return "fine"

    for job in (good, bad):
        place.redis.hset(place.key(job.id), "opts", opts)
    async with _started(place.worker(kind, run)):
        assert (await place.ended(good.id, "completed")).returnvalue == "fine"
        assert (await place.ended(bad.id, "failed")).failed_reason == "why"


@_all_kinds
async def test_lone_surrogates_in_data_are_read_as_node_wrote_them(place: Place, kind: str) -> None:
    job = await place.queue.add("n")
    place.redis.hset(place.key(job.id), "data", r'{"a":"x\ud800"}')
    async with _started(place.worker(kind, lambda job: [ord(letter) for letter in job.data["a"]])):
        assert (await place.ended(job.id, "completed")).returnvalue == [ord("x"), 0xD800]


@_all_kinds
async def test_an_id_without_a_hash_fails_in_the_open(place: Place, kind: str) -> None:
    after = await place.queue.add("n")
    place.redis.rpush(place.key("wait"), "ghost")
    async with _started(place.worker(kind)):
        ended = await place.ended("ghost", "failed")
        await place.ended(after.id, "completed")
    assert ended.failed_reason.startswith("job ghost was queued but its hash was missing")
    assert place.ran == [after.id]


@pytest.mark.leaves_keys_broken("what is tested is a key that is no job")
@_all_kinds
@pytest.mark.parametrize("state", ["wait", "prioritized"])
async def test_a_key_that_is_no_job_is_taken_out_and_told(
    place: Place, kind: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.redis.set(place.key("wrong"), "text")
    if state == "wait":
        place.redis.rpush(place.key(state), "wrong")
    else:
        place.redis.zadd(place.key(state), {"wrong": 2**32})
    after = await place.queue.add("n", priority=0 if state == "wait" else 1)
    with caplog.at_level(logging.ERROR, "toromq"):
        async with _started(place.worker(kind)):
            await place.ended(after.id, "completed")
            await aeventually(lambda: "error" in [told[0] for told in place.told])
    (error,) = (told[1] for told in place.told if told[0] == "error")
    assert "the key of waiting job wrong" in str(error)
    assert "holds no job; it was taken out" in str(error)
    assert place.redis.get(place.key("wrong")) == "text"
    assert place.redis.exists(place.key("wait"), place.key("prioritized"), place.key("active")) == 0
    # It was heard, so it need not be logged.
    assert caplog.records == []
