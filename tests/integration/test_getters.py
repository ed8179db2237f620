"""Reading a queue, in both faces: pages and their order, counts, settings, children; and reading while jobs move."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.integration.scripts import families
from tests.integration.scripts.commands import Queue as RawQueue
from toromq import ConfigurationError, RedisConnectionError, sync

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_HOUR = 3_600_000
_STATES = ("active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children")


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


async def over(jobs: Any) -> AsyncIterator[Any]:
    """An iterator of either face."""
    if hasattr(jobs, "__aiter__"):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job


async def listed(jobs: Any) -> list[Any]:
    return [job async for job in over(jobs)]


def ids_of(jobs: list[Any]) -> str:
    return "".join(job.id for job in jobs)


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def raw(redis: redis_py.Redis, prefix: str) -> RawQueue:
    """The queue's keys."""
    return RawQueue(redis, prefix, "q")


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str) -> AsyncIterator[Any]:
    made = face.Queue("q", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


_PLACES = {
    "waiting": ("wait", "abcd"),
    "active": ("active", "efg"),
    "prioritized": ("prioritized", "hij"),
    "delayed": ("delayed", "klm"),
    "waiting-children": ("waiting-children", "nop"),
    "completed": ("completed", "qrs"),
    "failed": ("failed", "tuv"),
}


@pytest.fixture
def jobs(raw: RawQueue) -> RawQueue:
    """Three jobs in each state, four that wait; in each the first in the alphabet is the oldest."""
    for structure, ids in _PLACES.values():
        for n, job_id in enumerate(ids):
            raw.store(job_id, name=f"job {job_id}")
            if structure in ("wait", "active"):
                raw.redis.lpush(raw.key(structure), job_id)
            else:
                raw.redis.zadd(raw.key(structure), {job_id: 1_700_000_000_000 * 4096 + n})
    return raw


pytestmark = pytest.mark.leaves_keys_broken("jobs that are only put where they are looked for")


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "ids"),
    [
        ("get_waiting", "abcd"),
        ("get_active", "efg"),
        ("get_prioritized", "hij"),
        ("get_delayed", "klm"),
        ("get_waiting_children", "nop"),
        ("get_completed", "srq"),
        ("get_failed", "vut"),
    ],
)
async def test_each_getter_has_its_own_order(queue: Any, jobs: RawQueue, face: Any, method: str, ids: str) -> None:
    found = await done(getattr(queue, method)())
    assert ids_of(found) == ids
    assert {type(job) for job in found} == {face.Job}
    assert found[0].name == f"job {ids[0]}"
    assert ids_of(await done(getattr(queue, method)(1, 1))) == ids[1]
    assert ids_of(await done(getattr(queue, method)(start=1))) == ids[1:]
    assert ids_of(await done(getattr(queue, method)(-2, -1))) == ids[-2:]
    assert await done(getattr(queue, method)(9, 12)) == []


async def test_pages_of_several_states(queue: Any, jobs: RawQueue) -> None:
    for method in (queue.get_jobs, queue.get_ranges):
        plain = method == queue.get_ranges

        async def page(*arguments: Any, plain: bool = plain, method: Any = method, **options: Any) -> str:
            found = await done(method(*arguments, **options))
            return "".join(found) if plain else ids_of(found)

        assert await page() == "gfe" + "srq" + "mlk" + "vut" + "jih" + "dcba" + "pon"
        assert await page("waiting") == "dcba"
        assert await page("wait", asc=True) == "abcd"
        assert await page(["failed", "waiting"], 0, 1) == "vu" + "dc"
        assert await page(("waiting", "failed"), 0, 1, True) == "ab" + "tu"
        assert await page({"active": 1}, start=1, end=-1) == "fe"
        assert await page([]) == ""
        assert await page(["waiting", "wait", "paused"]) == "dcba"


async def test_iterating_reads_all_of_them(queue: Any, jobs: RawQueue, face: Any) -> None:
    for batch in (1, 3, 1000):
        found = await listed(queue.iter_jobs(batch=batch))
        assert ids_of(found) == "gfe" + "srq" + "mlk" + "vut" + "jih" + "dcba" + "pon"
        assert {type(job) for job in found} == {face.Job}
        assert [job.name for job in found] == [f"job {job.id}" for job in found]
    assert ids_of(await listed(queue.iter_jobs("waiting", asc=True))) == "abcd"
    assert ids_of(await listed(queue.iter_jobs(["failed", "delayed"]))) == "vut" + "mlk"
    raw = jobs.redis
    raw.delete(jobs.key("b"), jobs.key("c"))
    raw.set(jobs.key("c"), "no job")
    assert ids_of(await listed(queue.iter_jobs("waiting", batch=2))) == "da"


async def test_iterating_an_empty_queue(queue: Any) -> None:
    assert await listed(queue.iter_jobs()) == []
    assert await done(queue.get_jobs()) == []
    assert await done(queue.get_ranges()) == []


@pytest.mark.parametrize("types", [None, "waiting"], ids=["all states", "waiting"])
async def test_each_job_comes_once_while_a_worker_runs_them(
    queue: Any, redisbox: RedisBox, prefix: str, types: str | None
) -> None:
    added = [job.id for job in await done(queue.add_bulk([("n", n) for n in range(400)]))]
    ran: asyncio.Queue[str] = asyncio.Queue()

    async def process(job: Any) -> None:
        ran.put_nowait(job.id)

    worker = toromq.Worker("q", process, connection=redisbox.url, prefix=prefix, concurrency=20)
    seen: list[str] = []
    states: set[str] = set()
    async with contextlib.AsyncExitStack() as stack:
        async for job in over(queue.iter_jobs(types, batch=9)):
            if not seen:
                await stack.enter_async_context(worker)
            seen.append(job.id)
            states.add("waiting" if job.finished_on is None else "completed")
            if len(seen) % 50 == 0:
                # The worker gets on as fast as the reader.
                for _ in range(40):
                    await ran.get()
    # They were taken from where they waited, and shown as they were by then.
    assert seen == added[::-1]
    assert states == {"waiting", "completed"}


# --- counts -----------------------------------------------------------------------------------------------------------


async def test_counts(queue: Any, jobs: RawQueue) -> None:
    counts = {state: len(ids) for state, (_, ids) in _PLACES.items()}
    assert await done(queue.get_job_counts()) == counts
    assert list(await done(queue.get_job_counts())) == list(_STATES)
    assert await done(queue.get_job_counts("wait", "failed", "paused")) == {"waiting": 4, "failed": 3}
    for state, count in counts.items():
        assert await done(getattr(queue, f"get_{state.replace('-', '_')}_count")()) == count
        assert await done(queue.get_job_count_by_types(state)) == count
    assert await done(queue.get_job_count_by_types()) == 22
    assert await done(queue.get_job_count_by_types("failed", "completed")) == 6
    # What has still to run, and does not yet.
    assert await done(queue.count()) == 4 + 3 + 3 + 3


async def test_an_empty_queue_has_no_jobs(queue: Any) -> None:
    assert await done(queue.get_job_counts()) == dict.fromkeys(_STATES, 0)
    assert await done(queue.count()) == await done(queue.get_job_count_by_types()) == 0
    assert await done(queue.get_counts_per_priority([0, 1])) == {0: 0, 1: 0}
    assert await done(queue.get_delayed_count(5)) == 0


async def test_counts_of_delayed_jobs_that_are_due(queue: Any) -> None:
    born = 1_700_000_000_000
    for delay in (1000, 2000, 2000, 3000):
        await done(queue.add("n", timestamp=born, delay=delay))
    for after, count in {0: 0, 1000: 0, 1001: 1, 2000: 1, 2001: 3, 3001: 4}.items():
        assert await done(queue.get_delayed_count(born + after)) == count
    assert await done(queue.get_delayed_count(datetime.fromtimestamp(born / 1000 + 2.5, UTC))) == 3
    assert await done(queue.get_delayed_count()) == 4


async def test_counts_per_priority(queue: Any) -> None:
    await done(queue.add_bulk([("n", None, {"priority": priority}) for priority in (0, 0, 1, 7, 7, 7, 2_097_151)]))
    await done(queue.add("n", priority=7, delay=_HOUR))
    wanted = [7, 0, 1, 2, 2_097_151, 7]
    assert await done(queue.get_counts_per_priority(wanted)) == {7: 3, 0: 2, 1: 1, 2: 0, 2_097_151: 1}
    assert await done(queue.get_counts_per_priority(())) == {}
    assert await done(queue.get_counts_per_priority(range(3))) == {0: 2, 1: 1, 2: 0}


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_settings(queue: Any, raw: RawQueue) -> None:
    assert await done(queue.get_meta()) == {"paused": False}
    assert await done(queue.get_version()) is None
    settings = {"version": "bullmq:6.7.0", "library": "bullmq-official:0.1.0", "opts.maxLenEvents": "500"}
    raw.put("meta", {**settings, "concurrency": "3", "max": "10", "duration": "1000", "paused": "1", "other": "x"})
    assert await done(queue.get_meta()) == {
        **{"paused": True, "version": "bullmq:6.7.0", "library": "bullmq-official:0.1.0", "max_len_events": 500},
        **{"concurrency": 3, "max": 10, "duration": 1000},
    }
    assert await done(queue.get_version()) == "bullmq:6.7.0"
    assert await done(queue.is_paused()) is True
    # Whoever wrote it, and whatever.
    raw.put("meta", {"paused": "", "concurrency": "many", "max": "2.7"})
    meta = await done(queue.get_meta())
    assert (meta["paused"], meta["concurrency"], meta["max"]) == (True, 0, 2)


async def test_the_version_of_a_queue_that_we_made(queue: Any) -> None:
    await done(queue.add("n"))
    assert re.fullmatch(r"toromq:\d+\.\d+\..*", await done(queue.get_version()))


# --- one job ----------------------------------------------------------------------------------------------------------


async def test_a_job_of_a_scheduler_is_found_by_its_id(queue: Any, raw: RawQueue) -> None:
    job_id = "repeat:every:day:1700000000000"
    raw.store(job_id, rjk="every:day")
    raw.redis.zadd(raw.key("delayed"), {job_id: 5})
    job = await done(queue.get_job(job_id))
    assert (job.id, job.repeat_job_key, await done(queue.get_job_state(job_id))) == (job_id, "every:day", "delayed")
    assert await done(job.log("line")) == 1
    assert await done(queue.get_job_logs(job_id)) == (["line"], 1)
    await done(job.remove())
    assert await done(queue.get_job(job_id)) is None


@pytest.mark.parametrize("job_id", ["wait", "meta", "repeat", "repeat:x", "de:x", "metrics:completed", "repeat:x:y"])
async def test_what_is_no_job_has_no_id(queue: Any, job_id: str) -> None:
    for method in (queue.get_job, queue.get_job_state, queue.get_job_logs, queue.remove):
        with pytest.raises(ConfigurationError, match=r"is the name of a part of the queue, not of a job$"):
            await done(method(job_id))


# --- children of a parent ---------------------------------------------------------------------------------------------


async def test_the_children_of_a_parent(queue: Any, raw: RawQueue) -> None:
    families.waits(raw, "p")
    raw.redis.hset(raw.key("p:processed"), mapping={"x:q:1": '{"n":1}', "x:q:2": "null", "x:q:3": r'"\ud800"'})
    raw.redis.sadd(raw.key("p:dependencies"), "x:q:4", "x:q:5")
    processed, total = await done(queue.get_dependencies("p", "processed"))
    assert (dict(processed), total) == ({"x:q:1": {"n": 1}, "x:q:2": None, "x:q:3": "\ud800"}, 3)
    pending, total = await done(queue.get_dependencies("p", "pending"))
    assert (sorted(pending), total) == ([("x:q:4", None), ("x:q:5", None)], 2)
    assert await done(queue.get_dependencies("nobody", "pending")) == ([], 0)


@pytest.mark.parametrize("kind", ["processed", "pending"])
async def test_pages_of_children(queue: Any, raw: RawQueue, kind: str) -> None:
    total = 1000
    keys = {f"x:q:{n}" for n in range(total)}
    if kind == "processed":
        raw.redis.hset(raw.key("p:processed"), mapping=dict.fromkeys(keys, "1"))
    else:
        raw.redis.sadd(raw.key("p:dependencies"), *keys)
    found: list[str] = []
    for start in range(0, total, 150):
        page, count = await done(queue.get_dependencies("p", kind, start, start + 149))
        assert (len(page), count) == (min(150, total - start), total)
        found += [key for key, _ in page]
    assert len(found) == total
    assert set(found) == keys
    all_of_them, _ = await done(queue.get_dependencies("p", kind))
    assert [key for key, _ in all_of_them] == found
    assert await done(queue.get_dependencies("p", kind, total, total + 9)) == ([], total)
    assert (await done(queue.get_dependencies("p", kind, total - 1)))[0] == all_of_them[-1:]


# --- refusals ---------------------------------------------------------------------------------------------------------

_TYPES = "allowed are active, completed, delayed, failed, prioritized, waiting, waiting-children"
_WHOLE = "allowed is a whole number from"
_REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("get_jobs", ("done",), {}, f"types: got 'done'; {_TYPES}"),
    ("get_jobs", (7,), {}, f"types: got 7; {_TYPES}"),
    ("get_jobs", (["waiting", None],), {}, f"types: got None; {_TYPES}"),
    ("get_jobs", (None, "0"), {}, f"start: got '0'; {_WHOLE} -9007199254740992 to 9007199254740992"),
    ("get_jobs", (None, 0, 1.5), {}, f"end: got 1.5; {_WHOLE} -9007199254740992 to 9007199254740992"),
    ("get_jobs", (None, 0, 1, "yes"), {}, "asc: got 'yes'; allowed is True or False"),
    ("get_ranges", ("unknown",), {}, f"types: got 'unknown'; {_TYPES}"),
    ("get_ranges", (None, None), {}, f"start: got None; {_WHOLE} -9007199254740992 to 9007199254740992"),
    ("iter_jobs", ("complete",), {}, f"types: got 'complete'; {_TYPES}; did you mean 'completed'?"),
    ("iter_jobs", (), {"batch": 0}, f"batch: got 0; {_WHOLE} 1 to 1000"),
    ("iter_jobs", (), {"asc": 0}, "asc: got 0; allowed is True or False"),
    ("get_waiting", (True,), {}, f"start: got True; {_WHOLE} -9007199254740992 to 9007199254740992"),
    ("get_job_counts", ("wait", "fail"), {}, f"types: got 'fail'; {_TYPES}; did you mean 'failed'?"),
    ("get_job_count_by_types", (5,), {}, f"types: got 5; {_TYPES}"),
    ("get_counts_per_priority", (5,), {}, "priorities: got 5; allowed is a list of whole numbers"),
    ("get_counts_per_priority", ("12",), {}, "priorities: got '12'; allowed is a list of whole numbers"),
    ("get_counts_per_priority", ([1, -1],), {}, f"priorities[1]: got -1; {_WHOLE} 0 to 2097151"),
    ("get_delayed_count", ("now",), {}, "timestamp: got 'now'; allowed is an aware datetime or milliseconds since "
     "1970, 0 or more"),
    ("get_dependencies", ("p", "failed"), {}, "type: got 'failed'; allowed are processed, pending"),
    ("get_dependencies", ("p", "process"), {}, "type: got 'process'; allowed are processed, pending; did you mean "
     "'processed'?"),
    ("get_dependencies", ("p", "pending", -1), {}, f"start: got -1; {_WHOLE} 0 to 9007199254740992"),
    ("get_dependencies", ("p", "pending", 0, -2), {}, f"end: got -2; {_WHOLE} -1 to 9007199254740992"),
    ("get_dependencies", (None, "pending"), {}, "job_id: got None; allowed is a text"),
    ("get_job", (None,), {}, "job_id: got None; allowed is a text"),
    ("get_job_state", (1.5,), {}, "job_id: got 1.5; allowed is a text"),
    ("get_job_logs", ("1", 0, "end"), {}, f"end: got 'end'; {_WHOLE} -9007199254740992 to 9007199254740992"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments", "options", "message"), _REFUSED, ids=lambda value: str(value)[:40])
async def test_a_bad_argument_is_refused_before_anything_is_sent(
    face: Any, method: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    # Nobody listens there.
    queue = face.Queue("q", connection="redis://127.0.0.1:1/0")
    called = getattr(queue, method)
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        await (listed(called(*arguments, **options)) if method == "iter_jobs" else done(called(*arguments, **options)))
    await done(queue.close())


async def test_a_server_that_stays_away_is_told(face: Any) -> None:
    connection = toromq.Connection("redis://127.0.0.1:1/0", command_timeout=50)
    queue = face.Queue("q", connection=connection)
    for call in (
        *(queue.get_jobs, queue.get_ranges, queue.get_job_counts, queue.get_meta, queue.get_version, queue.count),
        *(lambda: queue.get_job("1"), lambda: queue.get_job_state("1"), lambda: queue.get_job_logs("1")),
        *(lambda: queue.get_counts_per_priority([1]), lambda: queue.get_dependencies("1", "pending")),
        lambda: listed(queue.iter_jobs()),
    ):
        with pytest.raises(RedisConnectionError):
            await done(call())
    connection.close()
