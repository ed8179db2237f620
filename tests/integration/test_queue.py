"""What adding a job stores, and that nothing is lost, stored twice or stored by halves."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.support.keyspace import keyspace
from tests.support.redisbox import RedisBox
from toromq import Backoff, Connection, sync
from toromq.errors import ConfigurationError, JobNotFoundError, SerializationError

if TYPE_CHECKING:
    import redis as redis_py

# Any moment; far enough back that a job due a minute later is due now, for a worker.
BORN = 1_700_000_000_000
MOMENT = datetime.fromtimestamp(BORN / 1000, UTC)



async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str) -> Any:
    made = face.Queue("q", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


def stored(redis: redis_py.Redis, prefix: str, job_id: str) -> dict[str, Any]:
    """A job's hash, its options decoded."""
    fields: dict[str, Any] = redis.hgetall(f"{prefix}:q:{job_id}")  # type: ignore[assignment]
    return fields | {"opts": json.loads(fields["opts"])} if fields else {}


def waiting(redis: redis_py.Redis, prefix: str) -> list[str]:
    """The ids that wait, next to run first."""
    ids: list[str] = redis.lrange(f"{prefix}:q:wait", 0, -1)  # type: ignore[assignment]
    return ids[::-1]


# --- what each option does to what is stored ------------------------------------------------------------------------

NOTHING = {"attempts": 0}
EFFECTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, str], str]] = [
    ({}, NOTHING, {"delay": "0", "priority": "0"}, "waiting"),
    ({"delay": 5000}, {"delay": 5000}, {"delay": "5000"}, "delayed"),
    ({"delay": timedelta(seconds=5)}, {"delay": 5000}, {"delay": "5000"}, "delayed"),
    ({"delay": timedelta(microseconds=1600)}, {"delay": 2}, {"delay": "2"}, "delayed"),
    ({"delay": 1.4}, {"delay": 1}, {"delay": "1"}, "delayed"),
    ({"delay": 0}, {"delay": 0}, {"delay": "0"}, "waiting"),
    ({"run_at": MOMENT + timedelta(minutes=1)}, {"delay": 60_000}, {"delay": "60000"}, "delayed"),
    (
        {"run_at": (MOMENT + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=-9)))},
        {"delay": 60_000},
        {"delay": "60000"},
        "delayed",
    ),
    ({"run_at": BORN + 250}, {"delay": 250}, {"delay": "250"}, "delayed"),
    ({"run_at": MOMENT - timedelta(days=1)}, {"delay": 0}, {"delay": "0"}, "waiting"),
    ({"priority": 3}, {"priority": 3}, {"priority": "3", "delay": "0"}, "prioritized"),
    ({"priority": 2_097_151}, {"priority": 2_097_151}, {"priority": "2097151"}, "prioritized"),
    ({"priority": 0}, {"priority": 0}, {"priority": "0"}, "waiting"),
    ({"priority": 3, "delay": 5}, {"priority": 3, "delay": 5}, {"priority": "3", "delay": "5"}, "delayed"),
    ({"lifo": True}, {"lifo": True}, {}, "waiting"),
    ({"lifo": False}, {"lifo": False}, {}, "waiting"),
    ({"attempts": 3}, {"attempts": 3}, {}, "waiting"),
    ({"backoff": 1000}, {"backoff": {"type": "fixed", "delay": 1000}}, {}, "waiting"),
    ({"backoff": 0}, {"backoff": {"type": "fixed", "delay": 0}}, {}, "waiting"),
    ({"backoff": timedelta(seconds=2)}, {"backoff": {"type": "fixed", "delay": 2000}}, {}, "waiting"),
    ({"backoff": Backoff.fixed(9, jitter=1)}, {"backoff": {"type": "fixed", "delay": 9, "jitter": 1}}, {}, "waiting"),
    ({"backoff": Backoff.exponential(10)}, {"backoff": {"type": "exponential", "delay": 10}}, {}, "waiting"),
    ({"backoff": Backoff.custom("mine")}, {"backoff": {"type": "mine"}}, {}, "waiting"),
    ({"backoff": Backoff.custom("mine", 7)}, {"backoff": {"type": "mine", "delay": 7}}, {}, "waiting"),
    (
        {"backoff": {"type": "exponential", "delay": timedelta(seconds=1), "jitter": 1}},
        {"backoff": {"type": "exponential", "delay": 1000, "jitter": 1}},
        {},
        "waiting",
    ),
    ({"remove_on_complete": True}, {"removeOnComplete": True}, {}, "waiting"),
    ({"remove_on_complete": False}, {"removeOnComplete": False}, {}, "waiting"),
    ({"remove_on_complete": 0}, {"removeOnComplete": 0}, {}, "waiting"),
    ({"remove_on_fail": 1000}, {"removeOnFail": 1000}, {}, "waiting"),
    (
        {"remove_on_complete": {"age": 60, "count": 5, "limit": 2}, "remove_on_fail": {"age": 3600}},
        {"removeOnComplete": {"age": 60, "count": 5, "limit": 2}, "removeOnFail": {"age": 3600}},
        {},
        "waiting",
    ),
    ({"keep_logs": 7}, {"kl": 7}, {}, "waiting"),
    ({"size_limit": 1000}, {"sizeLimit": 1000}, {}, "waiting"),
    ({"stack_trace_limit": 0}, {"stackTraceLimit": 0}, {}, "waiting"),
    ({"fail_parent_on_failure": True}, {"fpof": True}, {}, "waiting"),
    (
        {"continue_parent_on_failure": True, "fail_parent_on_failure": False},
        {"cpof": True, "fpof": False},
        {},
        "waiting",
    ),
    ({"ignore_dependency_on_failure": True}, {"idof": True}, {}, "waiting"),
    ({"remove_dependency_on_failure": False}, {"rdof": False}, {}, "waiting"),
    ({"telemetry": {"metadata": "00-ab", "omit_context": True}}, {"tm": "00-ab", "omc": True}, {}, "waiting"),
    ({"telemetry": {"omit_context": False}}, {"omc": False}, {}, "waiting"),
    ({"telemetry": {}}, {}, {}, "waiting"),
    ({"delay": None, "job_id": None, "backoff": None, "remove_on_fail": None}, {}, {"delay": "0"}, "waiting"),
]


@pytest.mark.parametrize(("options", "opts", "fields", "state"), EFFECTS, ids=lambda value: str(value)[:50])
async def test_an_option_is_stored_as_every_other_client_stores_it(
    queue: Any,
    redis: redis_py.Redis,
    prefix: str,
    options: dict[str, Any],
    opts: dict[str, Any],
    fields: dict[str, str],
    state: str,
) -> None:
    job = await done(queue.add("n", {"a": 1}, timestamp=BORN, **options))
    (bulk,) = await done(queue.add_bulk([("n", {"a": 1}, {"timestamp": BORN, **options})]))
    for added in (job, bulk):
        assert stored(redis, prefix, added.id) == {
            "name": "n", "data": '{"a":1}', "opts": NOTHING | {"timestamp": BORN} | opts, "timestamp": str(BORN),
            "delay": "0", "priority": "0", **fields,
        }  # fmt: skip
        assert await done(queue.get_job_state(added.id)) == state
        assert added.opts == NOTHING | {"timestamp": BORN} | opts


async def test_timestamp_is_a_moment_or_now(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    given = await done(queue.add("n", timestamp=MOMENT))
    assert stored(redis, prefix, given.id)["timestamp"] == str(BORN)
    seconds, micros = redis.time()
    now = await done(queue.add("n"))
    later, later_micros = redis.time()
    fields = stored(redis, prefix, now.id)
    assert seconds * 1000 + micros // 1000 <= int(fields["timestamp"]) <= later * 1000 + later_micros // 1000
    assert fields["opts"] == NOTHING
    assert now.timestamp == int(fields["timestamp"])


async def test_a_delayed_job_is_due_at_its_timestamp_and_delay(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    job = await done(queue.add("n", timestamp=BORN, delay=5000))
    assert redis.zscore(f"{prefix}:q:delayed", job.id) == (BORN + 5000) * 4096


async def test_lifo_and_priority_decide_who_is_next(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    first, second = [(await done(queue.add("n"))).id for _ in range(2)]
    jumper = (await done(queue.add("n", lifo=True))).id
    assert waiting(redis, prefix) == [jumper, first, second]
    low, high, also_high = [(await done(queue.add("n", priority=priority))).id for priority in (9, 2, 2)]
    assert redis.zrange(f"{prefix}:q:prioritized", 0, -1) == [high, also_high, low]


async def test_the_job_given_back_is_the_job_that_is_stored(queue: Any) -> None:
    job = await done(queue.add("welcome \u00e9", {"to": ["\u00fc", None, 1.5]}, priority=2, delay=10, timestamp=BORN))
    read = await done(queue.get_job(job.id))
    assert read is not None
    for name in ("id", "name", "data", "opts", "timestamp", "delay", "priority", "queue_name", "progress"):
        assert getattr(job, name) == getattr(read, name), name
    assert (job.name, job.delay, job.priority, job.timestamp) == ("welcome \u00e9", 10, 2, BORN)


async def test_no_data_is_an_empty_object_and_none_is_null(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    for data, text in (((), "{}"), ((None,), "null"), ((0,), "0"), (("",), '""'), (([],), "[]")):
        job = await done(queue.add("n", *data))
        assert stored(redis, prefix, job.id)["data"] == text
        assert (await done(queue.get_job(job.id))).data == json.loads(text)


async def test_a_limit_of_size_is_one_of_bytes_and_includes_its_bound(queue: Any) -> None:
    await done(queue.add("n", "\u00e9", size_limit=4))
    with pytest.raises(ConfigurationError, match="data: 4 bytes of JSON, but size_limit is 3"):
        await done(queue.add("n", "\u00e9", size_limit=3))
    assert (await done(queue.get_job_counts("waiting"))) == {"waiting": 1}


async def test_max_len_events_is_stored_only_when_it_is_given(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    meta = f"{prefix}:q:meta"
    for given, expected in ((None, "10000"), (50, "50"), (None, "50")):
        queue = face.Queue("q", connection=redisbox.url, prefix=prefix, max_len_events=given)
        await done(queue.add("n"))
        assert redis.hget(meta, "opts.maxLenEvents") == expected
    assert redis.hget(meta, "version") == f"toromq:{toromq.__version__}"


async def test_a_queue_that_skips_the_settings_writes_neither_version_nor_length(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    place = {"connection": redisbox.url, "prefix": prefix, "skip_metas_update": True}
    queue = face.Queue("q", max_len_events=50, **place)
    await done(queue.add("n"))
    # Scripts write the usual length down where there is none.
    assert redis.hgetall(f"{prefix}:q:meta") == {"opts.maxLenEvents": "10000"}


# --- default options ------------------------------------------------------------------------------------------------


async def test_a_jobs_own_options_win_over_those_of_the_queue(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    defaults = {"attempts": 3, "backoff": 100, "remove_on_complete": {"age": 60, "count": 9}, "priority": 4}
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix, default_job_options=defaults)
    common = {"attempts": 3, "backoff": {"type": "fixed", "delay": 100}, "priority": 4}
    for own, expected in (
        ({}, common | {"removeOnComplete": {"age": 60, "count": 9}}),
        (
            {"attempts": 1, "remove_on_complete": {"count": 1}},
            common | {"attempts": 1, "removeOnComplete": {"count": 1}},
        ),
        ({"priority": 0, "remove_on_complete": False}, common | {"priority": 0, "removeOnComplete": False}),
        ({"attempts": None, "backoff": None, "priority": None, "remove_on_complete": None}, NOTHING),
    ):
        job = await done(queue.add("n", {}, **own))
        (bulk,) = await done(queue.add_bulk([("n", {}, own)]))
        assert stored(redis, prefix, job.id)["opts"] == expected
        assert stored(redis, prefix, bulk.id)["opts"] == expected
    assert queue.default_job_options == defaults


async def test_a_jobs_own_moment_wins_over_the_delay_of_the_queue(face: Any, redisbox: RedisBox, prefix: str) -> None:
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix, default_job_options={"delay": 5})
    job = await done(queue.add("n", timestamp=BORN, run_at=MOMENT + timedelta(seconds=1)))
    assert job.delay == 1000


# --- own ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job_id", ["order-7", "05", "5a", "5.0", "1e3", " ", "a:b:c", "\u00e9\U0001f600", "waiting", "Meta", "x" * 1000]
)
async def test_an_own_id_is_the_id(queue: Any, redis: redis_py.Redis, prefix: str, job_id: str) -> None:
    job = await done(queue.add("n", {"a": 1}, job_id=job_id))
    assert job.id == job_id
    assert stored(redis, prefix, job_id)["opts"] == {"attempts": 0, "jobId": job_id}
    assert waiting(redis, prefix) == [job_id]


async def test_an_empty_id_is_none(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    job = await done(queue.add("n", job_id=""))
    assert job.id.isdecimal()
    assert stored(redis, prefix, job.id)["opts"] == NOTHING


async def test_a_repeated_id_gives_the_same_job_and_stores_nothing_twice(
    queue: Any, redis: redis_py.Redis, prefix: str
) -> None:
    first = await done(queue.add("n", {"a": 1}, job_id="order-7", timestamp=BORN))
    before = stored(redis, prefix, "order-7")
    second = await done(queue.add("other", {"a": 2}, job_id="order-7", delay=5))
    bulk = await done(queue.add_bulk([("n", 3, {"job_id": "order-7"}), ("n", 4), ("n", 5, {"job_id": "order-7"})]))
    assert first.id == second.id == bulk[0].id == bulk[2].id == "order-7"
    assert stored(redis, prefix, "order-7") == before
    assert waiting(redis, prefix) == ["order-7", bulk[1].id]
    assert redis.exists(f"{prefix}:q:delayed") == 0
    events = [entry for entry in keyspace(redis, prefix)[f"{prefix}:q:events"].value if entry["event"] == "duplicated"]
    assert events == [{"event": "duplicated", "jobId": "order-7"}] * 3


async def test_an_id_given_twice_in_one_bulk_is_one_job(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    jobs = await done(queue.add_bulk([("n", 1, {"job_id": "a"}), ("n", 2, {"job_id": "a"})]))
    assert [job.id for job in jobs] == ["a", "a"]
    assert waiting(redis, prefix) == ["a"]
    assert stored(redis, prefix, "a")["data"] == "1"


# --- bulks ----------------------------------------------------------------------------------------------------------


async def test_a_bulk_of_many_batches_keeps_its_order_and_its_ids(
    queue: Any, redis: redis_py.Redis, prefix: str
) -> None:
    jobs = await done(queue.add_bulk((f"n{n}", n) for n in range(2000)))
    ids = [job.id for job in jobs]
    assert len(set(ids)) == 2000
    assert [(job.name, job.data) for job in jobs] == [(f"n{n}", n) for n in range(2000)]
    assert waiting(redis, prefix) == ids
    numbers = [int(job_id) for job_id in ids]
    assert numbers == sorted(numbers)
    keys = keyspace(redis, prefix)
    assert [keys[f"{prefix}:q:{job_id}"].value["data"] for job_id in ids] == [str(n) for n in range(2000)]


async def test_a_bulk_may_mix_options(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    jobs = await done(
        queue.add_bulk(
            [
                ("plain", 0),
                ("later", 1, {"delay": 60_000}),
                ("first", 2, {"priority": 1}),
                ("own", 3, {"job_id": "own"}),
                ("next", 4, {"lifo": True}),
            ]
        )
    )
    ids = {job.name: job.id for job in jobs}
    assert [job.data for job in jobs] == [0, 1, 2, 3, 4]
    assert ids["own"] == "own"
    assert waiting(redis, prefix) == [ids["next"], ids["plain"], "own"]
    assert redis.zrange(f"{prefix}:q:delayed", 0, -1) == [ids["later"]]
    assert redis.zrange(f"{prefix}:q:prioritized", 0, -1) == [ids["first"]]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (("n", {"a": math.nan}), SerializationError),
        (("n", 0, {"delay": -1}), ConfigurationError),
        (("n", 0, {"job_id": "meta"}), ConfigurationError),
        (("n", 0, {"dely": 1}), TypeError),
        ((5, 0), ConfigurationError),
    ],
)
async def test_one_bad_entry_leaves_the_whole_bulk_unsent(
    queue: Any, redis: redis_py.Redis, prefix: str, entry: tuple[Any, ...], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await done(queue.add_bulk([("n", n) for n in range(600)] + [entry]))
    assert keyspace(redis, prefix) == {}


async def test_what_is_refused_leaves_a_queue_as_it_was(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    job = await done(queue.add("n", {"a": 1}, keep_logs=3))
    await done(job.update_progress(10))
    await done(job.log("line"))
    before = keyspace(redis, prefix)
    for kind, message, action in (
        (SerializationError, "data.a: ", lambda: queue.add("n", {"a": math.nan})),
        (ConfigurationError, "priority: ", lambda: queue.add("n", {}, priority=-1)),
        (TypeError, "did you mean 'delay'", lambda: queue.add("n", {}, dely=1)),
        (SerializationError, "data.b[0]: ", lambda: job.update_data({"b": [b"x"]})),
        (SerializationError, "progress.done: ", lambda: job.update_progress({"done": math.inf})),
        (SerializationError, "progress: ", lambda: queue.update_job_progress(job.id, {1, 2})),
        (ConfigurationError, "keep_logs: ", lambda: queue.add_job_log(job.id, "line", -1)),
        (ConfigurationError, "types: ", lambda: queue.get_jobs("wating")),
    ):
        with pytest.raises(kind) as caught:
            await done(action())
        assert message in str(caught.value)
    assert keyspace(redis, prefix) == before
    assert job.data == {"a": 1}
    assert job.progress == 10


async def test_what_needs_a_job_says_which_one_is_missing(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    assert await done(queue.get_job("77")) is None
    assert await done(queue.get_job_state("77")) == "unknown"
    assert await done(queue.get_job_logs("77")) == ([], 0)
    for action in (lambda: queue.update_job_progress("77", 1), lambda: queue.add_job_log("77", "line")):
        with pytest.raises(JobNotFoundError, match="job 77") as caught:
            await done(action())
        assert (caught.value.code, caught.value.job_id) == (-1, "77")
    assert keyspace(redis, prefix) == {}


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_adds_of_many_coroutines_are_all_stored_once(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=redisbox.url, prefix=prefix)
    jobs = await asyncio.gather(*(queue.add("n", n) for n in range(200)))
    bulks = await asyncio.gather(*(queue.add_bulk([("n", n), ("n", n)]) for n in range(200, 300)))
    everything = [*jobs, *(job for bulk in bulks for job in bulk)]
    assert len({job.id for job in everything}) == 400
    assert sorted(waiting(redis, prefix)) == sorted(job.id for job in everything)
    for job in everything:
        assert stored(redis, prefix, job.id)["data"] == str(job.data)


def test_adds_of_many_threads_are_all_stored_once(redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    queue: sync.Queue[Any, Any] = sync.Queue("q", connection=redisbox.url, prefix=prefix)
    together = threading.Barrier(50)

    def add(thread: int) -> list[sync.Job[Any, Any]]:
        together.wait(30)
        return [queue.add("n", [thread, n]) for n in range(4)]

    with ThreadPoolExecutor(50) as threads:
        added = [job for jobs in threads.map(add, range(50)) for job in jobs]
    assert len({job.id for job in added}) == 200
    assert sorted(waiting(redis, prefix)) == sorted(job.id for job in added)
    for job in added:
        assert json.loads(stored(redis, prefix, job.id)["data"]) == job.data
    # A thread's own adds come one after the other.
    places = {job_id: place for place, job_id in enumerate(waiting(redis, prefix))}
    for thread in range(50):
        own = [places[job.id] for job in added if job.data[0] == thread]
        assert own == sorted(own)


async def test_two_queues_of_one_name_never_give_the_same_id(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    queues: list[toromq.Queue[Any, Any]] = [toromq.Queue("q", connection=redisbox.url, prefix=prefix) for _ in range(5)]
    jobs = await asyncio.gather(*(queue.add("n", n) for n in range(40) for queue in queues))
    assert len({job.id for job in jobs}) == 200
    assert sorted(waiting(redis, prefix)) == sorted(job.id for job in jobs)


async def test_a_cancelled_add_is_stored_or_not_and_leaves_the_queue_usable(redisbox: RedisBox, prefix: str) -> None:
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=redisbox.url, prefix=prefix)
    tasks = [asyncio.create_task(queue.add("n", n)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [job for job in results if isinstance(job, toromq.Job)]
    assert len(kept) >= 10
    last = await queue.add("n", "last")
    ids = {job.id for job in await queue.get_jobs("waiting")}
    assert {job.id for job in [*kept, last]} <= ids


# --- when the server forgets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "2", None])
async def test_a_counter_that_was_set_back_costs_no_job(
    queue: Any, redis: redis_py.Redis, prefix: str, value: str | None
) -> None:
    before = [await done(queue.add("n", n)) for n in range(5)]
    if value is None:
        redis.delete(f"{prefix}:q:id")
    else:
        redis.set(f"{prefix}:q:id", value)
    after = [await done(queue.add("n", n)) for n in range(5, 10)]
    after += await done(queue.add_bulk([("n", n) for n in range(10, 300)]))
    jobs = before + after
    assert len({job.id for job in jobs}) == 300
    assert waiting(redis, prefix) == [job.id for job in jobs]
    for job in jobs:
        assert stored(redis, prefix, job.id)["data"] == str(job.data)


async def test_a_counter_set_back_by_somebody_who_adds_costs_no_job(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    ours, theirs = (face.Queue("q", connection=redisbox.url, prefix=prefix) for _ in range(2))
    jobs = await done(ours.add_bulk([("ours", n) for n in range(20)]))
    redis.set(f"{prefix}:q:id", 0)
    jobs += await done(theirs.add_bulk([("theirs", n) for n in range(60)]))
    for n in range(60):
        jobs.append(await done(ours.add("ours again", n)))
        jobs.append(await done(theirs.add("theirs again", n)))
    assert len({job.id for job in jobs}) == 200
    for job in jobs:
        fields = stored(redis, prefix, job.id)
        assert (fields["name"], fields["data"]) == (job.name, str(job.data))


@pytest.fixture
def own_box() -> Iterator[RedisBox]:
    with RedisBox() as box:
        yield box


async def test_a_server_that_lost_its_data_and_its_scripts_takes_new_jobs(face: Any, own_box: RedisBox) -> None:
    client = own_box.client()
    queue = face.Queue("q", connection=Connection(own_box.url), prefix="p")
    for turn in range(3):
        jobs = [await done(queue.add("n", n)) for n in range(3)]
        jobs += await done(queue.add_bulk([("n", n) for n in range(3, 300)]))
        ids = [job.id for job in jobs]
        assert len(set(ids)) == 300, turn
        assert waiting(client, "p") == ids
        assert client.hget("p:q:meta", "version") == f"toromq:{toromq.__version__}"
        client.flushall()
        client.script_flush()
    assert await done(queue.get_jobs()) == []
    await done(queue.close())


async def test_a_server_that_is_out_of_memory_refuses_with_its_own_words(face: Any, own_box: RedisBox) -> None:
    client = own_box.client()
    queue = face.Queue("q", connection=Connection(own_box.url, command_timeout=200), prefix="p")
    await done(queue.add("n", 1))
    before = keyspace(client, "p")
    client.config_set("maxmemory", 1)
    with pytest.raises(toromq.ToroError, match="OOM"):
        await done(queue.add("n", 2))
    client.config_set("maxmemory", 0)
    assert keyspace(client, "p") == before
    assert (await done(queue.add("n", 3))).data == 3
