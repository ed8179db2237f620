"""Controlling a whole queue, in both faces: what each method leaves, what listeners hear, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.integration.scripts import families
from tests.integration.scripts.commands import Queue as RawQueue
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from toromq import ConfigurationError, RedisConnectionError, SchedulerConflictError, ScriptError, sync

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
    """A queue through one face, and its keys."""

    def __init__(self, face: Any, url: str, prefix: str, client: redis_py.Redis) -> None:
        self.face, self.redis, self.prefix = face, client, prefix
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.raw = RawQueue(client, prefix, "q")
        self.key = self.raw.key
        self.queue = face.Queue("q", **self.options)

    async def add(self, *names: str, **options: Any) -> list[str]:
        """Adds jobs, one by one; gives their ids."""
        return [(await done(self.queue.add(name, **options))).id for name in names]

    async def end(self, count: int = 1, *, fail: bool = False) -> list[str]:
        """Runs waiting jobs by hand; gives their ids."""
        ids = []
        worker = self.face.Worker("q", **self.options)
        for _ in range(count):
            job = await done(worker.get_next_job("t", block=False))
            if fail:
                await done(job.move_to_failed(ValueError("why"), "t", fetch_next=False))
            else:
                await done(job.move_to_completed("done", "t", fetch_next=False))
            ids.append(job.id)
        await done(worker.close())
        return ids

    async def begin(self) -> str:
        """Leaves a waiting job active and locked; gives its id."""
        worker = self.face.Worker("q", **self.options)
        job = await done(worker.get_next_job("t", block=False))
        await done(worker.close())
        return str(job.id)

    def events(self) -> list[dict[str, str]]:
        """All events of the queue."""
        entries: Any = self.redis.xrange(self.key("events"))
        return [fields for _, fields in entries]

    def calls(self, command: str) -> int:
        """How often Redis was asked to do something."""
        stats: Any = self.redis.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def lose(self, proxy: LossyProxy, **options: Any) -> Any:
        """The queue behind a proxy that loses answers."""
        return self.face.Queue("q", **{**self.options, "connection": proxy.url, **options})


@pytest.fixture
async def place(face: Any, redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> AsyncIterator[Place]:
    made = Place(face, redisbox.url, prefix, redis)
    yield made
    await done(made.queue.close())


# --- pausing ----------------------------------------------------------------------------------------------------------


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(place: Place) -> None:
    queue = place.queue
    assert await done(queue.is_paused()) is False
    await done(queue.pause())
    assert await done(queue.is_paused()) is True
    (first,) = await place.add("n")
    worker = toromq.Worker("q", lambda job: None, **place.options)
    async with worker:
        second = (await place.add("n", delay=1))[0]
        # A due job shows that the worker looks, and where it goes that none may start.
        await aeventually(lambda: place.redis.llen(place.key("wait")) == 2)
        assert await done(queue.get_job_counts("active", "completed")) == {"active": 0, "completed": 0}
        await done(queue.resume())
        await aeventually(lambda: place.redis.zcard(place.key("completed")) == 2)
    assert set(await done(queue.get_ranges("completed"))) == {first, second}
    assert await done(queue.is_paused()) is False


async def test_a_job_that_runs_goes_on_while_its_queue_is_paused(place: Place) -> None:
    await place.add("n")
    active = await place.begin()
    await done(place.queue.pause())
    assert await done(place.queue.get_job_state(active)) == "active"
    place.redis.delete(place.key(f"{active}:lock"), place.key("active"))
    place.redis.lpush(place.key("wait"), active)


async def test_resuming_brings_back_what_an_old_client_put_aside(place: Place) -> None:
    ids = [f"old-{n}" for n in range(12_000)]
    pipeline = place.redis.pipeline(transaction=False)
    for job_id in ids:
        pipeline.hset(place.key(job_id), mapping={"name": "n", "data": "{}", "opts": "{}"})
        pipeline.hset(place.key(job_id), mapping={"timestamp": 1, "delay": 0, "priority": 0})
        pipeline.lpush(place.key("paused"), job_id)
    pipeline.hset(place.key("meta"), "paused", 1)
    pipeline.execute()
    (new,) = await place.add("n")
    assert await done(place.queue.get_waiting_count()) == 12_001
    await done(place.queue.resume())
    assert await done(place.queue.get_ranges("waiting", asc=True)) == [*ids, new]
    assert place.redis.llen(place.key("paused")) == 0
    assert [entry["event"] for entry in place.events()].count("resumed") == 1
    assert [job.id for job in await done(place.queue.get_waiting(0, 2))] == ids[:3]


# --- removing ---------------------------------------------------------------------------------------------------------


async def test_removing_tells_whether_the_job_is_gone(place: Place) -> None:
    first, second = await place.add("n", "n")
    assert await done(place.queue.remove(second)) is True
    assert await done(place.queue.get_job(second)) is None
    assert await done(place.queue.remove(second)) is True
    assert await place.begin() == first
    assert await done(place.queue.remove(first)) is False
    assert await done(place.queue.get_job_state(first)) == "active"
    place.redis.delete(place.key(f"{first}:lock"))
    assert await done(place.queue.remove(first)) is True
    assert place.redis.keys(place.key("[0-9]*")) == []


async def test_removing_takes_the_children_unless_it_is_told_not_to(place: Place) -> None:
    other = RawQueue(place.redis, place.prefix, "other")
    families.waits(place.raw, "p", "q")
    other.store("a")
    other.store("b")
    other.redis.rpush(other.key("wait"), "a", "b")
    families.adopt(place.raw, "p", other, "a")
    families.adopt(place.raw, "q", other, "b")
    assert await done(place.queue.remove("p")) is True
    assert await done(place.queue.remove("q", remove_children=False)) is True
    assert other.redis.lrange(other.key("wait"), 0, -1) == ["b"]
    assert not place.redis.exists(place.key("p"), place.key("q"), other.key("a"))
    assert other.redis.exists(other.key("b"))
    place.redis.zadd(other.key("marker"), {"0": 0})


async def test_the_next_job_of_a_scheduler_is_not_removed(place: Place) -> None:
    place.raw.store("repeat:often:1700000000000", rjk="often")
    place.redis.zadd(place.key("delayed"), {"repeat:often:1700000000000": 1_700_000_000_000 * 4096})
    place.redis.zadd(place.key("repeat"), {"often": 1_700_000_000_000})
    place.redis.hset(place.key("repeat:often"), "ic", 1)
    before = keyspace(place.redis, place.prefix)
    match = "^remove of job repeat:often:1700000000000: the job is the next one of a job scheduler"
    with pytest.raises(SchedulerConflictError, match=match) as caught:
        await done(place.queue.remove("repeat:often:1700000000000"))
    assert (caught.value.code, caught.value.job_id) == (-8, "repeat:often:1700000000000")
    assert keyspace(place.redis, place.prefix) == before


# --- draining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delayed", [False, True])
async def test_draining_takes_what_waits_and_nothing_else(place: Place, delayed: bool) -> None:
    await place.add("n", "n")
    finished = await place.end(1)
    active = (await place.add("n"), await place.begin())[1]
    waiting = await place.add(*"nnn")
    prioritized = await place.add("n", "n", priority=5)
    later = await place.add("n", "n", delay=_HOUR)
    before = len(place.events())
    await done(place.queue.drain(delayed))
    left = [job.id for job in await done(place.queue.get_jobs())]
    assert sorted(left) == sorted([*finished, active, *([] if delayed else later)])
    for job_id in (*waiting, *prioritized):
        assert not place.redis.exists(place.key(job_id))
    assert len(place.events()) == before
    place.redis.delete(place.key("active"), place.key(active), place.key(f"{active}:lock"))


async def test_draining_spares_the_next_jobs_of_schedulers(place: Place) -> None:
    await place.add("n", "n")
    for n, structure in enumerate(("wait", "prioritized", "delayed")):
        job_id = f"repeat:s{n}:1700000000000"
        place.raw.store(job_id, rjk=f"s{n}", priority=n % 2)
        if structure == "wait":
            place.redis.rpush(place.key("wait"), job_id)
        else:
            place.redis.zadd(place.key(structure), {job_id: 2**32 if n == 1 else 1_700_000_000_000 * 4096})
        place.redis.zadd(place.key("repeat"), {f"s{n}": 1_700_000_000_000})
        place.redis.hset(place.key(f"repeat:s{n}"), "ic", 1)
    await place.add("n", priority=3)
    await place.add("n", delay=5000)
    await done(place.queue.drain(True))
    left = sorted(await done(place.queue.get_ranges()))
    assert left == [f"repeat:s{n}:1700000000000" for n in range(3)]


async def test_draining_a_large_queue(place: Place) -> None:
    for _ in range(3):
        await done(place.queue.add_bulk([("n", None)] * 700 + [("n", None, {"priority": 2})] * 500))
    await done(place.queue.drain())
    assert await done(place.queue.get_job_count_by_types()) == 0
    assert [key for key in keyspace(place.redis, place.prefix) if re.search(r":\d+$", key)] == []


async def test_draining_while_producers_add(place: Place) -> None:
    producer: toromq.Queue[Any, Any] = toromq.Queue("q", **place.options)
    added: list[str] = []
    stop = asyncio.Event()

    async def produce(priority: int) -> None:
        while not stop.is_set():
            added.extend(job.id for job in await producer.add_bulk([("n", None, {"priority": priority})] * 40))

    async with producer, asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(produce(n % 2))
        draining = place.face.Queue("q", **place.options)
        for round in range(1, 6):
            await aeventually(lambda round=round: len(added) >= round * 400)
            # In a thread, so that the producers go on.
            if place.face is sync:
                await asyncio.to_thread(draining.drain)
            else:
                await draining.drain()
        await done(draining.close())
        stop.set()
    # Each job is whole or gone.
    left = set(await done(place.queue.get_ranges()))
    assert left <= set(added)
    assert {job_id for job_id in added if place.redis.exists(place.key(job_id))} == left
    await done(place.queue.drain())
    assert await done(place.queue.get_job_counts("waiting", "prioritized")) == {"waiting": 0, "prioritized": 0}


# --- cleaning ---------------------------------------------------------------------------------------------------------


async def test_cleaning_each_state(place: Place) -> None:
    queue = place.queue
    await place.add("n", "n", "n")
    ids = {"completed": await place.end(), "failed": await place.end(fail=True), "active": [await place.begin()]}
    ids["waiting"] = await place.add("n", "n")
    ids["prioritized"] = await place.add("n", "n", priority=2)
    ids["delayed"] = await place.add("n", "n", delay=_HOUR)
    families.waits(place.raw, "p", timestamp=1)
    place.redis.sadd(place.key("p:dependencies"), "other:queue:1")
    ids["waiting-children"] = ["p"]
    assert await done(queue.clean(0, type="active")) == []
    place.redis.delete(place.key(f"{ids['active'][0]}:lock"))
    for state, expected in ids.items():
        assert await done(queue.clean(_HOUR, type=state)) == ([] if state != "waiting-children" else expected)
        found = await done(queue.clean(0, type=state))
        assert found == ([] if state == "waiting-children" else expected), state
        assert await done(queue.get_job_count_by_types(state)) == 0
    counts = [entry["count"] for entry in place.events() if entry["event"] == "cleaned"]
    assert "".join(counts) == "0" + "01" * 3 + "02" * 3 + "10"
    assert await done(queue.get_jobs()) == []


async def test_cleaning_goes_by_the_age_and_up_to_the_limit(place: Place) -> None:
    queue = place.queue
    await place.add(*"nnnnn")
    ids = await place.end(5)
    assert await done(queue.clean(timedelta(hours=1))) == []
    assert await done(queue.clean(0, 2)) == ids[:2]
    assert await done(queue.clean(timedelta(0), limit=9, type="completed")) == ids[2:]
    old, young = (await place.add("n", timestamp=1000))[0], (await place.add("n"))[0]
    assert await done(queue.clean(60_000, type="waiting")) == [old]
    assert await done(queue.clean(60_000, type="wait")) == []
    assert await done(queue.get_ranges("waiting")) == [young]


async def test_cleaning_what_waits_takes_what_an_old_client_paused(place: Place) -> None:
    first, second, third = await place.add("a", "b", "c")
    place.redis.rename(place.key("wait"), place.key("paused"))
    (fourth,) = await place.add("d")
    before = len(place.events())
    assert await done(place.queue.clean(0, 2, "waiting")) == [fourth, first]
    assert await done(place.queue.clean(0, type="waiting")) == [second, third]
    assert place.events()[before:] == [{"event": "cleaned", "count": "2"}] * 2


async def test_cleaning_20_000_jobs(place: Place) -> None:
    total = 20_000
    pipeline = place.redis.pipeline(transaction=False)
    fields: dict[str, Any] = {"name": "n", "data": "{}", "opts": "{}", "timestamp": 1}
    fields |= {"delay": 0, "priority": 0, "atm": 1, "ats": 1}
    for n in range(total):
        finished: Any = {**fields, "finishedOn": 1000 + n, "returnvalue": "null"}
        pipeline.hset(place.key(f"j{n}"), mapping=finished)
        pipeline.zadd(place.key("completed"), {f"j{n}": 1000 + n})
    pipeline.execute()
    assert await done(place.queue.clean(0, limit=700)) == [f"j{n}" for n in range(700)]
    assert await done(place.queue.clean(0)) == [f"j{n}" for n in range(700, total)]
    assert [entry["count"] for entry in place.events()] == ["700", str(total - 700)]
    assert list(keyspace(place.redis, place.prefix)) == [place.key("events")]


async def test_cleaning_many_among_those_that_are_spared(place: Place) -> None:
    # Each third is young.
    jobs = [("n", None, {"timestamp": 5} if n % 3 else {}) for n in range(2000)]
    ids = [job.id for job in await done(place.queue.add_bulk(jobs))]
    old = [job_id for n, job_id in enumerate(ids) if n % 3]
    before = place.calls("lrem")
    assert await done(place.queue.clean(60_000, type="waiting")) == old
    # One walk for all that go in one call; a walk for each would hold Redis for seconds where there are more.
    assert place.calls("lrem") - before <= 5
    assert await done(place.queue.get_ranges("waiting", asc=True)) == ids[::3]


# --- obliterating -----------------------------------------------------------------------------------------------------


async def everything(place: Place) -> None:
    """A queue that has all that a queue can have, without active jobs."""
    await place.add("n", "n")
    await place.end()
    await place.end(fail=True)
    job = await done(place.queue.add("n"))
    await done(job.log("line"))
    await done(job.update_progress(1))
    await place.add("n", priority=3)
    await place.add("n", delay=_HOUR)
    other = RawQueue(place.redis, place.prefix, "other")
    families.waits(place.raw, "p")
    other.store("c")
    other.redis.rpush(other.key("wait"), "c")
    other.redis.zadd(other.key("marker"), {"0": 0})
    families.adopt(place.raw, "p", other, "c")
    place.redis.zadd(place.key("repeat"), {"often": 1_700_000_000_000})
    place.redis.hset(place.key("repeat:often"), "ic", 1)
    place.raw.store("repeat:often:1700000000000", rjk="often")
    place.redis.rpush(place.key("wait"), "repeat:often:1700000000000")
    for outcome in ("completed", "failed"):
        place.redis.hset(place.key(f"metrics:{outcome}"), "count", 1)
        place.redis.lpush(place.key(f"metrics:{outcome}:data"), 1)
    place.redis.set(place.key("limiter"), 3, px=_HOUR)
    place.redis.set(place.key("stalled-check"), 3, px=_HOUR)
    place.redis.set(place.key("de:x"), "1", px=_HOUR)


def left_of(place: Place) -> list[str]:
    return [key for key in keyspace(place.redis, place.prefix) if key.startswith(place.key(""))]


@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_obliterating_leaves_nothing(place: Place, count: int) -> None:
    await everything(place)
    await done(place.queue.obliterate(count=count))
    assert left_of(place) == []
    # A child in another queue stays, and runs as if it had never had a parent.
    other = toromq.Worker("other", lambda job: "ran", **place.options)
    async with other:
        await aeventually(lambda: place.redis.zcard(f"{place.prefix}:other:completed") == 1)
    assert left_of(place) == []


async def test_a_queue_works_after_it_was_obliterated(place: Place) -> None:
    await place.add("n", "n")
    await done(place.queue.obliterate())
    assert await place.add("n") == ["1"]
    assert await done(place.queue.is_paused()) is False
    assert await place.end() == ["1"]


async def test_active_jobs_forbid_it_unless_it_is_forced(place: Place) -> None:
    await place.add("n", "n")
    active = await place.begin()
    with pytest.raises(ScriptError, match=r"^obliterate: jobs of the queue are active") as caught:
        await done(place.queue.obliterate())
    assert (caught.value.code, caught.value.job_id) == (-104, None)
    # Nothing is gone, but it stays paused.
    assert await done(place.queue.get_job_state(active)) == "active"
    assert await done(place.queue.get_waiting_count()) == 1
    assert await done(place.queue.is_paused()) is True
    await done(place.queue.obliterate(force=True))
    assert keyspace(place.redis, place.prefix) == {}


async def test_more_deduplication_windows_than_one_call_takes(place: Place) -> None:
    pipeline = place.redis.pipeline(transaction=False)
    for n in range(12_000):
        pipeline.set(place.key(f"de:{n}"), "gone", px=_HOUR)
    for n in range(100):
        pipeline.hset(place.key(f"dn:{n}"), "jid", n)
    pipeline.set(f"{place.prefix}:q2:de:1", "other", px=_HOUR)
    pipeline.execute()
    await place.add("n")
    await done(place.queue.obliterate())
    assert list(keyspace(place.redis, place.prefix)) == [f"{place.prefix}:q2:de:1"]


@pytest.mark.parametrize("name", ["what?", "a*b", "[ab]", "back\\slash", "{tag}", "ünï"])
async def test_a_name_is_no_pattern(place: Place, name: str) -> None:
    bystanders = ["whatx", "axb", "a", "b"]
    for bystander in (*bystanders, name):
        place.redis.set(f"{place.prefix}:{bystander}:de:1", "x", px=_HOUR)
    queue = place.face.Queue(name, **place.options)
    await done(queue.add("n"))
    await done(queue.obliterate())
    await done(queue.close())
    assert sorted(keyspace(place.redis, place.prefix)) == sorted(f"{place.prefix}:{name}:de:1" for name in bystanders)


async def test_obliterating_while_producers_add_ends(place: Place) -> None:
    producer: toromq.Queue[Any, Any] = toromq.Queue("q", **place.options)
    stop = asyncio.Event()

    async def produce() -> None:
        while not stop.is_set():
            await producer.add_bulk([("n", None)] * 20)
            await asyncio.sleep(0.005)

    obliterate: Callable[..., Any] = place.queue.obliterate
    async with producer, asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        await aeventually(lambda: place.redis.exists(place.key("wait")))
        await (asyncio.to_thread(obliterate) if place.face is sync else obliterate())
        stop.set()
    await done(place.queue.obliterate())
    assert keyspace(place.redis, place.prefix) == {}


async def test_a_queue_that_never_was(place: Place) -> None:
    await done(place.queue.obliterate())
    assert keyspace(place.redis, place.prefix) == {}


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "completed"])
@pytest.mark.parametrize("count", [1, 3, 1000])
async def test_finished_jobs_are_queued_again(place: Place, state: str, count: int) -> None:
    await place.add(*"nnnnn")
    ids = await place.end(5, fail=state == "failed")
    (waiting,) = await place.add("n")
    await done(place.queue.retry_jobs(state=state, count=count))
    assert await done(place.queue.get_ranges("waiting", asc=True)) == [waiting, *ids]
    again = await done(place.queue.get_job(ids[0]))
    assert (again.finished_on, again.processed_on, again.returnvalue, again.failed_reason) == (None, None, None, None)
    assert (again.attempts_made, again.attempts_started) == (1, 1)


async def test_only_those_that_finished_by_then_are_queued_again(place: Place) -> None:
    await place.add("n", "n")
    first, second = await place.end(2, fail=True)
    for job_id, moment in ((first, 1000), (second, 2000)):
        place.redis.hset(place.key(job_id), "finishedOn", moment)
        place.redis.zadd(place.key("failed"), {job_id: moment})
    await done(place.queue.retry_jobs(timestamp=999))
    assert await done(place.queue.get_ranges("waiting")) == []
    await done(place.queue.retry_jobs(timestamp=datetime.fromtimestamp(1, UTC)))
    assert await done(place.queue.get_ranges("waiting")) == [first]
    await done(place.queue.retry_jobs())
    assert await done(place.queue.get_ranges("waiting", asc=True)) == [first, second]


@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_delayed_jobs_are_queued_now(place: Place, count: int) -> None:
    ids = await place.add(*"nnnnn", delay=_HOUR)
    (waiting,) = await place.add("n")
    await done(place.queue.promote_jobs(count=count))
    assert await done(place.queue.get_ranges("waiting", asc=True)) == [waiting, *ids]
    assert await place.end(6) == [waiting, *ids]


# --- orphans ----------------------------------------------------------------------------------------------------------


async def test_jobs_in_no_state_are_removed(place: Place) -> None:
    await everything(place)
    for n in range(25):
        place.raw.store(f"orphan-{n}", deid="x" if n == 0 else "y")
        place.redis.rpush(place.key(f"orphan-{n}:logs"), "line")
    before = {key for key in keyspace(place.redis, place.prefix) if "orphan" not in key}
    assert await done(place.queue.remove_orphaned_jobs(limit=7)) == 7
    assert await done(place.queue.remove_orphaned_jobs(count=3, limit=10)) == 10
    assert await done(place.queue.remove_orphaned_jobs(count=1)) == 8
    assert await done(place.queue.remove_orphaned_jobs()) == 0
    assert set(keyspace(place.redis, place.prefix)) == before


async def test_jobs_that_are_in_a_state_are_not_looked_for_one_by_one(place: Place) -> None:
    await done(place.queue.add_bulk([("n", n) for n in range(6000)]))
    place.raw.store("orphan")
    before = place.calls("lpos")
    assert await done(place.queue.remove_orphaned_jobs()) == 1
    # In the three lists.
    assert place.calls("lpos") - before == 3


async def test_the_priority_key_of_very_old_clients(place: Place) -> None:
    assert await done(place.queue.remove_deprecated_priority_key()) is False
    place.redis.zadd(place.key("priority"), {"1": 1})
    assert await done(place.queue.remove_deprecated_priority_key()) is True
    assert keyspace(place.redis, place.prefix) == {}


# --- listeners --------------------------------------------------------------------------------------------------------

_HEARD = ["waiting", "waiting", "waiting", "paused", "resumed", "progress", "progress", "removed", "removed", "cleaned"]


@pytest.mark.parametrize("are_async", [False, True], ids=["plain listeners", "async listeners"])
async def test_listeners_hear_of_what_is_done_through_the_queue(place: Place, are_async: bool) -> None:
    queue = place.queue
    heard: list[tuple[Any, ...]] = []
    if are_async and place.face is sync:
        with pytest.raises(ConfigurationError, match=r"use toromq\.Queue"):
            queue.on("waiting", place.add)
        return
    for event in ("waiting", "progress", "removed", "cleaned", "paused", "resumed"):

        def listener(*arguments: Any, event: str = event) -> None:
            heard.append((event, *arguments))

        async def later(*arguments: Any, event: str = event) -> None:
            await asyncio.sleep(0)
            heard.append((event, *arguments))

        queue.on(event, later if are_async else listener)
    job = await done(queue.add("n"))
    more = await done(queue.add_bulk([("n", 1), ("n", 2)]))
    await done(queue.pause())
    await done(queue.resume())
    await done(job.update_progress({"half": True}))
    await done(queue.update_job_progress(job.id, 70))
    await done(job.remove())
    await done(queue.remove(more[0].id))
    await done(queue.clean(0, type="waiting"))
    await done(queue.drain())
    await aeventually(lambda: len(heard) >= len(_HEARD))
    assert [event for event, *_ in heard] == _HEARD
    assert [call[1].id for call in heard[:3]] == [job.id, *(new.id for new in more)]
    assert all(type(call[1]) is place.face.Job for call in heard[:3])
    assert heard[3:] == [
        *(("paused",), ("resumed",)),
        *(("progress", job.id, {"half": True}), ("progress", job.id, 70)),
        *(("removed", job.id), ("removed", more[0].id)),
        ("cleaned", [more[1].id], "waiting"),
    ]


async def test_nobody_hears_of_what_was_refused(place: Place) -> None:
    heard: list[tuple[Any, ...]] = []
    for event in ("waiting", "progress", "removed", "cleaned", "paused", "resumed"):
        place.queue.on(event, lambda *arguments: heard.append(arguments))
    await place.add("n")
    active = await place.begin()
    assert await done(place.queue.remove(active)) is False
    with pytest.raises(ScriptError):
        await done(place.queue.update_job_progress("no such job", 1))
    with pytest.raises(ConfigurationError):
        await done(place.queue.add("n", priority=-1))
    assert len(heard) == 1
    place.redis.delete(*place.redis.keys(place.key("*")))


async def test_listeners_of_a_queue_come_and_go(place: Place) -> None:
    heard: list[str] = []
    queue = place.queue
    with pytest.raises(ConfigurationError, match=r"^event: got 'pause'; allowed are cleaned, .*did you mean 'paused'"):
        queue.on("pause", print)

    @queue.on("paused")  # type: ignore[untyped-decorator]
    def decorated() -> None:
        heard.append("decorated")

    queue.once("paused", lambda: heard.append("once"))
    await done(queue.pause())
    queue.off("paused", decorated)
    await done(queue.pause())
    assert heard == ["decorated", "once"]


# --- the queue itself -------------------------------------------------------------------------------------------------


async def test_a_queue_is_ready_once_redis_answers(place: Place) -> None:
    await done(place.queue.wait_until_ready())
    assert keyspace(place.redis, place.prefix) == {}
    away = place.face.Queue("q", connection=toromq.Connection("redis://127.0.0.1:1/0", command_timeout=50))
    with pytest.raises(RedisConnectionError):
        await done(away.wait_until_ready())


@pytest.mark.parametrize("method", ["close", "disconnect"])
async def test_a_queue_can_be_closed_twice(place: Place, method: str) -> None:
    queue = place.face.Queue("q", **place.options)
    await done(queue.add("n"))
    for _ in range(2):
        await done(getattr(queue, method)())


async def test_a_queue_knows_the_names_of_its_keys(place: Place) -> None:
    assert place.queue.qualified_name == f"{place.prefix}:q"
    assert place.queue.to_key("wait") == f"{place.prefix}:q:wait"
    with pytest.raises(ConfigurationError, match=r"^suffix: got 5; allowed is a text$"):
        place.queue.to_key(5)


# --- refusals ---------------------------------------------------------------------------------------------------------

_REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("remove", (7.5,), {}, "job_id: got 7.5; allowed is a text"),
    ("remove", ("wait",), {}, "job_id: 'wait' is the name of a part of the queue, not of a job"),
    ("remove", ("x",), {"remove_children": 1}, "remove_children: got 1; allowed is True or False"),
    ("drain", (1,), {}, "delayed: got 1; allowed is True or False"),
    ("clean", (-1,), {}, "grace: got -1; allowed is a timedelta or milliseconds, 0 or more"),
    ("clean", ("1s",), {}, "grace: got '1s'; allowed is a timedelta or milliseconds, 0 or more"),
    ("clean", (0, -1), {}, "limit: got -1; allowed is a whole number from 0 to 9007199254740992"),
    (
        "clean",
        (0, 1, "complete"),
        {},
        "type: got 'complete'; allowed are active, completed, delayed, failed, prioritized, waiting, waiting-children; "
        "did you mean 'completed'?",
    ),
    ("obliterate", (), {"force": "yes"}, "force: got 'yes'; allowed is True or False"),
    ("obliterate", (), {"count": 0}, "count: got 0; allowed is a whole number from 1 to 5000"),
    ("retry_jobs", (), {"state": "active"}, "state: got 'active'; allowed are failed, completed"),
    ("retry_jobs", (), {"state": "fail"}, "state: got 'fail'; allowed are failed, completed; did you mean 'failed'?"),
    ("retry_jobs", (), {"count": 5001}, "count: got 5001; allowed is a whole number from 1 to 5000"),
    (
        "retry_jobs",
        (),
        {"timestamp": -1},
        "timestamp: got -1; allowed is an aware datetime or milliseconds since 1970, 0 or more",
    ),
    ("promote_jobs", (), {"count": True}, "count: got True; allowed is a whole number from 1 to 5000"),
    ("remove_orphaned_jobs", (0,), {}, "count: got 0; allowed is a whole number from 1 to 5000"),
    ("remove_orphaned_jobs", (1, -1), {}, "limit: got -1; allowed is a whole number from 0 to 9007199254740992"),
    ("update_job_progress", ("meta", 1), {}, "job_id: 'meta' is the name of a part of the queue, not of a job"),
    ("add_job_log", ("1", "x", -1), {}, "keep_logs: got -1; allowed is a whole number from 0 to 9007199254740992"),
]


@pytest.mark.parametrize(("method", "arguments", "options", "message"), _REFUSED, ids=lambda value: str(value)[:40])
async def test_a_bad_argument_is_refused_before_anything_is_sent(
    face: Any, method: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    # Nobody listens there.
    queue = face.Queue("q", connection="redis://127.0.0.1:1/0")
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        await done(getattr(queue, method)(*arguments, **options))
    await done(queue.close())


# --- lost answers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(redisbox: RedisBox) -> Any:
    with LossyProxy(redisbox.url) as lossy:
        yield lossy


async def known(place: Place) -> None:
    """Calls each script once, so that the server knows it and a lost answer is that of a call that was made."""
    other = place.face.Queue("warm", **place.options)
    await done(other.obliterate())
    for call in (other.pause, other.resume, other.drain, other.retry_jobs, other.promote_jobs):
        await done(call())
    await done(other.clean(0))
    await done(other.remove("x"))
    await done(other.remove_orphaned_jobs())
    await done(other.obliterate())
    await done(other.close())


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("pause", lambda queue: queue.pause()),
        ("resume", lambda queue: queue.resume()),
        ("clean_jobs", lambda queue: queue.drain(True)),
        ("retry_jobs", lambda queue: queue.retry_jobs(count=2)),
        ("retry_jobs", lambda queue: queue.promote_jobs(count=2)),
        ("remove_job", lambda queue: queue.remove("1")),
        ("obliterate", lambda queue: queue.obliterate()),
    ],
)
async def test_what_can_be_done_twice_is(
    place: Place, proxy: LossyProxy, command: str, call: Callable[[Any], Any]
) -> None:
    await place.add(*"nnnnn")
    await place.end(4, fail=True)
    await place.add(*"nnn", delay=_HOUR)
    await known(place)
    queue = place.lose(proxy)
    proxy.lose(command)
    answer = await done(call(queue))
    assert proxy.lost == 1
    counts = await done(place.queue.get_job_counts("waiting", "failed", "delayed"))
    paused = await done(place.queue.is_paused())
    assert (list(counts.values()), paused, answer) == {
        "pause": ([1, 4, 3], True, None),
        "resume": ([1, 4, 3], False, None),
        "clean_jobs": ([0, 4, 0], False, None),
        "retry_jobs": ([5, 0, 3] if counts["failed"] == 0 else [4, 4, 0], False, None),
        "remove_job": ([1, 3, 3], False, True),
        "obliterate": ([0, 0, 0], False, None),
    }[command]
    await done(queue.close())


async def test_the_last_answer_of_an_obliteration_may_be_lost(place: Place, proxy: LossyProxy) -> None:
    await known(place)
    await place.add("n")
    queue = place.lose(proxy)
    # The first asks whether it may.
    proxy.lose("obliterate", 2)
    await done(queue.obliterate())
    assert proxy.lost == 2
    assert keyspace(place.redis, place.prefix) == {}
    await done(queue.close())


async def test_cleaning_without_a_limit_goes_on_after_a_lost_answer(place: Place, proxy: LossyProxy) -> None:
    await place.add(*"nnnn")
    await known(place)
    queue = place.lose(proxy)
    proxy.lose("clean_jobs")
    # Nobody heard of those that went then.
    assert await done(queue.clean(0, type="waiting")) == []
    assert await done(place.queue.get_waiting_count()) == 0
    await done(queue.close())


@pytest.mark.parametrize("method", ["clean", "remove_orphaned_jobs"])
async def test_a_limit_holds_although_an_answer_was_lost(place: Place, proxy: LossyProxy, method: str) -> None:
    if method == "clean":
        await place.add(*"nnnn")
    else:
        for job_id in "abcd":
            place.raw.store(job_id)
    await known(place)
    queue = place.lose(proxy)
    proxy.lose("clean_jobs" if method == "clean" else "remove_orphans")
    with pytest.raises(RedisConnectionError):
        await done(queue.clean(0, 2, "waiting") if method == "clean" else queue.remove_orphaned_jobs(limit=2))
    assert len(place.redis.keys(place.key("[1-4a-d]"))) == 2
    await done(queue.close())
    with contextlib.suppress(ConfigurationError):
        await done(place.queue.remove_orphaned_jobs())


async def test_a_server_that_stays_away_is_told(face: Any) -> None:
    connection = toromq.Connection("redis://127.0.0.1:1/0", command_timeout=50)
    queue = face.Queue("q", connection=connection)
    methods: list[Callable[[], Any]] = [queue.pause, queue.resume, queue.drain, queue.obliterate, queue.retry_jobs]
    for call in (*methods, queue.promote_jobs, lambda: queue.clean(0), lambda: queue.remove("1"), queue.is_paused):
        with pytest.raises(RedisConnectionError):
            await done(call())
    connection.close()
