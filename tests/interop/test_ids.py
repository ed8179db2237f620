"""Conformance items 4-6: ids that both sides draw from one counter, and ids of the caller's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.sides import RefusedError

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio


async def test_automatic_ids_of_both_sides_never_collide(pair: Pair) -> None:
    ids: list[str] = []
    for number in range(30):
        side = pair.a if number % 2 else pair.b
        if number % 5 == 0:
            ids += await side.add_bulk([("n", {"number": number}, {})] * 3)
        else:
            ids.append(await side.add("n", {"number": number}))
    assert len(set(ids)) == len(ids) == 42
    assert all(job_id.isdigit() for job_id in ids)
    assert sorted(pair.keys.list("wait"), key=int) == sorted(ids, key=int)
    # Gaps are allowed: a side may reserve numbers in blocks, or use one up for a duplicate.
    assert int(pair.keys.redis.get(pair.keys("id")) or 0) >= max(map(int, ids))


@pytest.mark.parametrize("theirs", [0, 5, 40, 59, 90])
async def test_numbers_held_while_node_wipes_the_queue_overwrite_nothing(
    ours: OurSide, node: NodeSide, keys: QueueKeys, theirs: int
) -> None:
    # Item 55. Our producer has used the first thirty numbers and holds thirty more.
    await ours.add_bulk([("ours, wiped", number, {}) for number in range(30)])
    assert keys.text("id") == "60"
    await node.call("obliterate", {"force": True})
    assert keys.text("id") == ""
    # Numbering starts anew: the other side's numbers end before those that are held, among them, or behind them.
    jobs = [(await node.add("node's", number), number) for number in range(theirs)]
    for number in range(100, 140):
        jobs.append((await ours.add("ours", number), number))
        if number % 3 == 0:
            jobs.append((await node.add("node's", number), number))
    bulk = [("ours", number, {}) for number in range(200, 220)]
    jobs += zip(await ours.add_bulk(bulk), range(200, 220), strict=True)
    ids = [job_id for job_id, _ in jobs]
    assert keys.list("wait")[::-1] == ids
    assert len(set(ids)) == len(ids)
    assert {job_id: keys.hash(job_id)["data"] for job_id in ids} == {job_id: str(number) for job_id, number in jobs}


async def test_a_duplicate_custom_id_leaves_the_original_alone(pair: Pair) -> None:
    first = await pair.a.add("first", {"by": "a"}, job_id="order-7", priority=2)
    before = pair.keys.hash(first)
    second = await pair.b.add("second", {"by": "b"}, job_id="order-7", delay=1000)
    assert first == second == "order-7"
    assert pair.keys.hash("order-7") == before
    assert pair.keys.names("order-7") == ["added", "waiting", "duplicated"]
    assert pair.keys.list("prioritized") == ["order-7"]
    assert pair.keys.list("delayed") == []


async def test_a_duplicate_in_a_bulk_is_reported_under_its_own_place(pair: Pair) -> None:
    await pair.a.add("n", {"by": "a"}, job_id="taken")
    ids = await pair.b.add_bulk(
        [("n", {"by": "b"}, {"job_id": "taken"}), ("n", {}, {"job_id": "free"}), ("n", {}, {"job_id": "free"})]
    )
    assert ids == ["taken", "free", "free"]
    assert pair.keys.names("taken") == ["added", "waiting", "duplicated"]
    assert pair.keys.names("free") == ["added", "waiting", "duplicated"]
    assert pair.keys.list("wait") == ["free", "taken"]


async def test_a_completed_job_still_owns_its_id(pair: Pair) -> None:
    worker = await pair.a.worker("undefined")
    await pair.a.add("n", {}, job_id="once")
    await worker.said("completed", job_id="once")
    await pair.b.add("n", {}, job_id="once")
    assert pair.keys.list("completed") == ["once"]
    assert pair.keys.names("once")[-2:] == ["completed", "duplicated"]


@pytest.mark.parametrize("job_id", ["5", "-5", "0", "0:x", "0:a:b", "a:b", "a:b:c:d"])
async def test_an_id_against_the_rules_is_refused(side: Side, keys: QueueKeys, job_id: str) -> None:
    with pytest.raises(RefusedError):
        await side.add("n", {}, job_id=job_id)
    assert keys.list("wait") == []


@pytest.mark.parametrize("job_id", ["5", "-5", "0", "0:x", "a:b", "a:b:c:d"])
async def test_a_bulk_with_an_id_against_the_rules_is_refused_whole(side: Side, keys: QueueKeys, job_id: str) -> None:
    with pytest.raises(RefusedError):
        await side.add_bulk([("n", {}, {}), ("n", {}, {"job_id": job_id}), ("n", {}, {"job_id": "fine"})])
    assert keys.list("wait") == []
    assert keys.events() == []


async def test_an_id_that_is_a_number_is_refused(side: Side, keys: QueueKeys) -> None:
    with pytest.raises(RefusedError):
        await side.add("n", {}, job_id=5)
    assert keys.list("wait") == []


@pytest.mark.parametrize("job_id", ["05", "5a", "5.0", "1e3", " ", "a:b:c", "ü", "{x}"])
async def test_an_odd_id_within_the_rules_is_taken(side: Side, keys: QueueKeys, job_id: str) -> None:
    assert await side.add("n", {}, job_id=job_id) == job_id
    assert keys.list("wait") == [job_id]
    view = await side.view(job_id)
    assert view is not None
    assert view.state == "waiting"


async def test_an_empty_id_means_an_automatic_one(side: Side, keys: QueueKeys) -> None:
    assert (await side.add("n", {}, job_id="")).isdigit()


@pytest.mark.parametrize("word", ["meta", "wait", "id", "events", "active", "failed", "marker", "limiter", "pc"])
async def test_our_side_refuses_ids_that_are_keys_of_the_queue(ours: OurSide, keys: QueueKeys, word: str) -> None:
    with pytest.raises(RefusedError):
        await ours.add("n", {}, job_id=word)
    assert keys.list("wait") == []


async def test_our_side_refuses_ids_like_a_marker_in_a_bulk_too(ours: OurSide, keys: QueueKeys) -> None:
    # Node looks for these in single adds only.
    with pytest.raises(RefusedError):
        await ours.add_bulk([("n", {}, {"job_id": "0:a:b"})])
    assert keys.list("wait") == []


@pytest.mark.parametrize("by", [{"job_id": "order-7"}, {"deduplication": {"id": "order-7"}}], ids=str)
async def test_a_job_says_that_the_other_side_has_one_already(
    ours: OurSide, node: NodeSide, by: dict[str, Any]
) -> None:
    first = await node.add("n", {"by": "node"}, **by)
    add = ours._queue.add
    second = await ours._done(add, "n", {"by": "us"}, **by)
    assert (second.id, second.is_duplicate) == (first, True)
    other = {"job_id": "order-8"} if "job_id" in by else {"deduplication": {"id": "order-8"}}
    assert (await ours._done(add, "n", {"by": "us"}, **other)).is_duplicate is False
