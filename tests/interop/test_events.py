"""Conformance items 19 and 49: what one side does is the same event for the readers of both; replay; custom events."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.support.eventually import aeventually
from tests.support.following import Stand
from toromq import events
from toromq.events import EVENT_NAMES, CompletedEvent, CustomEvent, ProgressEvent

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

_FIELDS: dict[type[Any], dict[str, str]] = {
    events.AddedEvent: {"job_id": "jobId", "name": "name"},
    events.DelayedEvent: {"job_id": "jobId", "delay": "delay"},
    events.ProgressEvent: {"job_id": "jobId", "data": "data"},
    events.CompletedEvent: {"job_id": "jobId", "returnvalue": "returnvalue", "prev": "prev"},
    events.FailedEvent: {"job_id": "jobId", "failed_reason": "failedReason", "prev": "prev"},
    events.RetriesExhaustedEvent: {"job_id": "jobId", "attempts_made": "attemptsMade"},
    events.DeduplicatedEvent: {
        "job_id": "jobId", "deduplication_id": "deduplicationId", "deduplicated_job_id": "deduplicatedJobId",
    },
    events.CleanedEvent: {"count": "count"},
}  # fmt: skip
_OTHERS = {"job_id": "jobId", "prev": "prev"}


@pytest_asyncio.fixture
async def stand(
    request: pytest.FixtureRequest, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> AsyncIterator[Stand]:
    """Our readers of the queue under test; of the async face, where a test asks for none."""
    face = importlib.import_module(getattr(request, "param", "toromq"))
    made = Stand(face, redisbox.unix_url, prefix, redis)
    yield made
    await made.close()


_BOTH = pytest.mark.parametrize("stand", ["toromq", "toromq.sync"], indirect=True)


def as_node_says(event: Any) -> dict[str, Any]:
    """What a listener of Node gets for an event of ours."""
    if isinstance(event, CustomEvent):
        return dict(event.fields)
    members = _FIELDS.get(type(event), _OTHERS)
    said = {theirs: getattr(event, ours) for ours, theirs in members.items() if getattr(event, ours, None) is not None}
    if isinstance(event, CompletedEvent):
        said["returnvalue"] = event.returnvalue
    # Node leaves them as text.
    return {name: str(value) if name in ("attemptsMade", "count") else value for name, value in said.items()}


async def _live(pair: Pair, node: NodeSide) -> None:
    """Does all that makes events."""
    a, b, keys = pair.a, pair.b, pair.keys
    await a.call("pause")
    await b.call("resume")
    # Children of a flow.
    flow = await node.peer.flow_producer()
    child = {"name": "child", "queueName": "mail", "data": {"å": None}}
    await node.peer.call(flow, "add", {"name": "parent", "queueName": "mail", "children": [child]})
    await a.add("own", {"progress": [5, {"x": None}, "å"]}, job_id="own-1")
    await b.add("own", {}, job_id="own-1")
    await a.add("deduplicated", {}, deduplication={"id": "d"})
    await b.add("deduplicated", {}, deduplication={"id": "d"})
    later = await a.add("later", {}, delay=3_600_000)
    await b.on_job(later, "change_delay", 7_200_000)
    await a.on_job(later, "promote")
    await b.call("remove", await a.add("unwanted", {}, priority=3))
    worker = await b.worker("progress")
    await worker.said("completed", count=5)
    await worker.close()
    failing = await a.add("failing", {}, attempts=2)
    worker = await b.worker("fail")
    await worker.said("failed", job_id=failing, count=2)
    await worker.close()
    # A job that lost its worker.
    stalling = await a.add("stalling", {"value": [None]})
    await a.fetch_by_hand("t")
    keys.redis.delete(keys(f"{stalling}:lock"), keys("stalled-check"))
    worker = await b.worker("value", stalled_interval=100)
    await worker.said("completed", job_id=stalling)
    await worker.close()
    await a.on_job(failing, "retry")
    await a.call("clean", 0, 100, "completed")


async def test_every_event_is_the_same_for_the_readers_of_both(pair: Pair, node: NodeSide, stand: Stand) -> None:
    reader = await node.peer.queue_events("mail")
    loop = stand.loop(stand.make(last_event_id="0"))
    await _live(pair, node)
    stored = pair.keys.events()
    assert {name for name, _ in stored} == EVENT_NAMES
    ours = await loop.sees(len(stored))
    theirs = await node.peer.wait_events("stream", len(stored), handle=reader)
    assert [(event.event, event.id, as_node_says(event)) for event in ours] == [
        (item["name"], item["entryId"], item["fields"]) for item in theirs
    ]


@_BOTH
async def test_progress_and_results_of_node_arrive_as_they_are(stand: Stand, node: NodeSide) -> None:
    values: list[Any] = [0, 99.5, "", "å", {"a": [None, True]}, [], False]
    loop = stand.loop(await stand.started())
    worker = await node.worker("progress")
    job_id = await node.add("n", {"progress": values})
    await worker.said("completed", job_id=job_id)
    await loop.sees(len(values) + 4)
    said = [event for event in loop.seen if isinstance(event, ProgressEvent)]
    assert [(event.job_id, event.data) for event in said] == [(job_id, value) for value in values]
    assert [type(event.data) for event in said] == [type(value) for value in values]


@pytest.mark.parametrize("value", [0, "", False, None, [], {"å": [1.5]}, "text"])
async def test_results_of_node_arrive_as_they_are(stand: Stand, node: NodeSide, value: Any) -> None:
    events = await stand.started()
    heard: list[Any] = []
    events.on("completed", heard.append)
    worker = await node.worker({"name": "value", "value": value})
    job_id = await node.add("n", {})
    await worker.said("completed", job_id=job_id)
    await aeventually(lambda: heard)
    assert [(event.job_id, event.returnvalue, event.prev) for event in heard] == [(job_id, value, "active")]


# ==================================================================================================
# EVENTS OF ONE'S OWN
# ==================================================================================================


@_BOTH
async def test_an_event_of_our_own_reaches_node(stand: Stand, node: NodeSide) -> None:
    reader = await node.peer.queue_events("mail")
    producer = stand.face.QueueEventsProducer("mail", **stand.options)
    entry = await stand.call(producer.publish_event, "packed", {"boxes": 2, "by": "å", "ok": True}, job_id="7")
    said = await node.peer.wait_event("stream", handle=reader, name="packed")
    assert said["entryId"] == entry
    assert said["fields"] == {"jobId": "7", "boxes": "2", "by": "å", "ok": "true"}
    await stand.call(producer.close)


@_BOTH
async def test_an_event_of_node_reaches_us(stand: Stand, node: NodeSide) -> None:
    events = await stand.started()
    heard: list[Any] = []
    events.on("packed", heard.append, job_id="7")
    loop = stand.loop(events)
    producer = await node.peer._create("QueueEventsProducer", "mail", {})
    fields = {"jobId": "7", "boxes": 2, "by": "å", "ok": True}
    await node.peer.call(producer, "publishEvent", {"eventName": "packed", **fields})
    (event,) = await loop.sees(1)
    assert event == CustomEvent(event.id, "packed", {"jobId": "7", "boxes": "2", "by": "å", "ok": "true"})
    await aeventually(lambda: heard == [event])


async def test_what_is_published_by_us_leaves_the_events_of_the_queue(stand: Stand, node: NodeSide) -> None:
    await node.add("n", {})
    stand.add_many(3000)
    async with stand.face.QueueEventsProducer("mail", **stand.options) as producer:
        await producer.publish_event("packed")
    assert stand.redis.xlen(stand.key) == 3003
    theirs = await node.peer._create("QueueEventsProducer", "mail", {})
    await node.peer.call(theirs, "publishEvent", {"eventName": "packed"})
    # Its own default, whatever the queue says.
    assert stand.redis.xlen(stand.key) < 1200


# ==================================================================================================
# READERS
# ==================================================================================================


@_BOTH
async def test_both_go_on_after_an_entry_of_the_other(stand: Stand, node: NodeSide, keys: QueueKeys) -> None:
    for _ in range(2):
        await node.add("n", {})
    entries = [entry for entry, _ in stand.redis.xrange(stand.key)]
    reader = await node.peer.queue_events("mail", lastEventId=entries[1])
    loop = stand.loop(stand.make(last_event_id=entries[1]))
    ours = await loop.sees(2)
    theirs = await node.peer.wait_events("stream", 2, handle=reader)
    assert [event.id for event in ours] == [item["entryId"] for item in theirs] == entries[2:]
    # Also one that begins with what happens next.
    events = await stand.started()
    assert await stand.loop(events.after(entries[1])).sees(2) == ours
    assert len(keys.names()) == 4


@_BOTH
async def test_our_reader_is_called_as_nodes(stand: Stand, node: NodeSide) -> None:
    await node.peer.queue_events("mail")
    (before,) = stand.readers()
    await stand.started()
    await aeventually(lambda: len(stand.readers()) == 2)
    assert {client["name"] for client in stand.readers()} == {before["name"]}


@_BOTH
@pytest.mark.leaves_keys_broken("an entry is bad on purpose")
@pytest.mark.parametrize(
    "bad",
    [("completed", "returnvalue", "{"), ("progress", "data", "")],
    ids=["completed", "progress"],
)
async def test_an_entry_that_ends_nodes_reader_does_not_end_ours(
    stand: Stand, node: NodeSide, bad: tuple[str, str, str]
) -> None:
    reader = await node.peer.queue_events("mail")
    events = await stand.started()
    errors = stand.errors(events)
    loop = stand.loop(events)
    stand.add("n", number=0)
    await node.peer.wait_event("stream", handle=reader, name="n")
    name, field, value = bad
    entry = stand.add(name, jobId="1", **{field: value})
    stand.add("n", number=1)
    assert [event.fields["number"] for event in await loop.sees(2)] == ["0", "1"]
    await aeventually(lambda: errors)
    assert [error.event_id for error in errors] == [entry]
    # What Node does is only the reason for this test: it stops there.
    await node.peer.wait_event("stream", handle=reader, name="error")
    await asyncio.sleep(0.2)
    assert len(node.peer.events("stream", handle=reader, name="n")) == 1
