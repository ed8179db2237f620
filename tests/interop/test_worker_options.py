"""Options of a worker that the other side sees the effect of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.node_side import NodeSide

pytestmark = pytest.mark.asyncio


async def test_a_job_that_began_too_often_fails_without_a_run(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"to": "wait"}, attempts=5)
    worker = await pair.b.worker("move", max_started_attempts=1)
    (failed,) = await worker.said("failed", job_id=job_id)
    assert failed.value == "job started more than allowable limit"
    assert len(worker.runs(job_id)) == 1
    fields = pair.keys.hash(job_id)
    assert (fields["failedReason"], fields["ats"], fields["atm"]) == ("job started more than allowable limit", "2", "1")
    # It has attempts left, so it did not exhaust them.
    assert pair.keys.names(job_id)[-2:] == ["active", "failed"]
    assert await pair.a.view(job_id) == await pair.b.view(job_id)


async def test_a_job_that_may_not_begin_again_fails_for_good(pair: Pair) -> None:
    job_id = await pair.a.add("n", attempts=5)
    worker = await pair.b.worker("fail", max_started_attempts=2)
    await worker.said("failed", job_id=job_id, count=2)
    fields = pair.keys.hash(job_id)
    assert (fields["failedReason"], fields["ats"], fields["atm"]) == ("scripted failure", "2", "2")
    assert pair.keys.names(job_id)[1:] == ["waiting", "active", "waiting", "active", "failed"]


async def test_both_sides_count_into_one_series(pair: Pair, node: NodeSide) -> None:
    for side, count in ((pair.a, 1), (pair.b, 2)):
        worker = await side.worker("by_name", metrics=5)
        for name, kind in (("echo", "completed"), ("fail", "failed")):
            await worker.said(kind, job_id=await pair.a.add(name))
        await worker.close()
        for kind in ("completed", "failed"):
            fields = pair.keys.redis.hgetall(pair.keys(f"metrics:{kind}"))
            assert (fields["count"], fields["prevCount"], fields["prevTS"].isdigit()) == (str(count), "0", True)
            metrics = await node.peer.call(node.handle, "getMetrics", kind)
            assert metrics["meta"]["count"] == count
