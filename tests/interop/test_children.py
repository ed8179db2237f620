"""Jobs added as children, one by one: what both sides store, refuse, and do when one ends (items 33 and 35)."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurSide
from tests.interop.sides import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from tests.interop.conftest import Pair
    from tests.interop.sides import Side
    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

BORN = 1_700_000_000_000
FLAGS = (
    "fail_parent_on_failure",
    "continue_parent_on_failure",
    "ignore_dependency_on_failure",
    "remove_dependency_on_failure",
)


def waiting_parent(keys: QueueKeys, **fields: Any) -> dict[str, str]:
    """A parent that waits for children that are still to be added; returns it as the option of a child."""
    usual = {"name": "parent", "data": "{}", "opts": "{}", "timestamp": BORN, "delay": 0, "priority": 0}
    keys.redis.hset(keys("p"), mapping=usual | fields)
    keys.redis.zadd(keys("waiting-children"), {"p": BORN})
    return {"id": "p", "queue": keys("")[:-1]}


def standing_child(keys: QueueKeys, state: str, **fields: Any) -> None:
    """A job ``x`` in some state."""
    usual = {"name": "x", "data": "{}", "opts": "{}", "timestamp": BORN, "delay": 0, "priority": 0}
    if state in ("completed", "failed"):
        usual |= {"processedOn": BORN, "finishedOn": BORN, "ats": 1, "atm": 1}
        usual |= {"returnvalue": "[1]"} if state == "completed" else {"failedReason": "no"}
    keys.redis.hset(keys("x"), mapping=usual | fields)
    if state == "wait":
        keys.redis.lpush(keys(state), "x")
    else:
        keys.redis.zadd(keys(state), {"x": BORN * 4096 if state == "delayed" else BORN})


def new(keys: QueueKeys) -> None:
    """There is no such job yet."""


def other_parent(keys: QueueKeys, alive: bool) -> None:
    """The job is another parent's, which is there or not."""
    base = keys("")[:-1]
    standing_child(keys, "delayed", parentKey=f"{base}:o", parent=f'{{"id":"o","queueKey":"{base}"}}')
    if alive:
        keys.redis.hset(
            keys("o"), mapping={"name": "o", "data": "{}", "opts": "{}", "timestamp": BORN, "delay": 0, "priority": 0}
        )
        keys.redis.zadd(keys("waiting-children"), {"o": BORN})
    keys.redis.sadd(keys("o:dependencies"), f"{base}:x")


CHILDREN: dict[str, Callable[[QueueKeys], None]] = {
    "new": new,
    **{state: partial(standing_child, state=state) for state in ("wait", "delayed", "completed", "failed")},
    "another parent's": partial(other_parent, alive=True),
    "that of a parent that is gone": partial(other_parent, alive=False),
}


@pytest.mark.leaves_keys_broken("parents wait for jobs that a refused add left to others")
@pytest.mark.parametrize("flag", ["", *FLAGS])
@pytest.mark.parametrize("child", CHILDREN)
async def test_a_child_leaves_what_one_of_node_leaves(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, child: str, flag: str
) -> None:
    differences = []
    for bulk in (False, True):
        for parent_fields in ({}, {"delay": 500}, {"priority": 5}):
            pictures: list[Any] = []
            for make in (OurSide, partial(NodeSide, peer)):
                keys = QueueKeys(redis, prefix, uuid.uuid4().hex)
                side: Side = make(redisbox.unix_url, prefix, keys.name)
                await side.start()
                parent = waiting_parent(keys, **parent_fields)
                CHILDREN[child](keys)
                options = {"parent": parent, "job_id": "x", "timestamp": BORN + 77, **({flag: True} if flag else {})}
                jobs = [("n", 1, {"timestamp": BORN}), ("n", {"new": 1}, options)]
                try:
                    answer: Any = await (side.add_bulk(jobs) if bulk else side.add("n", {"new": 1}, **options))
                except RefusedError as refusal:
                    answer = refusal.code
                # Node's bulk gives a code where an id should be; ours raises. Both have added the others.
                refused = answer in (-7, ["1", "-7"])
                found = keys.picture()
                if child == "completed":
                    # The parent is released before the one who asked hears of it, or after; the two are not one job.
                    found["events"][0].sort(key=lambda entry: (entry["jobId"], entry["event"]))
                pictures.append((refused or answer, found))
                await side.close()
            if pictures[0] != pictures[1]:
                differences.append((bulk, parent_fields, *pictures))
    assert differences == []


async def test_a_parent_that_does_not_exist_is_refused(side: Side, keys: QueueKeys, prefix: str) -> None:
    with pytest.raises(RefusedError) as caught:
        await side.add("n", {}, parent={"id": "none", "queue": f"{prefix}:mail"})
    assert caught.value.code == -5
    assert keys.list("wait") == []
    assert keys.events() == []


async def test_the_child_of_another_parent_is_refused(pair: Pair, prefix: str) -> None:
    parents = [{"id": await pair.a.add("n"), "queue": f"{prefix}:mail"} for _ in range(2)]
    await pair.a.add("n", {}, job_id="x", parent=parents[0])
    before = pair.keys.picture()
    with pytest.raises(RefusedError) as caught:
        await pair.b.add("n", {}, job_id="x", parent=parents[1])
    assert caught.value.code == -7
    assert pair.keys.picture() == before


async def test_two_policies_at_once_are_refused(side: Side, keys: QueueKeys) -> None:
    with pytest.raises(RefusedError):
        await side.add("n", {}, **dict.fromkeys(FLAGS[1:3], True))
    assert keys.list("wait") == []


@pytest.mark.parametrize(
    ("flag", "parent_says", "outcome"),
    [
        ("fail_parent_on_failure", "child {child} failed", "failed"),
        ("continue_parent_on_failure", None, "completed"),
        ("ignore_dependency_on_failure", None, "completed"),
        ("remove_dependency_on_failure", None, "completed"),
    ],
)
async def test_a_child_of_one_side_that_fails_on_the_other_does_to_its_parent_what_it_said(
    pair: Pair, flag: str, parent_says: str | None, outcome: str
) -> None:
    parent = waiting_parent(pair.keys, name="echo", data="7")
    child = await pair.a.add("fail", {"message": "no"}, parent=parent, **{flag: True})
    worker = await pair.b.worker("by_name")
    await worker.said("failed", job_id=child)
    (said,) = await worker.said(outcome, job_id="p")
    assert said.value == (parent_says.format(child=pair.keys(child)) if parent_says else 7)
    kept = {"continue_parent_on_failure", "ignore_dependency_on_failure"}
    assert pair.keys.redis.hgetall(pair.keys("p:failed")) == ({pair.keys(child): "no"} if flag in kept else {})
    assert pair.keys.redis.exists(pair.keys("p:dependencies")) == 0


async def test_the_result_of_a_child_of_one_side_that_completes_on_the_other_reaches_its_parent(pair: Pair) -> None:
    parent = waiting_parent(pair.keys, name="echo", data="7")
    children = [await pair.a.add("echo", {"n": n}, parent=parent) for n in range(3)]
    worker = await pair.b.worker("by_name")
    await worker.said("completed", job_id="p")
    assert [run.job_id for run in worker.runs()] == [*children, "p"]
    assert pair.keys.redis.hgetall(pair.keys("p:processed")) == {
        pair.keys(child): f'{{"n":{n}}}' for n, child in enumerate(children)
    }
