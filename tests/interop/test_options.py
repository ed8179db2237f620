"""Every option of a job is stored by us as Node stores it: the hash, where the job waits, the events."""

from __future__ import annotations

import inspect
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.sides import Side
    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

BORN = 1_700_000_000_000
OPTIONS: list[dict[str, Any]] = [
    {},
    {"delay": 5000},
    {"delay": 0},
    {"priority": 7},
    {"priority": 0},
    {"priority": 2_097_151, "delay": 5},
    {"lifo": True},
    {"lifo": False},
    {"attempts": 3},
    {"attempts": 0},
    {"backoff": 1000},
    {"backoff": 0},
    {"backoff": {"type": "exponential", "delay": 10, "jitter": 0.5}},
    {"backoff": {"type": "own"}},
    {"job_id": "own"},
    {"remove_on_complete": True, "remove_on_fail": False},
    {"remove_on_complete": 5, "remove_on_fail": 0},
    {"remove_on_complete": {"age": 60, "count": 5, "limit": 2}, "remove_on_fail": {"age": 3600}},
    {"keep_logs": 7},
    {"keep_logs": 0},
    {"size_limit": 1000},
    {"stack_trace_limit": 2},
    {"stack_trace_limit": 0},
    {"fail_parent_on_failure": True},
    {"continue_parent_on_failure": True, "fail_parent_on_failure": False},
    {"ignore_dependency_on_failure": True},
    {"remove_dependency_on_failure": True},
    {"telemetry": {"metadata": '{"traceparent":"00-ab-cd-01"}', "omit_context": True}},
    {"telemetry": {"metadata": "å"}},
    {"telemetry": {"omit_context": False}},
    {"deduplication": {"id": "K/å", "ttl": 5000, "extend": False, "keep_last_if_active": False}},
]


@pytest.mark.parametrize("bulk", [False, True], ids=["add", "add_bulk"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_an_option_is_stored_as_node_stores_it(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, options: dict[str, Any], bulk: bool
) -> None:
    pictures = []
    for make in (partial(NodeSide, peer), OurSide, OurBlockingSide):
        keys = QueueKeys(redis, prefix, uuid.uuid4().hex)
        side: Side = make(redisbox.unix_url, prefix, keys.name)
        await side.start()
        given = {"timestamp": BORN, **options}
        if bulk:
            answer: Any = await side.add_bulk([("n", {"a": [1, None]}, given)] * 2)
        else:
            answer = await side.add("n", {"a": [1, None]}, **given)
        pictures.append((answer, keys.picture()))
        await side.close()
    assert pictures[1] == pictures[0]
    assert pictures[2] == pictures[0]


async def test_what_a_queue_gives_its_jobs_is_stored_as_node_stores_it(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    theirs, ours = {"attempts": 3, "removeOnComplete": 5}, {"attempts": 3, "remove_on_complete": 5}
    handle = await peer.queue("theirs", defaultJobOptions=theirs)
    for options in ({"timestamp": BORN}, {"timestamp": BORN, "attempts": 7}):
        await peer.call(handle, "add", "n", {}, options)
    pictures = [QueueKeys(redis, prefix, "theirs").picture()]
    for module, name in ((toromq, "async"), (toromq.sync, "sync")):
        queue: Any = module.Queue(name, connection=redisbox.unix_url, prefix=prefix, default_job_options=ours)
        assert queue.default_job_options == ours
        for options in ({"timestamp": BORN}, {"timestamp": BORN, "attempts": 7}):
            await _done(queue.add("n", {}, **options))
        pictures.append(QueueKeys(redis, prefix, name).picture())
        await _done(queue.close())
    assert pictures[1] == pictures[0]
    assert pictures[2] == pictures[0]


async def _done(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def test_a_job_that_is_put_off_until_a_moment_is_delayed_for_node(
    ours: OurSide, node: NodeSide, keys: QueueKeys
) -> None:
    moment = datetime.fromtimestamp(BORN / 1000 + 90, UTC)
    job_id = await ours.add("n", {}, timestamp=BORN, run_at=moment)
    view = await node.view(job_id)
    assert view is not None
    assert (view.state, view.delay, view.timestamp) == ("delayed", 90_000, BORN)
    assert keys.scores("delayed") == {job_id: (BORN + 90_000) * 4096}


@pytest.mark.parametrize("implementation", ["node", "async", "sync"])
async def test_a_queue_that_only_looks_leaves_no_version(
    implementation: str, peer: NodePeer, redisbox: RedisBox, keys: QueueKeys
) -> None:
    if implementation == "node":
        await peer.call(await peer.queue("mail", skipMetasUpdate=True), "add", "n", {})
    else:
        module: Any = toromq if implementation == "async" else toromq.sync
        queue = module.Queue("mail", connection=redisbox.unix_url, prefix=keys.prefix, skip_metas_update=True)
        await _done(queue.add("n", {}))
        await _done(queue.close())
    assert keys.redis.hget(keys("meta"), "version") is None
    # One that does not skip it.
    await peer.queue("mail")
    assert str(keys.redis.hget(keys("meta"), "version")).startswith("bullmq:")


async def test_typed_data_and_results_are_plain_json_for_node(
    ours: OurSide, node: NodeSide, peer: NodePeer, redisbox: RedisBox, prefix: str
) -> None:
    options: dict[str, Any] = {"connection": redisbox.unix_url, "prefix": prefix}
    module: Any = toromq if ours.implementation == "toromq" else toromq.sync
    queue = module.Queue("mail", **options, data_type=Letter, result_type=Receipt)

    def deliver(job: Any) -> Receipt:
        assert isinstance(job.data, Letter)
        return Receipt(job.data.to, 1)

    mine = (await _done(queue.add("n", Letter("ada", 2)))).id
    theirs = await node.add("n", {"to": "bob", "pages": 3})
    worker = module.Worker("mail", deliver, **options, data_type=Letter, result_type=Receipt)
    await _done(worker.__aenter__() if module is toromq else worker.__enter__())
    for job_id, to, pages in ((mine, "ada", 2), (theirs, "bob", 3)):
        assert await _done(queue.wait_until_finished(job_id, 20_000)) == Receipt(to, 1)
        view = await node.view(job_id)
        assert view is not None
        assert (view.data, view.returnvalue) == ({"to": to, "pages": pages}, {"to": to, "copies": 1})
    await _done(worker.close())
    await _done(queue.close())


@dataclass
class Letter:
    """Data of a job."""

    to: str
    pages: int


@dataclass
class Receipt:
    """Its result."""

    to: str
    copies: int
