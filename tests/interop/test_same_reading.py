"""What each reader of a queue and of a job says: Node, and both of our faces, of the same keys."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.zoo import IDS, SETTINGS, SLOT, Zoo
from toromq import PRIORITY_LIMIT, MetricsTime

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.support.node_peer import NodePeer

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.leaves_keys_broken("a zoo has jobs of all kinds, broken ones as well"),
]

@pytest.fixture
def zoo(redis: redis_py.Redis, prefix: str, node: NodeSide) -> Zoo:
    """Every kind of job, in the queue that the sides look at, without what an old client put aside."""
    filled = Zoo(redis, prefix)
    filled.fill(SETTINGS["running"], time.time_ns() // 1_000_000)
    redis.delete(filled.key("paused"))
    return filled


def _ids(jobs: Any) -> list[str]:
    return [job["id"] if isinstance(job, dict) else job.id for job in jobs]


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("bounds", [(), (0, 1), (1, 2), (2, -1), (-2, -1)], ids=str)
@pytest.mark.parametrize(
    "getter",
    [
        "get_waiting",
        "get_active",
        "get_delayed",
        "get_prioritized",
        "get_waiting_children",
        "get_completed",
        "get_failed",
    ],
)
async def test_a_page_of_a_state_has_the_same_jobs_in_the_same_order(
    getter: str, bounds: tuple[int, ...], ours: OurSide, node: NodeSide
) -> None:
    assert _ids(await ours.call(getter, *bounds)) == _ids(await node.call(getter, *bounds))


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    "counter",
    [
        "count",
        "get_waiting_count",
        "get_active_count",
        "get_delayed_count",
        "get_prioritized_count",
        "get_waiting_children_count",
        "get_completed_count",
        "get_failed_count",
        "get_job_counts",
        "get_job_count_by_types",
    ],
)
async def test_a_count_is_the_same(counter: str, ours: OurSide, node: NodeSide) -> None:
    assert await ours.call(counter) == await node.call(counter)


async def test_delayed_jobs_that_are_due_before_a_moment_are_the_same(
    zoo: Zoo, redis: redis_py.Redis, ours: OurSide, node: NodeSide
) -> None:
    due = [int(score) // SLOT for _, score in redis.zrange(zoo.key("delayed"), 0, -1, withscores=True)]
    for moment in sorted({at + by for at in due for by in (-1, 0, 1)}):
        assert await ours.call("get_delayed_count", moment) == await node.call("get_delayed_count", moment), moment


@pytest.mark.usefixtures("zoo")
async def test_the_settings_are_the_same(ours: OurSide, node: NodeSide) -> None:
    await node.call("set_global_concurrency", 7)
    await node.call("set_global_rate_limit", 5, 1000)
    theirs = await node.call("get_meta")
    renamed = {"maxLenEvents": "max_len_events"}
    assert await ours.call("get_meta") == {renamed.get(name, name): value for name, value in theirs.items()}
    assert await ours.call("get_version") == await node.call("get_version")


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("kind", ["processed", "pending"])
async def test_the_children_of_a_job_are_the_same(kind: str, ours: OurSide, node: NodeSide) -> None:
    seen = 0
    for parent in (job_id for job_id in IDS if job_id.startswith("p")):
        theirs = await node.call("get_dependencies", parent, kind, 0, -1)
        children, total = await ours.call("get_dependencies", parent, kind, 0, -1)
        assert total == theirs["total"], parent
        assert dict(children) == {item["id"]: item.get("v") for item in theirs["items"]}, parent
        seen += total
    assert seen > 0


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    "question",
    ["is_waiting", "is_active", "is_delayed", "is_completed", "is_failed", "is_waiting_children", "get_state"],
)
async def test_a_job_answers_the_same_about_its_state(question: str, ours: OurSide, node: NodeSide) -> None:
    answers = set()
    for job_id in ("w1", "a1", "d1", "c1", "f1", "p1", "pr1"):
        answer = await ours.on_job(job_id, question)
        assert answer == await node.on_job(job_id, question), job_id
        answers.add(answer)
    assert len(answers) > 1


async def test_every_field_of_a_job_reads_the_same(
    zoo: Zoo, redis: redis_py.Redis, ours: OurSide, node: NodeSide
) -> None:
    """What Node's job says of itself as JSON, and what ours says, and its fields."""
    whole = {
        "name": "n",
        "data": '{"x": [1, null, "é"]}',
        "opts": '{"attempts":3,"de":{"id":"K"},"parent":{"id":"7","queue":"bull:up"}}',
        "timestamp": 1_700_000_000_000,
        "delay": 5000,
        "priority": 3,
        "progress": '{"done":1}',
        "returnvalue": '{"sent":true}',
        "failedReason": "why",
        "stacktrace": '["one","two"]',
        "ats": 4,
        "atm": 2,
        "stc": 1,
        "processedOn": 1_700_000_000_500,
        "finishedOn": 1_700_000_000_900,
        "pb": "w-1",
        "defa": "child failed",
        "rjk": "daily",
        "deid": "K",
        "parentKey": "bull:up:7",
        "parent": '{"id":"7","queueKey":"bull:up"}',
    }
    redis.hset(zoo.key("all-of-it"), mapping=whole)
    theirs = await node.on_job("all-of-it", "toJSON")
    job = await ours.call("get_job", "all-of-it")
    described = job.to_json()
    renamed = {
        "queueQualifiedName": "queue_qualified_name",
        "attemptsStarted": "attempts_started",
        "attemptsMade": "attempts_made",
        "stalledCounter": "stalled_counter",
        "failedReason": "failed_reason",
        "processedOn": "processed_on",
        "finishedOn": "finished_on",
        "deferredFailure": "deferred_failure",
        "repeatJobKey": "repeat_job_key",
        "parentKey": "parent_key",
        "processedBy": "processed_by",
        "deduplicationId": "deduplication_id",
    }
    # Options keep the names they are stored under here.
    expected = {renamed.get(name, name): value for name, value in theirs.items() if name != "opts"}
    assert {name: described[name] for name in expected if name in described} == {
        name: value for name, value in expected.items() if name in described
    }
    missing = {name: value for name, value in expected.items() if name not in described}
    assert {name: getattr(job, name) for name in missing} == missing
    assert job.opts == json.loads(str(whole["opts"]))
    assert (job.parent, job.parent_key) == ({"id": "7", "queueKey": "bull:up"}, "bull:up:7")
    assert (job.deferred_failure, job.processed_by, job.deduplication_id) == ("child failed", "w-1", "K")
    assert (job.repeat_job_key, job.token, job.queue_name) == ("daily", "", "mail")
    assert job.queue_qualified_name == theirs["queueQualifiedName"]
    # What one writes down of a job as JSON, the other can make one of.
    again = type(job).from_json(job._queue, await node.on_job("all-of-it", "asJSON"))
    assert (again.id, again.data, again.timestamp) == ("all-of-it", {"x": [1, None, "é"]}, 1_700_000_000_000)
    assert json.loads(job.as_json()["data"]) == json.loads((await node.on_job("all-of-it", "asJSON"))["data"])


async def test_jobs_that_are_made_through_the_class_are_read_by_node(ours: OurSide, node: NodeSide) -> None:
    queue = ours._queue
    kind = type(await ours._done(queue.add, "n"))
    one = await ours._done(kind.create, queue, "one", {"a": 1})
    two, three = await ours._done(kind.create_bulk, queue, [("two", 2), ("three", 3)])
    await ours._done(kind.add_job_log, queue, one.id, "a line")
    for made, data in ((one, {"a": 1}), (two, 2), (three, 3)):
        view = await node.view(made.id)
        assert view is not None
        assert (view.name, view.data) == (made.name, data)
        found = await ours._done(kind.from_id, queue, made.id)
        assert found.to_json() == made.to_json()
    assert await node.logs(one.id) == (["a line"], 1)


@pytest.mark.usefixtures("zoo")
async def test_iterating_gives_the_jobs_of_a_state(ours: OurSide, node: NodeSide) -> None:
    for state in ("waiting", "delayed", "completed"):
        theirs = _ids(await node.call("get_jobs", [state], 0, -1))
        jobs = ours._queue.iter_jobs(state)
        found = [job async for job in jobs] if hasattr(jobs, "__aiter__") else await asyncio.to_thread(list, jobs)
        assert sorted(_ids(found)) == sorted(theirs), state


@pytest.mark.usefixtures("zoo")
async def test_a_job_is_prioritized_for_us_where_it_is_for_node(ours: OurSide, node: NodeSide) -> None:
    for state in ("prioritized", "waiting", "delayed"):
        for job_id in _ids(await node.call("get_jobs", [state], 0, -1))[:2]:
            assert await ours.on_job(job_id, "is_prioritized") is (state == "prioritized")


async def test_keys_and_limits_have_the_same_names(ours: OurSide, node: NodeSide, peer: NodePeer) -> None:
    assert ours._queue.to_key("wait") == await node.call("to_key", "wait")
    assert ours._queue.qualified_name == await peer.command("get", handle=node.handle, property="qualifiedName")
    known = await peer.command("constants")
    assert known["PRIORITY_LIMIT"] == PRIORITY_LIMIT
    # Both ways in Node, as enums of TypeScript have it.
    periods = {name: value for name, value in known["MetricsTime"].items() if not name.isdigit()}
    assert periods == {period.name: period.value for period in MetricsTime}
