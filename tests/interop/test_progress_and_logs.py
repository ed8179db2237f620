"""Conformance items 19-21: progress, logs and changed data, written by one side and read by the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.node_side import NodeSide

pytestmark = pytest.mark.asyncio

_VALUES: list[Any] = [0, 50, 99.5, "nearly", "", {"done": 3, "of": [4, "å"]}, [1, 2], True]


async def test_progress_reaches_node_readers_as_the_same_value(pair: Pair, node: NodeSide) -> None:
    events = await node.peer.queue_events("mail")
    worker = await pair.b.worker("progress")
    job_id = await pair.a.add("n", {"progress": _VALUES})
    await worker.said("completed", job_id=job_id)
    seen = await node.peer.wait_events("stream", len(_VALUES), handle=events, name="progress")
    assert [item["fields"] for item in seen] == [{"jobId": job_id, "data": value} for value in _VALUES]
    assert json.loads(pair.keys.hash(job_id)["progress"]) == _VALUES[-1]
    assert pair.keys.names(job_id)[2:] == ["active", *["progress"] * len(_VALUES), "completed"]
    assert await pair.a.view(job_id) == await pair.b.view(job_id)


async def test_the_worker_tells_of_progress_too(pair: Pair) -> None:
    worker = await pair.b.worker("progress")
    job_id = await pair.a.add("n", {"progress": [1, {"half": True}]})
    said = await worker.said("progress", job_id=job_id, count=2)
    assert [item.value for item in said] == [1, {"half": True}]


async def test_progress_can_be_set_through_the_queue(pair: Pair) -> None:
    job_id = await pair.a.add("n", {})
    await pair.b.update_progress(job_id, {"by": "queue"})
    view = await pair.a.view(job_id)
    assert view is not None
    assert view.progress == {"by": "queue"}
    assert pair.keys.names(job_id) == ["added", "waiting", "progress"]


async def test_logs_are_kept_up_to_the_limit_of_the_job(pair: Pair) -> None:
    worker = await pair.b.worker("log")
    job_id = await pair.a.add("n", {"rows": ["one", "two", "three"]}, keep_logs=2)
    (completed,) = await worker.said("completed", job_id=job_id)
    assert completed.value == [1, 2, 2]
    for side in (pair.a, pair.b):
        assert await side.logs(job_id) == (["two", "three"], 2)


async def test_logs_of_both_sides_make_one_list(pair: Pair) -> None:
    job_id = await pair.a.add("n", {})
    rows = ["plain", 'with "quotes" and \n a line', "åäö 漢", "", "last"]
    counts = [await (pair.a if number % 2 else pair.b).add_log(job_id, row) for number, row in enumerate(rows)]
    assert counts == [1, 2, 3, 4, 5]
    for side in (pair.a, pair.b):
        assert await side.logs(job_id) == (rows, 5)
        assert await side.logs(job_id, 1, 2) == (rows[1:3], 5)
        assert await side.logs(job_id, 0, 1, asc=False) == ([rows[4], rows[3]], 5)
    assert await pair.b.add_log(job_id, "newest", keep_logs=2) == 2
    assert await pair.a.logs(job_id) == (["last", "newest"], 2)
    # Logs are no events.
    assert pair.keys.names(job_id) == ["added", "waiting"]


async def test_data_changed_by_one_worker_is_seen_by_the_next(pair: Pair, node: NodeSide) -> None:
    job_id = await pair.a.add("n", {"next": {"step": 2, "ü": None}, "fail": True}, attempts=2, backoff=3_600_000)
    first = await pair.b.worker("update_data")
    await first.said("failed", job_id=job_id)
    await first.close()
    assert json.loads(pair.keys.hash(job_id)["data"]) == {"step": 2, "ü": None}
    await node.peer.job(node.handle, job_id, "promote")
    second = await pair.a.worker("echo")
    (completed,) = await second.said("completed", job_id=job_id)
    assert second.runs(job_id)[0].data == completed.value == {"step": 2, "ü": None}
    assert pair.keys.names(job_id) == ["added", "waiting", "active", "delayed", "waiting", "active", "completed"]
