"""Events of a program's own, in both faces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.support.following import NAME, Stand
from tests.support.lossy import LossyProxy
from toromq import ConfigurationError, QueueEventsProducer, RedisConnectionError
from toromq.events import EVENT_NAMES, CustomEvent

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox


@pytest_asyncio.fixture(params=[toromq, toromq.sync], ids=["toromq", "sync"])
async def stand(
    request: pytest.FixtureRequest, redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> AsyncIterator[Stand]:
    """The events of a queue, in each face."""
    made = Stand(request.param, redisbox.url, prefix, redis)
    yield made
    await made.close()


def _entries(stand: Stand) -> list[dict[str, str]]:
    return [fields for _, fields in stand.redis.xrange(stand.key)]


async def test_an_event_arrives_as_text(stand: Stand) -> None:
    producer = stand.face.QueueEventsProducer(NAME, **stand.options)
    events = await stand.started()
    of_job: list[Any] = []
    events.on("packed", of_job.append, job_id="7")
    loop = stand.loop(events)
    fields = {"by": "å\n", "empty": "", "boxes": 2, "weight": 1.5, "whole": 3.0, "fragile": True}
    first = await stand.call(producer.publish_event, "packed", fields, job_id="7")
    await stand.call(producer.wait_until_ready)
    second = await stand.call(producer.publish_event, "packed")
    text = {"by": "å\n", "empty": "", "boxes": "2", "weight": "1.5", "whole": "3.0", "fragile": "true"}
    assert await loop.sees(2) == [
        CustomEvent(first, "packed", {"jobId": "7", **text}), CustomEvent(second, "packed", {}),
    ]  # fmt: skip
    assert [event.job_id for event in loop.seen] == ["7", None]
    assert of_job == loop.seen[:1]
    await stand.call(producer.close)
    await stand.call(producer.disconnect)


async def test_as_many_are_kept_as_the_queue_wants(stand: Stand) -> None:
    producer = stand.face.QueueEventsProducer(NAME, **stand.options)
    async with toromq.Queue(NAME, max_len_events=2000, **stand.options) as queue:
        await queue.add("n", {})
    stand.add_many(1500)
    await stand.call(producer.publish_event, "packed")
    assert stand.redis.xlen(stand.key) == 1503
    await stand.call(producer.publish_event, "packed", max_events=1000)
    assert stand.redis.xlen(stand.key) < 1200
    await stand.call(producer.close)


async def test_it_writes_nothing_else(stand: Stand) -> None:
    async with QueueEventsProducer(NAME, **stand.options) as producer:
        await producer.publish_event("packed")
    keys = sorted(key.rpartition(":")[2] for key in stand.redis.scan_iter(f"{stand.options['prefix']}:*"))
    assert keys == ["events", "meta"]
    assert stand.redis.hgetall(stand.key.replace(":events", ":meta")) == {"opts.maxLenEvents": "10000"}


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("",), {}, "event_name"),
        ((5,), {}, "event_name"),
        (("error",), {}, "choose another"),
        (("error:7",), {}, "choose another"),
        (("completed:7",), {}, "choose another"),
        (("n", {"event": "x"}), {}, "'event'"),
        (("n", {"": "x"}), {}, "fields"),
        (("n", {5: "x"}), {}, "fields"),
        (("n", {"a": None}), {}, "json.dumps"),
        (("n", {"a": {}}), {}, "json.dumps"),
        (("n", {"a": float("nan")}), {}, r"fields\['a'\]"),
        (("n", {"a": "\ud800"}), {}, "surrogates"),
        (("n", [("a", "b")]), {}, "a dict"),
        (("n", {"jobId": "1"}), {"job_id": "2"}, "give it once"),
        (("n",), {"job_id": 5}, "job_id"),
        (("n",), {"max_events": -1}, "max_events"),
        (("n", {str(n): "" for n in range(1001)}), {}, "1000"),
    ],
)
async def test_what_is_refused_is_not_sent(
    stand: Stand, arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    producer = stand.face.QueueEventsProducer(NAME, **stand.options)
    with pytest.raises(ValueError, match=words):
        await stand.call(producer.publish_event, *arguments, **options)
    assert _entries(stand) == []


def test_the_events_of_queues_are_theirs() -> None:
    producer = toromq.sync.QueueEventsProducer(NAME)
    for name in EVENT_NAMES:
        with pytest.raises(ConfigurationError, match="choose another"):
            producer.publish_event(name)


async def test_an_event_is_published_once_whatever_is_lost(
    redisbox: RedisBox, redis: redispy.Redis, prefix: str
) -> None:
    stand = Stand(toromq, redisbox.url, prefix, redis)
    async with (
        LossyProxy(redisbox.url) as proxy,
        QueueEventsProducer(NAME, connection=proxy.url, prefix=prefix) as producer,
    ):
        await producer.publish_event("first")
        for what, stands in (("reply", 1), ("request", 0)):
            before = len(_entries(stand))
            with proxy.losing(what), pytest.raises(RedisConnectionError, match="not known"):  # type: ignore[arg-type]
                await producer.publish_event("second")
            assert len(_entries(stand)) == before + stands
        await producer.publish_event("third")
    assert [entry["event"] for entry in _entries(stand)] == ["first", "second", "third"]


async def test_it_says_where_redis_is_not(prefix: str) -> None:
    connection = toromq.Connection("redis://127.0.0.1:1", command_timeout=50)
    async with QueueEventsProducer(NAME, connection=connection, prefix=prefix) as producer:
        with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1"):
            await producer.publish_event("n")
        with pytest.raises(RedisConnectionError):
            await producer.wait_until_ready()


async def test_many_publish_at_once(stand: Stand) -> None:
    producer = stand.face.QueueEventsProducer(NAME, **stand.options)
    ids = await asyncio.gather(*(stand.call(producer.publish_event, "n", {"number": n}) for n in range(200)))
    assert len(set(ids)) == 200
    assert sorted(int(entry["number"]) for entry in _entries(stand)) == list(range(200))
    await stand.call(producer.close)
    with pytest.raises(ConfigurationError):
        stand.face.QueueEventsProducer("a:b")
    assert NAME in repr(producer)
