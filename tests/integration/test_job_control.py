"""What is done to one job, in both faces: moving it, its logs, its children, and taking it to text and back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.integration.scripts import families
from tests.integration.scripts.commands import Queue as RawQueue
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from toromq import ConfigurationError, JobNotFoundError, RedisConnectionError, sync
from toromq.errors import JobNotInStateError, LockMismatchError, ParentNotFoundError, SchedulerConflictError

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_HOUR = 3_600_000


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


class Place:
    """A queue through one face, its keys, and a worker that is moved by hand."""

    def __init__(self, face: Any, url: str, prefix: str, client: redis_py.Redis) -> None:
        self.face, self.redis, self.prefix = face, client, prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.raw = RawQueue(client, prefix, "q")
        self.key = self.raw.key
        self.queue = face.Queue("q", **self.options)
        self.hand = face.Worker("q", **self.options)

    async def add(self, name: str = "n", data: Any = None, **options: Any) -> Any:
        return await done(self.queue.add(name, data, **options))

    async def begin(self) -> Any:
        """Gives the next job, locked."""
        return await done(self.hand.get_next_job("t", block=False))

    async def end(self, *, fail: bool = False) -> Any:
        """Runs the next job; gives it as it is read afterwards."""
        job = await self.begin()
        if fail:
            await done(job.move_to_failed(ValueError("why"), "t", fetch_next=False))
        else:
            await done(job.move_to_completed("done", "t", fetch_next=False))
        return await self.read(job.id)

    async def read(self, job_id: str) -> Any:
        return await done(self.queue.get_job(job_id))

    async def waiting(self) -> list[str]:
        """Ids of those that wait, the next to run first."""
        return list(await done(self.queue.get_ranges(["waiting", "prioritized"], asc=True)))

    def shown(self, job: Any) -> dict[str, Any]:
        """All that a job tells of itself."""
        fields: dict[str, Any] = job.as_json()
        return {**fields, "made": job.attempts_made, "started": job.attempts_started}


@pytest.fixture
async def place(face: Any, redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> AsyncIterator[Place]:
    made = Place(face, redisbox.url, prefix, redis)
    yield made
    await done(made.hand.close())
    await done(made.queue.close())


# --- making and finding -----------------------------------------------------------------------------------------------


async def test_a_job_can_be_made_and_found_through_its_class(place: Place) -> None:
    job_class = place.face.Job
    made = await done(job_class.create(place.queue, "name", {"a": 1}, priority=3))
    found = await done(job_class.from_id(place.queue, made.id))
    assert (type(found), found.name, found.data, found.priority) == (job_class, "name", {"a": 1}, 3)
    first, second = await done(job_class.create_bulk(place.queue, [("x", 1), ("y", 2, {"delay": _HOUR})]))
    assert [first.name, second.delay] == ["x", _HOUR]
    assert await done(job_class.from_id(place.queue, "no such job")) is None
    assert await done(job_class.add_job_log(place.queue, made.id, "line")) == 1
    assert await done(job_class.add_job_log(place.queue, made.id, "other", 1)) == 1
    assert await done(place.queue.get_job_logs(made.id)) == (["other"], 1)


async def test_no_data_is_not_none(place: Place) -> None:
    without = await done(place.face.Job.create(place.queue, "n"))
    none = await done(place.face.Job.create(place.queue, "n", None))
    assert [place.redis.hget(place.key(job.id), "data") for job in (without, none)] == ["{}", "null"]


_PREDICATES = {
    "is_waiting": "waiting",
    "is_prioritized": "prioritized",
    "is_delayed": "delayed",
    "is_active": "active",
    "is_waiting_children": "waiting-children",
    "is_completed": "completed",
    "is_failed": "failed",
}


async def test_a_job_tells_the_state_it_is_in_now(place: Place) -> None:
    await place.add()
    completed = await place.end()
    await place.add()
    failed = await place.end(fail=True)
    await place.add()
    active = await place.begin()
    families.waits(place.raw, "p")
    place.redis.sadd(place.key("p:dependencies"), "x:q:1")
    jobs = {
        **{"waiting": await place.add(), "prioritized": await place.add(priority=1)},
        **{"delayed": await place.add(delay=_HOUR), "active": active, "waiting-children": await place.read("p")},
        **{"completed": completed, "failed": failed},
    }
    for state, job in jobs.items():
        assert await done(job.get_state()) == state
        answers = {method: await done(getattr(job, method)()) for method in _PREDICATES}
        assert answers == {method: state == meant for method, meant in _PREDICATES.items()}
    await done(jobs["waiting"].remove())
    assert await done(jobs["waiting"].get_state()) == "unknown"
    assert await done(jobs["waiting"].is_waiting()) is False
    await done(active.move_to_completed(None, "t", fetch_next=False))
    assert await done(active.is_completed()) is True


# --- moving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail", [True, False], ids=["failed", "completed"])
async def test_a_finished_job_is_queued_again(place: Place, fail: bool) -> None:
    await place.add()
    job = await place.end(fail=fail)
    waiting = await place.add()
    await done(job.retry("failed" if fail else "completed"))
    assert await place.waiting() == [waiting.id, job.id]
    # What the object says is what is stored.
    assert place.shown(job) == place.shown(await place.read(job.id))
    assert (job.finished_on, job.processed_on, job.failed_reason, job.returnvalue) == (None, None, None, None)
    assert (job.attempts_made, job.attempts_started) == (1, 1)
    assert len(job.stacktrace) == fail


@pytest.mark.parametrize(
    ("options", "made", "started"),
    [
        ({}, 1, 1),
        ({"reset_attempts_made": True}, 0, 1),
        ({"reset_attempts_started": True}, 1, 0),
        ({"reset_attempts_made": True, "reset_attempts_started": True}, 0, 0),
    ],
)
async def test_attempts_can_be_forgotten(place: Place, options: dict[str, bool], made: int, started: int) -> None:
    await place.add()
    job = await place.end(fail=True)
    await done(job.retry(**options))
    again = await place.read(job.id)
    assert (job.attempts_made, job.attempts_started) == (again.attempts_made, again.attempts_started) == (made, started)


async def test_a_job_that_used_up_its_attempts_gets_one_more(place: Place) -> None:
    await place.add(attempts=2)
    await place.end(fail=True)
    job = await place.end(fail=True)
    assert await done(job.is_failed())
    await done(job.retry())
    job = await place.end(fail=True)
    assert (await done(job.get_state()), job.attempts_made) == ("failed", 3)
    await done(job.retry(reset_attempts_made=True))
    job = await place.end(fail=True)
    assert (await done(job.get_state()), job.attempts_made) == ("waiting", 1)


async def test_a_retry_goes_by_the_priority_and_the_lifo_option(place: Place) -> None:
    await place.add(priority=5)
    urgent = await place.end(fail=True)
    await place.add(lifo=True)
    first = await place.end(fail=True)
    between, last = await place.add(priority=5), await place.add()
    await done(urgent.retry())
    await done(first.retry())
    assert await place.waiting() == [first.id, last.id, between.id, urgent.id]


async def test_a_delayed_job_is_queued_now(place: Place) -> None:
    job, urgent = await place.add(delay=_HOUR), await place.add(delay=_HOUR, priority=2)
    waiting = await place.add()
    await done(urgent.promote())
    await done(job.promote())
    assert await place.waiting() == [waiting.id, job.id, urgent.id]
    assert job.delay == (await place.read(job.id)).delay == 0


async def test_a_delay_is_changed_from_now_on(place: Place) -> None:
    job = await place.add(delay=_HOUR)
    other = await place.add(delay=_HOUR * 2)
    before = place.redis.time()[0] * 1000
    await done(job.change_delay(timedelta(hours=3)))
    assert job.delay == (await place.read(job.id)).delay == 3 * _HOUR
    due = (place.redis.zscore(place.key("delayed"), job.id) or 0) / 4096
    assert before + 3 * _HOUR <= due <= before + 3 * _HOUR + 60_000
    assert [found.id for found in await done(place.queue.get_delayed())] == [other.id, job.id]
    await done(job.change_delay(0))
    assert await place.begin() is not None
    assert await done(job.is_active())


async def test_a_priority_is_changed(place: Place) -> None:
    first, second, third = await place.add(priority=5), await place.add(priority=5), await place.add()
    await done(third.change_priority(priority=5))
    assert await place.waiting() == [first.id, second.id, third.id]
    await done(third.change_priority(priority=5, lifo=True))
    assert await place.waiting() == [third.id, first.id, second.id]
    await done(second.change_priority(priority=4))
    assert await place.waiting() == [second.id, third.id, first.id]
    await done(first.change_priority())
    assert await place.waiting() == [first.id, second.id, third.id]
    assert [job.priority for job in (first, second, third)] == [0, 4, 5]
    assert [(await place.read(job.id)).priority for job in (first, second, third)] == [0, 4, 5]
    place.redis.delete(place.key("marker"))
    await done(second.change_priority(priority=9, lifo=True))
    assert place.redis.zscore(place.key("marker"), "0") == 0


async def test_a_delayed_job_takes_its_new_priority_along(place: Place) -> None:
    job, other = await place.add(delay=_HOUR, priority=1), await place.add(priority=2)
    await done(job.change_priority(priority=3))
    assert await done(job.is_delayed())
    await done(job.promote())
    assert await place.waiting() == [other.id, job.id]


# --- removing ---------------------------------------------------------------------------------------------------------


async def test_a_job_that_runs_is_not_removed(place: Place) -> None:
    await place.add()
    job = await place.begin()
    match = f"^job {job.id} can't be removed: a worker runs it, or one of its children; wait, or cancel it$"
    with pytest.raises(LockMismatchError, match=match) as caught:
        await done((await place.read(job.id)).remove())
    assert (caught.value.code, caught.value.job_id) == (-6, job.id)
    await done(job.move_to_completed(None, "t", fetch_next=False))
    await done(job.remove())
    await done(job.remove())
    assert await place.read(job.id) is None


@pytest.mark.parametrize("remove_children", [True, False])
async def test_a_job_goes_with_its_children_or_without(place: Place, remove_children: bool) -> None:
    families.waits(place.raw, "p")
    child = await place.add(delay=_HOUR)
    families.adopt(place.raw, "p", place.raw, child.id)
    await done((await place.read("p")).remove(remove_children=remove_children))
    assert await place.read("p") is None
    assert await done(child.get_state()) == ("unknown" if remove_children else "delayed")


async def test_the_next_job_of_a_scheduler_is_not_removed(place: Place) -> None:
    job_id = "repeat:often:1700000000000"
    place.raw.store(job_id, rjk="often")
    place.redis.zadd(place.key("delayed"), {job_id: 1_700_000_000_000 * 4096})
    place.redis.zadd(place.key("repeat"), {"often": 1_700_000_000_000})
    place.redis.hset(place.key("repeat:often"), "ic", 1)
    with pytest.raises(SchedulerConflictError):
        await done((await place.read(job_id)).remove())
    assert await place.read(job_id) is not None


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_logs_are_cleared(place: Place) -> None:
    job = await place.add()
    for line in "abcd":
        await done(job.log(line))
    await done(job.clear_logs(9))
    assert await done(place.queue.get_job_logs(job.id)) == (list("abcd"), 4)
    await done(job.clear_logs(keep_logs=2))
    assert await done(place.queue.get_job_logs(job.id)) == (["c", "d"], 2)
    await done(job.clear_logs())
    assert await done(place.queue.get_job_logs(job.id)) == ([], 0)
    assert not place.redis.exists(place.key(f"{job.id}:logs"))
    await done(job.clear_logs(0))


# --- children ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def parent(place: Place) -> str:
    """A job with children that have come to all kinds of ends."""
    redis, key = place.redis, place.key
    families.waits(place.raw, "p")
    redis.hset(key("p:processed"), mapping={"x:q:1": '{"n":1}', "x:q:2": "null", "x:q:3": r'"\ud800"'})
    redis.sadd(key("p:dependencies"), "x:q:4", "x:q:5")
    redis.hset(key("p:failed"), mapping={"x:q:6": "why, ünï", "x:q:7": ""})
    redis.zadd(key("p:unsuccessful"), {"x:q:8": 1, "x:q:9": 2})
    return "p"


async def test_what_became_of_the_children(place: Place, parent: str) -> None:
    job = await place.read(parent)
    processed = {"x:q:1": {"n": 1}, "x:q:2": None, "x:q:3": "\ud800"}
    ignored = {"x:q:6": "why, ünï", "x:q:7": ""}
    assert await done(job.get_children_values()) == processed
    assert await done(job.get_ignored_children_failures()) == ignored
    counts = await done(job.get_dependencies_count())
    assert counts == (3, 2, 2, 2)
    assert (counts.processed, counts.unprocessed, counts.ignored, counts.failed) == counts
    found = await done(job.get_dependencies())
    assert {**found, "unprocessed": sorted(found["unprocessed"])} == {
        **{"processed": processed, "ignored": ignored, "unprocessed": ["x:q:4", "x:q:5"]},
        "failed": ["x:q:8", "x:q:9"],
    }
    page = await done(job.get_dependencies(ignored={}, failed={"count": 1}))
    assert page == {
        **{"ignored": ignored, "next_ignored_cursor": 0, "failed": ["x:q:8", "x:q:9"], "next_failed_cursor": 0}
    }


async def test_a_job_without_children(place: Place) -> None:
    job = await place.add()
    assert await done(job.get_children_values()) == {}
    assert await done(job.get_ignored_children_failures()) == {}
    assert await done(job.get_dependencies_count()) == (0, 0, 0, 0)
    assert await done(job.get_dependencies()) == {"processed": {}, "unprocessed": [], "ignored": {}, "failed": []}
    assert await done(job.get_dependencies(processed={})) == {"processed": {}, "next_processed_cursor": 0}
    assert await done(job.remove_unprocessed_children()) == 0


@pytest.mark.leaves_keys_broken("children that are nowhere")
@pytest.mark.parametrize("outcome", ["processed", "unprocessed", "ignored", "failed"])
async def test_pages_of_children(place: Place, outcome: str) -> None:
    keys = [f"x:q:{n}" for n in range(700)]
    place.raw.store("p")
    if outcome == "unprocessed":
        place.redis.sadd(place.key("p:dependencies"), *keys)
    elif outcome == "failed":
        place.redis.zadd(place.key("p:unsuccessful"), {key: n for n, key in enumerate(keys)})
    else:
        suffix = {"processed": "processed", "ignored": "failed"}[outcome]
        place.redis.hset(place.key(f"p:{suffix}"), mapping=dict.fromkeys(keys, "7"))
    job = await place.read("p")
    found: list[str] = []
    cursor, pages = 0, 0
    while cursor or not pages:
        page = await done(job.get_dependencies(**{outcome: {"cursor": cursor, "count": 50}}))
        assert page.keys() == {outcome, f"next_{outcome}_cursor"}
        found += page[outcome]
        cursor = page[f"next_{outcome}_cursor"]
        pages += 1
    assert pages > 5
    assert sorted(found) == sorted(keys)
    assert sorted((await done(job.get_dependencies()))[outcome]) == sorted(keys)


async def test_a_parent_is_let_go(place: Place) -> None:
    families.waits(place.raw, "p")
    child, sibling = await place.add(delay=_HOUR), await place.add(delay=_HOUR)
    families.adopt(place.raw, "p", place.raw, child.id, sibling.id)
    child, sibling = await place.read(child.id), await place.read(sibling.id)
    assert child.parent_key == place.key("p")
    assert await done(child.remove_child_dependency()) is True
    assert (child.parent_key, child.parent) == (None, None)
    assert place.shown(child) == place.shown(await place.read(child.id))
    assert await done(place.queue.get_job_state("p")) == "waiting-children"
    with pytest.raises(ParentNotFoundError, match=f"^remove the child dependency of job {child.id}: ") as caught:
        await done(child.remove_child_dependency())
    assert (caught.value.code, caught.value.job_id) == (-5, child.id)
    place.redis.srem(place.key("p:dependencies"), place.key(sibling.id))
    place.redis.sadd(place.key("p:dependencies"), "x:q:1")
    assert await done(sibling.remove_child_dependency()) is False
    assert sibling.parent_key == place.key("p")


async def test_pending_children_are_removed(place: Place) -> None:
    families.waits(place.raw, "p")
    await place.add()
    failed = await place.end(fail=True)
    pending = [(await place.add(delay=_HOUR)).id for _ in range(3)]
    families.adopt(place.raw, "p", place.raw, failed.id, *pending)
    assert await done((await place.read("p")).remove_unprocessed_children()) == 3
    assert place.redis.smembers(place.key("p:dependencies")) == {place.key(failed.id)}
    assert await done(place.queue.get_jobs("delayed")) == []


# --- to text and back -------------------------------------------------------------------------------------------------


async def test_a_job_is_taken_to_text_and_back(place: Place) -> None:
    await place.add("name", {"a": [1, "ü", None]}, attempts=1, priority=3, keep_logs=2, delay=1)
    place.redis.zadd(place.key("delayed"), {"1": 1})
    await place.end(fail=True)
    families.adopt(place.raw, "p", place.raw, "1")
    job = await place.read("1")
    text = json.dumps(job.as_json())
    again = place.face.Job.from_json(place.queue, json.loads(text))
    assert type(again) is place.face.Job
    assert place.shown(again) == place.shown(job)
    assert again.to_json() == job.to_json()
    assert await done(again.is_failed())
    other_id = place.face.Job.from_json(place.queue, json.loads(text), "9")
    assert (other_id.id, other_id.data) == ("9", job.data)
    place.redis.delete(place.key("p:dependencies"))


async def test_what_a_job_tells_of_itself(place: Place) -> None:
    job = await place.add("name", {"a": 1}, priority=3)
    told = job.to_json()
    assert told == {
        **{"id": job.id, "name": "name", "data": {"a": 1}, "opts": {"attempts": 0, "priority": 3}},
        **{"queue_qualified_name": f"{place.prefix}:q", "timestamp": job.timestamp, "delay": 0, "priority": 3},
        **{"progress": 0, "attempts_started": 0, "attempts_made": 0, "stalled_counter": 0, "stacktrace": []},
        "returnvalue": None,
    }
    assert job.as_json() == {
        **{"id": job.id, "name": "name", "data": '{"a":1}', "timestamp": str(job.timestamp), "delay": "0"},
        **{"priority": "3", "opts": job.as_json()["opts"]},
    }
    failed = await place.end(fail=True)
    told = failed.to_json()
    assert told.keys() - job.to_json().keys() == {"failed_reason", "processed_on", "finished_on"}
    assert (told["failed_reason"], len(told["stacktrace"]), told["attempts_made"]) == ("why", 1, 1)
    assert json.loads(json.dumps(told)) == told


async def test_lone_surrogates_survive_the_way_to_text_and_back(place: Place) -> None:
    job = await place.add()
    place.redis.hset(place.key(job.id), mapping={"data": r'{"a":"x\ud800"}', "progress": r'"\udfff"'})
    place.redis.hset(place.key(job.id).encode(), "failedReason", b"\xff raw \xc3")
    job = await place.read(job.id)
    assert (job.data, job.progress) == ({"a": "x\ud800"}, "\udfff")
    again = place.face.Job.from_json(place.queue, json.loads(json.dumps(job.as_json())))
    assert place.shown(again) == place.shown(job)
    assert (again.data, again.progress, again.failed_reason) == (job.data, job.progress, job.failed_reason)
    assert json.loads(json.dumps(job.to_json()))["data"] == {"a": "x\ud800"}
    place.redis.hdel(place.key(job.id), "failedReason")


async def test_a_job_as_another_client_read_it(place: Place) -> None:
    # Numbers as numbers, and decoded what is stored as JSON.
    fields = {"id": "7", "name": "n", "data": {"a": 1}, "opts": {"attempts": 3}, "timestamp": 5, "delay": 0}
    job = place.face.Job.from_json(place.queue, {**fields, "priority": 2, "atm": 2, "ats": 3, "progress": [1]})
    assert (job.id, job.data, job.opts, job.timestamp, job.priority) == ("7", {"a": 1}, {"attempts": 3}, 5, 2)
    assert (job.attempts_made, job.attempts_started, job.returnvalue, job.progress) == (2, 3, None, [1])
    assert place.face.Job.from_json(place.queue, {"attemptsMade": "4", "atm": "2"}, "7").attempts_made == 4
    bare = place.face.Job.from_json(place.queue, {}, "7")
    assert (bare.name, bare.data, bare.opts, bare.timestamp) == ("", {}, {"attempts": 0}, 0)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments"), [("retry", ()), ("promote", ()), ("change_delay", (5,)), ("remove_child_dependency", ())]
)
async def test_a_job_that_is_gone(place: Place, method: str, arguments: tuple[Any, ...]) -> None:
    job = await place.add()
    await done(job.remove())
    before = keyspace(place.redis, place.prefix)
    with pytest.raises(JobNotFoundError, match=rf" of job {job.id}: the job's hash does not exist$") as caught:
        await done(getattr(job, method)(*arguments))
    assert (caught.value.code, caught.value.job_id) == (-1, job.id)
    with pytest.raises(JobNotFoundError):
        await done(job.change_priority(priority=1))
    assert keyspace(place.redis, place.prefix) == before


@pytest.mark.parametrize(
    ("method", "arguments"), [("retry", ()), ("retry", ("completed",)), ("promote", ()), ("change_delay", (5,))]
)
async def test_a_job_in_another_state(place: Place, method: str, arguments: tuple[Any, ...]) -> None:
    job = await place.add()
    before = keyspace(place.redis, place.prefix), place.shown(job)
    match = rf" of job {job.id}: the job is not in the state that the operation needs$"
    with pytest.raises(JobNotInStateError, match=match) as caught:
        await done(getattr(job, method)(*arguments))
    assert (caught.value.code, caught.value.job_id) == (-3, job.id)
    assert (keyspace(place.redis, place.prefix), place.shown(job)) == before


_WHOLE = "allowed is a whole number from"
_REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("retry", ("active",), {}, "state: got 'active'; allowed are failed, completed"),
    ("retry", (), {"reset_attempts_made": 1}, "reset_attempts_made: got 1; allowed is True or False"),
    ("retry", (), {"reset_attempts_started": None}, "reset_attempts_started: got None; allowed is True or False"),
    ("change_delay", (-1,), {}, "delay: got -1; allowed is a timedelta or milliseconds, 0 or more"),
    ("change_delay", (None,), {}, "delay: got None; allowed is a timedelta or milliseconds, 0 or more"),
    ("change_priority", (), {"priority": -1}, f"priority: got -1; {_WHOLE} 0 to 2097151"),
    ("change_priority", (), {"priority": 2_097_152}, f"priority: got 2097152; {_WHOLE} 0 to 2097151"),
    ("change_priority", (), {"priority": 1.5}, f"priority: got 1.5; {_WHOLE} 0 to 2097151"),
    ("change_priority", (), {"lifo": 1}, "lifo: got 1; allowed is True or False"),
    ("remove", (), {"remove_children": "no"}, "remove_children: got 'no'; allowed is True or False"),
    ("clear_logs", (-1,), {}, f"keep_logs: got -1; {_WHOLE} 0 to 9007199254740992"),
    ("get_dependencies", (), {"processed": {"count": 0}}, f"processed.count: got 0; {_WHOLE} 1 to 10000"),
    ("get_dependencies", (), {"failed": {"cursor": -1}}, f"failed.cursor: got -1; {_WHOLE} 0 to 18446744073709551615"),
    ("get_dependencies", (), {"ignored": 5}, "ignored: got 5; allowed is a dict with cursor and count"),
]


@pytest.mark.parametrize(("method", "arguments", "options", "message"), _REFUSED, ids=lambda value: str(value)[:40])
async def test_a_bad_argument_is_refused_before_anything_is_sent(
    face: Any, method: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    # Nobody listens there.
    queue = face.Queue("q", connection="redis://127.0.0.1:1/0")
    job = face.Job.from_json(queue, {"name": "n", "data": "{}"}, "1")
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        await done(getattr(job, method)(*arguments, **options))
    await done(queue.close())


def test_what_is_no_page_and_no_job_is_refused(face: Any) -> None:
    queue = face.Queue("q", connection="redis://127.0.0.1:1/0")
    with pytest.raises(ConfigurationError, match=r"^stored: got 5; allowed is what job.as_json\(\) gives$"):
        face.Job.from_json(queue, 5)
    for given in ({}, {"id": 5}):
        with pytest.raises(ConfigurationError, match=r"^job_id: got .*; give the job's id, as a text, or with"):
            face.Job.from_json(queue, given)


async def test_an_unknown_option_of_a_page_is_refused(face: Any) -> None:
    queue = face.Queue("q", connection="redis://127.0.0.1:1/0")
    job = face.Job.from_json(queue, {}, "1")
    with pytest.raises(TypeError, match=r"^processed has no option 'cursr'; did you mean 'cursor'\?$"):
        await done(job.get_dependencies(processed={"cursr": 1}))
    await done(queue.close())


# --- lost answers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(redisbox: RedisBox) -> Iterator[LossyProxy]:
    with LossyProxy(redisbox.url) as lossy:
        yield lossy


async def prepared(place: Place, command: str) -> Any:
    """A job with which the command can be done once, when the server knows the script."""
    for n in range(2):
        if command == "retry_job":
            await place.add()
            job = await place.end(fail=True)
            call: Callable[..., Any] = job.retry
        elif command == "remove_child_dependency":
            job = await place.add(delay=_HOUR)
            families.waits(place.raw, f"p{n}")
            families.adopt(place.raw, f"p{n}", place.raw, job.id)
            place.redis.sadd(place.key(f"p{n}:dependencies"), "x:q:1")
            job = await place.read(job.id)
            call = job.remove_child_dependency
        else:
            job = await place.add(delay=_HOUR)
            call = job.promote if command == "promote_job" else lambda job=job: job.change_delay(5 * _HOUR)
        if n == 0:
            await done(call())
            if command == "retry_job":
                await place.end()
    return job


@pytest.mark.parametrize(
    ("command", "method", "refusal"),
    [
        ("retry_job", "retry", "the job is not in the state that the operation needs"),
        ("promote_job", "promote", "the job is not in the state that the operation needs"),
        ("remove_child_dependency", "remove_child_dependency", "it has no parent|the job's parent does not exist"),
    ],
)
async def test_nobody_knows_who_did_what_can_be_done_once(
    place: Place, proxy: LossyProxy, command: str, method: str, refusal: str
) -> None:
    job = await prepared(place, command)
    queue = place.face.Queue("q", connection=proxy.url, prefix=place.prefix)
    through = await done(queue.get_job(job.id))
    proxy.lose(command)
    match = rf"^the answer to .* of job {job.id} was lost; sent again, it was refused \(.*({refusal})\), so it was done"
    with pytest.raises(RedisConnectionError, match=match):
        await done(getattr(through, method)())
    assert proxy.lost == 1
    after = await place.read(job.id)
    assert {
        "retry_job": await done(after.get_state()) == "waiting",
        "promote_job": await done(after.get_state()) == "waiting",
        "remove_child_dependency": after.parent_key is None,
    }[command]
    await done(queue.close())


@pytest.mark.parametrize("command", ["change_delay", "change_priority", "clear_logs", "remove_job"])
async def test_what_can_be_done_twice_is(place: Place, proxy: LossyProxy, command: str) -> None:
    job = await prepared(place, "change_delay")
    await done(job.change_priority(priority=1))
    await done(job.clear_logs())
    await done((await place.add(delay=1)).remove())
    queue = place.face.Queue("q", connection=proxy.url, prefix=place.prefix)
    through = await done(queue.get_job(job.id))
    proxy.lose(command)
    if command == "change_delay":
        await done(through.change_delay(7 * _HOUR))
        assert (await place.read(job.id)).delay == 7 * _HOUR
    elif command == "change_priority":
        await done(through.change_priority(priority=4))
        assert (await place.read(job.id)).priority == 4
    elif command == "clear_logs":
        await done(job.log("line"))
        await done(through.clear_logs())
        assert await done(place.queue.get_job_logs(job.id)) == ([], 0)
    else:
        await done(through.remove())
        assert await place.read(job.id) is None
    assert proxy.lost == 1
    await done(queue.close())
