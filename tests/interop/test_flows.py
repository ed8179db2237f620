"""Conformance items 31 to 37, 53 and 54: flows added by one side, with parents and children run by either."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.sides import RefusedError, Side, Tree, TreeIds
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.conftest import Pair
    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

POLICIES = {
    "": "",
    "fail_parent_on_failure": "fpof",
    "continue_parent_on_failure": "cpof",
    "ignore_dependency_on_failure": "idof",
    "remove_dependency_on_failure": "rdof",
}
Elsewhere = Callable[..., Awaitable[Side]]


@pytest_asyncio.fixture
async def elsewhere(peer: NodePeer, redisbox: RedisBox, prefix: str) -> AsyncIterator[Elsewhere]:
    """The same implementation as a side, on another queue or under another prefix."""
    made: list[Side] = []

    async def make(side: Side, queue: str, own_prefix: str = prefix) -> Side:
        first = (peer,) if isinstance(side, NodeSide) else ()
        made.append(type(side)(*first, redisbox.unix_url, own_prefix, queue))  # type: ignore[arg-type, call-arg]
        return await made[-1].start()

    yield make
    for side in made:
        await side.close()


@pytest.fixture
def pages(redis: redis_py.Redis, prefix: str) -> QueueKeys:
    """The keys of the queue of children."""
    return QueueKeys(redis, prefix, "pages")


def child(name: str, data: Any = None, /, **options: Any) -> Tree:
    """A child, which the worker of its queue runs by its name; its id is in its data."""
    data = data or {}
    return Tree(name, "pages", data=data, options={"job_id": str(data.get("id", name)), **options})


def parent(*children: Tree, name: str = "children", job_id: str = "R", queue: str = "mail", **options: Any) -> Tree:
    """A parent, which tells what it learns of its children."""
    return Tree(name, queue, children, data={}, options={"job_id": job_id, **options})


async def state(side: Side, job_id: str, wanted: str) -> None:
    """Waits until a job is in a state."""

    async def is_there() -> bool:
        assert await side.call("get_job_state", job_id) == wanted
        return True

    await aeventually(is_there, message=f"{job_id} is {wanted} for {side}")


def sorted_tree(tree: TreeIds | None) -> Any:
    assert tree is not None
    name, job_id, children = tree
    return name, job_id, sorted(sorted_tree(one) for one in children)


# --- who adds, who runs parents, who runs children --------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False], ids=["one runs all", "each runs one kind"])
async def test_a_flow_of_one_side_is_run_by_the_other(pair: Pair, elsewhere: Elsewhere, same: bool) -> None:
    """Added by one; parents and children run by the other, or parents by the first and children by the second."""
    flow = parent(
        parent(child("value", {"id": "c1", "value": [1]}), name="children", job_id="middle"),
        child("value", {"id": "c2", "value": {"z": "ü"}}),
        child("undefined", {"id": "c3"}),
    )
    ((name, job_id, below),) = await pair.a.add_flows(flow)
    assert (name, job_id, [one[1] for one in below]) == ("children", "R", ["middle", "c2", "c3"])
    children = await elsewhere(pair.b, "pages")
    await children.worker("by_name")
    bosses = pair.b if same else pair.a
    worker = await bosses.worker("children")
    await worker.said("completed", job_id="R")
    view = await pair.a.view("R")
    assert view is not None
    assert view.returnvalue == {"values": [None, {"ignored": [], "values": [[1]]}, {"z": "ü"}], "ignored": []}
    for side in (pair.a, pair.b):
        assert dict(await side.on_job("R", "get_children_values")) == {
            pair.keys("middle"): {"ignored": [], "values": [[1]]},
            f"{pair.keys.prefix}:pages:c2": {"z": "ü"},
            f"{pair.keys.prefix}:pages:c3": None,
        }


async def test_a_flow_over_two_prefixes(pair: Pair, elsewhere: Elsewhere, prefix: str) -> None:
    far = Tree("value", "pages", prefix=f"{prefix}:far", data={"value": "far"}, options={"job_id": "f"})
    await pair.a.add_flows(parent(far, child("value", {"id": "n", "value": "near"})))
    for where in (prefix, f"{prefix}:far"):
        await (await elsewhere(pair.b, "pages", where)).worker("by_name")
    worker = await pair.a.worker("children")
    (outcome,) = await worker.said("completed", job_id="R")
    assert outcome.value == {"values": ["far", "near"], "ignored": []}


# --- what a child's failure means -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_failure_of_one_sides_child_reaches_the_parent_of_the_other(
    pair: Pair, elsewhere: Elsewhere, pages: QueueKeys, policy: str
) -> None:
    bad = child("fail", {"id": "bad", "message": "no"}, attempts=2, **({policy: True} if policy else {}))
    await pair.a.add_flows(parent(child("value", {"id": "good", "value": 7}), bad))
    children = await elsewhere(pair.b, "pages")
    await (await children.worker("by_name", concurrency=1)).said("failed", job_id="bad", count=2)
    worker = await pair.a.worker("children")
    counts: Any = {"processed": 1, "unprocessed": 0, "ignored": 0, "failed": 0}
    if policy == "":
        assert await pair.a.call("get_job_state", "R") == "waiting-children"
        counts["unprocessed"] = 1
    elif policy == "fail_parent_on_failure":
        (outcome,) = await worker.said("failed", job_id="R")
        assert outcome.value == f"child {pages('bad')} failed"
        assert worker.runs("R") == []
        assert "defa" not in pair.keys.hash("R")
        counts["failed"] = 1
    else:
        kept = policy != "remove_dependency_on_failure"
        (outcome,) = await worker.said("completed", job_id="R")
        assert outcome.value == {"values": [7], "ignored": ["no"] if kept else []}
        counts["ignored"] = int(kept)
    for side in (pair.a, pair.b):
        assert dict(await side.on_job("R", "get_dependencies_count")) == counts


async def test_a_parent_that_goes_on_has_to_do_with_its_pending_children(pair: Pair, elsewhere: Elsewhere) -> None:
    """Released by a child's failure, it can't complete while others are pending; once they are gone it can."""
    bad = child("fail", {"id": "bad", "message": "no"}, continue_parent_on_failure=True)
    late = child("value", {"id": "late"}, delay=600_000)
    await pair.a.add_flows(parent(bad, late, attempts=2, backoff=600_000))
    await (await elsewhere(pair.b, "pages")).worker("by_name")
    worker = await pair.a.worker("children")
    await worker.said("failed", job_id="R")
    await state(pair.b, "R", "delayed")
    await pair.b.on_job("R", "remove_unprocessed_children")
    await pair.b.on_job("R", "promote")
    (outcome,) = await worker.said("completed", job_id="R")
    assert outcome.value == {"values": [], "ignored": ["no"]}


async def test_a_failure_goes_up_level_by_level(pair: Pair, elsewhere: Elsewhere, pages: QueueKeys) -> None:
    bad = child("fail", {"id": "bad", "message": "no"}, fail_parent_on_failure=True)
    await pair.a.add_flows(parent(parent(bad, job_id="middle", fail_parent_on_failure=True, attempts=5)))
    await (await elsewhere(pair.b, "pages")).worker("by_name")
    worker = await pair.a.worker("children")
    await worker.said("failed", job_id="R")
    assert [(said.job_id, said.value) for said in worker.outcomes("failed")] == [
        ("middle", f"child {pages('bad')} failed"),
        ("R", f"child {pair.keys('middle')} failed"),
    ]
    assert worker.runs() == []


async def test_a_second_failure_pulls_a_delayed_parent_out(pair: Pair, elsewhere: Elsewhere, pages: QueueKeys) -> None:
    """It goes through its delay for the first child that fails it, and not for the second (item 54)."""
    bad = [child("gate", {"id": name}, fail_parent_on_failure=True) for name in ("b1", "b2")]
    await pair.a.add_flows(parent(*bad, delay=600_000))
    children = await (await elsewhere(pair.b, "pages")).worker("by_name", concurrency=2)
    await children.started("b2")
    await children.open("b1", error="one")
    await state(pair.a, "R", "delayed")
    await children.open("b2", error="two")
    await state(pair.a, "R", "waiting")
    worker = await pair.a.worker("children")
    (outcome,) = await worker.said("failed", job_id="R")
    assert outcome.value == f"child {pages('b2')} failed"
    assert [name for name in pair.keys.names("R") if name in ("delayed", "waiting", "active", "failed")] == [
        "delayed", "waiting", "active", "failed",
    ]  # fmt: skip


async def test_a_child_that_is_retried_completes_its_parent(pair: Pair, elsewhere: Elsewhere) -> None:
    await pair.a.add_flows(parent(child("fail_times", {"id": "bad", "times": 1, "value": 3})))
    children = await elsewhere(pair.b, "pages")
    running = await children.worker("by_name")
    await running.said("failed", job_id="bad")
    await (await elsewhere(pair.a, "pages")).on_job("bad", "retry")
    worker = await pair.a.worker("children")
    (outcome,) = await worker.said("completed", job_id="R")
    assert outcome.value == {"values": [3], "ignored": []}


# --- delays, priorities, places ---------------------------------------------------------------------------------------


async def test_delays_and_priorities_of_parents_count_once_their_children_ended(
    pair: Pair, elsewhere: Elsewhere
) -> None:
    """Three levels (item 34)."""
    middle = parent(child("value", {"id": "leaf", "value": 1}), job_id="middle", delay=200)
    await pair.a.add_flows(parent(middle, priority=4))
    await (await elsewhere(pair.b, "pages")).worker("by_name")
    await state(pair.a, "middle", "delayed")
    assert await pair.b.call("get_job_state", "R") == "waiting-children"
    worker = await pair.b.worker("children")
    await worker.said("completed", job_id="R")
    moves = [entry for entry in pair.keys.events("middle") if entry[0] in ("delayed", "waiting", "waiting-children")]
    assert [name for name, _ in moves] == ["waiting-children", "delayed", "waiting"]
    assert moves[2][1] == {"prev": "delayed"}
    assert ("waiting", {"prev": "waiting-children"}) in pair.keys.events("R")


async def test_a_released_parent_runs_before_those_that_wait(pair: Pair, elsewhere: Elsewhere) -> None:
    await pair.a.add_flows(parent(child("value", {"id": "leaf"})))
    waiting = [await pair.b.add("children", {}) for _ in range(2)]
    children = await (await elsewhere(pair.b, "pages")).worker("by_name")
    await children.said("completed", job_id="leaf")
    await state(pair.a, "R", "waiting")
    worker = await pair.a.worker("children", concurrency=1)
    await worker.started(count=3)
    assert [run.job_id for run in worker.runs()] == ["R", *waiting]


# --- children that a running parent adds ------------------------------------------------------------------------------


async def test_a_parent_adds_children_while_it_runs(pair: Pair) -> None:
    """Item 36, whoever runs them."""
    job_id = await pair.a.add("have_children", {"count": 3}, job_id="R")
    worker = await pair.b.worker("by_name", concurrency=1)
    (outcome,) = await worker.said("completed", job_id=job_id)
    assert outcome.value == {"values": [0, 1, 2], "ignored": []}
    assert [run.job_id for run in worker.runs("R")] == ["R", "R"]
    view = await pair.a.view("R")
    assert view is not None
    assert (view.attempts_made, view.attempts_started) == (1, 2)


# --- removing ---------------------------------------------------------------------------------------------------------


async def test_a_tree_is_removed_unless_a_job_of_it_runs(
    pair: Pair, elsewhere: Elsewhere, redis: redis_py.Redis, prefix: str
) -> None:
    """Item 37."""
    leaf = child("gate", {"id": "leaf"})
    await pair.a.add_flows(parent(parent(leaf, job_id="middle"), child("value", {"id": "x"}, delay=600_000)))
    running = await (await elsewhere(pair.b, "pages")).worker("by_name")
    await running.started("leaf")
    before = await pair.a.read_flow("mail", "R")
    with pytest.raises(RefusedError):
        await pair.a.on_job("R", "remove")
    assert await pair.a.read_flow("mail", "R") == before
    await running.open("leaf", 1)
    await running.said("completed", job_id="leaf")
    await pair.a.on_job("R", "remove")
    left = {key.rpartition(":")[2] for key in redis.scan_iter(f"{prefix}:*")}
    assert left <= {"meta", "id", "events", "marker", "stalled-check"}


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_tree_reads_the_same(pair: Pair, elsewhere: Elsewhere, pages: QueueKeys) -> None:
    bad = {"id": "bad", "message": "no"}
    children = [
        child("value", {"id": "good"}),
        child("fail", bad, ignore_dependency_on_failure=True),
        child("fail", {**bad, "id": "worse"}, fail_parent_on_failure=True),
        child("value", {"id": "late"}, delay=600_000),
        parent(child("value", {"id": "leaf"}, delay=600_000), job_id="middle"),
    ]
    await pair.a.add_flows(parent(*children))
    worker = await (await elsewhere(pair.b, "pages")).worker("by_name")
    await worker.said("failed", count=2)
    await worker.said("completed", job_id="good")
    read = await pair.b.read_flow("mail", "R")
    assert read is not None
    assert sorted_tree(await pair.a.read_flow("mail", "R")) == sorted_tree(read)
    kinds = [[one[1] for one in read[2]][:1], sorted(one[1] for one in read[2][1:3]), [one[1] for one in read[2]][3:]]
    assert kinds == [["good"], ["late", "middle"], ["worse", "bad"]]
    assert next(one for one in read[2] if one[1] == "middle")[2] == [("value", "leaf", [])]
    for extent in ({"depth": 1}, {"depth": 2}, {"max_children": 30}):
        trees = [await side.read_flow("mail", "R", **extent) for side in (pair.a, pair.b)]
        assert sorted_tree(trees[0]) == sorted_tree(trees[1])
    assert await pair.a.read_flow("mail", "none") is await pair.b.read_flow("mail", "none") is None
    pages.redis.delete(pages("good"))
    pages.redis.zrem(pages("completed"), "good")
    trees = [await side.read_flow("mail", "R") for side in (pair.a, pair.b)]
    assert sorted_tree(trees[0]) == sorted_tree(trees[1]) == sorted_tree((read[0], read[1], read[2][1:]))


# --- jobs that are there already --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", ["completed", "failed"])
async def test_a_job_that_has_ended_joins_a_later_flow(pair: Pair, elsewhere: Elsewhere, ended: str) -> None:
    """Item 35: run by one side, joined by the other."""
    jobs = await elsewhere(pair.b, "pages")
    data = {"value": 5} if ended == "completed" else {"times": 1, "value": 6}
    await jobs.add("value" if ended == "completed" else "fail_times", data, job_id="old")
    running = await jobs.worker("by_name")
    await running.said(ended, job_id="old")
    await pair.a.add_flows(parent(child("other", {"id": "old"})))
    worker = await pair.b.worker("children")
    if ended == "failed":
        assert await pair.b.call("get_job_state", "R") == "waiting-children"
        await jobs.on_job("old", "retry")
    (outcome,) = await worker.said("completed", job_id="R")
    assert outcome.value == {"values": [5 if ended == "completed" else 6], "ignored": []}


async def test_what_a_child_stores_is_read_by_the_other(pair: Pair, pages: QueueKeys) -> None:
    await pair.a.add_flows(parent(child("value", {"id": "x"}, continue_parent_on_failure=True)))
    stored = pages.hash("x")
    assert json.loads(stored["parent"]) == {"id": "R", "queueKey": f"{pages.prefix}:mail", "cpof": True}
    assert stored["parentKey"] == pair.keys("R")
    assert "version" not in pages.redis.hgetall(pages("meta"))
