"""Jobs that a processor of either side puts somewhere else, and what the other side makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.node_side import NodeSide

pytestmark = pytest.mark.asyncio

_HOUR = 3_600_000


async def test_a_job_that_one_side_put_off_is_run_by_the_other(pair: Pair, node: NodeSide) -> None:
    job_id = await pair.a.add("n", {"to": "delayed", "ms": _HOUR}, attempts=2)
    worker = await pair.b.worker("move")
    await aeventually(lambda: pair.keys.redis.zscore(pair.keys("delayed"), job_id) is not None)
    await worker.close()
    fields = pair.keys.hash(job_id)
    # A moment of Python has microseconds, and is rounded.
    assert _HOUR - 60_000 <= int(fields.pop("delay")) <= _HOUR + 1
    assert fields == {
        "name": "n", "data": '{"to":"delayed","ms":3600000}', "opts": {"attempts": 2}, "timestamp": True,
        "priority": "0", "processedOn": True, "ats": "1",
    }  # fmt: skip
    due = pair.keys.scores("delayed")[job_id] // 4096
    assert pair.keys.events(job_id)[-2:] == [("active", {"prev": "waiting"}), ("delayed", {"delay": str(due)})]
    assert await pair.a.view(job_id) == await pair.b.view(job_id)
    await node.peer.job(node.handle, job_id, "promote")
    last = await pair.a.worker("move")
    assert (await last.said("completed", job_id=job_id))[0].value == 2
    assert (pair.keys.hash(job_id)["atm"], pair.keys.hash(job_id)["ats"]) == ("1", "2")


@pytest.mark.parametrize("priority", [0, 3])
async def test_a_job_that_was_put_back_is_the_next_of_its_kind(pair: Pair, priority: int) -> None:
    job_id = await pair.a.add("n", {"to": "wait"}, priority=priority)
    other = await pair.a.add("n", {"to": "nowhere"}, priority=priority)
    worker = await pair.b.worker("move")
    assert (await worker.said("completed", job_id=job_id))[0].value == 2
    await worker.said("completed", job_id=other)
    assert [run.job_id for run in worker.runs()] == [job_id, job_id, other]
    active, back = ("active", {"prev": "waiting"}), ("waiting", {"prev": "active"})
    assert pair.keys.events(job_id)[1:-1] == [("waiting", {}), active, back, active]
    assert (pair.keys.hash(job_id)["atm"], pair.keys.hash(job_id)["ats"]) == ("1", "2")


async def test_a_job_waits_for_children_that_the_other_side_runs(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"to": "waiting-children"})
    # A child as it is stored, in the same queue and behind its parent.
    child_id = await pair.a.add("n", {"to": "nowhere"})
    parent = json.dumps({"id": job_id, "queueKey": pair.keys("")[:-1]})
    pair.keys.redis.hset(pair.keys(child_id), mapping={"parentKey": pair.keys(job_id), "parent": parent})
    pair.keys.redis.sadd(pair.keys(f"{job_id}:dependencies"), pair.keys(child_id))
    worker = await pair.b.worker("move")
    assert (await worker.said("completed", job_id=job_id))[0].value == 2
    await worker.close()
    assert pair.keys.events(job_id)[2:] == [
        ("active", {"prev": "waiting"}),
        ("waiting-children", {"prev": "active"}),
        ("waiting", {"prev": "waiting-children"}),
        ("active", {"prev": "waiting"}),
        ("completed", {"returnvalue": "2", "prev": "active"}),
    ]
    assert pair.keys.redis.hgetall(pair.keys(f"{job_id}:processed")) == {pair.keys(child_id): "1"}


async def test_a_job_without_children_left_goes_on(pair: Pair) -> None:
    job_id = await pair.a.add("n", {"to": "waiting-children"})
    worker = await pair.b.worker("move")
    assert (await worker.said("completed", job_id=job_id))[0].value == 1
