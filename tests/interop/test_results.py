"""Conformance items 13 and 14: a result written by one side is the same value for the other."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.node_side import NodeSide

pytestmark = pytest.mark.asyncio

_RESULTS: dict[str, Any] = {
    "object": {"sent": True, "to": ["å", 1.5, None]},
    "list": [],
    "text": "all good",
    "empty text": "",
    "number": 12.5,
    "zero": 0,
    "false": False,
    "null": None,
}


@pytest.mark.parametrize("result", _RESULTS.values(), ids=_RESULTS.keys())
async def test_node_waits_for_a_result_and_gets_it(pair: Pair, node: NodeSide, result: Any) -> None:
    events = await node.peer.queue_events("mail")
    worker = await pair.b.worker("gate")
    job_id = await pair.a.add("n", {})
    await worker.started(job_id)
    # Asked while the job runs, so that only the event can bring the answer.
    waiting = asyncio.create_task(node.peer.wait_until_finished(node.handle, job_id, events))
    await node.peer.wait_event("stream", handle=events, name="active")
    await worker.open(job_id, result)
    assert await waiting == {"undefined": False, "value": result}
    # Asked again afterwards, when only the hash can bring it.
    assert await node.peer.wait_until_finished(node.handle, job_id, events) == {"undefined": False, "value": result}
    assert json.loads(pair.keys.hash(job_id)["returnvalue"]) == result
    assert (await pair.a.view(job_id)) == (await pair.b.view(job_id))


async def test_a_processor_without_result_leaves_null(pair: Pair, node: NodeSide) -> None:
    events = await node.peer.queue_events("mail")
    worker = await pair.b.worker("undefined")
    job_id = await pair.a.add("n", {})
    await worker.said("completed", job_id=job_id)
    assert pair.keys.hash(job_id)["returnvalue"] == "null"
    assert pair.keys.events(job_id)[-1] == ("completed", {"returnvalue": "null", "prev": "active"})
    assert await node.peer.wait_until_finished(node.handle, job_id, events) == {"undefined": False, "value": None}


async def test_node_waits_for_a_failure_and_gets_its_reason(pair: Pair, node: NodeSide) -> None:
    events = await node.peer.queue_events("mail")
    worker = await pair.b.worker("gate")
    job_id = await pair.a.add("n", {})
    await worker.started(job_id)
    waiting = asyncio.create_task(node.peer.wait_until_finished(node.handle, job_id, events))
    await worker.open(job_id, error='no luck, "åäö"')
    with pytest.raises(Exception, match="no luck"):
        await waiting
    view = await pair.a.view(job_id)
    assert view == await pair.b.view(job_id)
    assert view is not None
    assert view.state == "failed"
    assert view.failed_reason == 'no luck, "åäö"'
    # Plain text, not JSON.
    assert pair.keys.hash(job_id)["failedReason"] == 'no luck, "åäö"'
    assert ("failed", {"failedReason": 'no luck, "åäö"', "prev": "active"}) in pair.keys.events(job_id)


async def test_a_result_reaches_node_although_the_job_is_removed_at_once(pair: Pair, node: NodeSide) -> None:
    events = await node.peer.queue_events("mail")
    worker = await pair.b.worker("gate")
    job_id = await pair.a.add("n", {}, remove_on_complete=True)
    await worker.started(job_id)
    waiting = asyncio.create_task(node.peer.wait_until_finished(node.handle, job_id, events))
    await node.peer.wait_event("stream", handle=events, name="active")
    # A waiter that starts after the removal is refused. Node answers in order on one connection, and the waiter needs
    # two round trips before it only listens, so it has begun by the time these are answered.
    for _ in range(5):
        await node.counts()
    await worker.open(job_id, {"kept": False})
    assert await waiting == {"undefined": False, "value": {"kept": False}}
    assert pair.keys.hash(job_id) == {}
    assert await pair.a.view(job_id) is None
    assert await pair.b.view(job_id) is None
