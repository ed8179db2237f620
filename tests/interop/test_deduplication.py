"""Conformance items 42-44: who owns a deduplication id, what happens to the others, and who follows the owner."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurSide
from tests.interop.sides import RefusedError
from tests.support.deduplication import ID, MODES, STATES, own, window

if TYPE_CHECKING:
    import redis as redis_py

    from tests.interop.conftest import Pair
    from tests.interop.sides import Side
    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

BORN = 1_700_000_007_000


@pytest.mark.leaves_keys_broken("owners that are gone, and windows without end for them, as Node leaves them")
@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_leaves_with_every_owner_what_node_leaves(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, mode: str
) -> None:
    rule = {"id": ID, **MODES[mode]}
    cases = [("none", False), *((state, ttl) for state in STATES for ttl in (False, True))]
    # Where the new job goes says little here, so it changes from case to case.
    places: list[dict[str, Any]] = [{"delay": 1000}, {"priority": 3}, {"lifo": True}]
    turn = list(MODES).index(mode)
    differences = []
    for number, (state, ttl) in enumerate(cases, turn):
        pictures: list[Any] = []
        for make in (OurSide, partial(NodeSide, peer)):
            keys = QueueKeys(redis, prefix, uuid.uuid4().hex)
            side: Side = make(redisbox.unix_url, prefix, keys.name)
            await side.start()
            own(redis, keys(""), state, ttl)
            redis.hset(keys(f"dn:{ID}"), mapping={"name": "earlier", "data": "0", "opts": "{}", "jid": "e"})
            job_id = await side.add("new", [1], timestamp=BORN, deduplication=rule, **places[number % 3])
            pictures.append((job_id, window(redis, keys("")), keys.picture()))
            await side.close()
        if pictures[0] != pictures[1]:
            differences.append((state, ttl, *pictures))
    assert differences == []


@pytest.mark.parametrize("state", ["none", "delayed", "active"])
async def test_the_jobs_of_a_bulk_see_each_other_as_in_node(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, state: str
) -> None:
    differences = []
    for mode, rule in MODES.items():
        pictures: list[Any] = []
        for make in (OurSide, partial(NodeSide, peer)):
            keys = QueueKeys(redis, prefix, uuid.uuid4().hex)
            side: Side = make(redisbox.unix_url, prefix, keys.name)
            await side.start()
            own(redis, keys(""), state, False)
            options: list[dict[str, Any]] = [
                {"delay": 700, "deduplication": {"id": ID, **rule}},
                {},
                {"delay": 300, "deduplication": {"id": ID, **rule}},
                {"priority": 2, "deduplication": {"id": ID, **rule}, "job_id": "x"},
                {"delay": 500, "deduplication": {"id": "other", **rule}},
                {"lifo": True, "deduplication": {"id": ID, **rule}},
                {"deduplication": {"id": "other", **rule}},
                {"deduplication": {"id": "third", **rule}, "job_id": "x"},
            ]
            ids = await side.add_bulk([("n", n, {"timestamp": BORN, **given}) for n, given in enumerate(options)])
            pictures.append((ids, keys.picture()))
            await side.close()
        if pictures[0] != pictures[1]:
            differences.append((mode, *pictures))
    assert differences == []


async def test_each_side_honours_the_window_of_the_other(pair: Pair) -> None:
    rule = {"id": ID, "ttl": 600_000}
    first = await pair.a.add("n", 1, deduplication=rule)
    assert await pair.b.add("n", 2, deduplication=rule) == first
    assert await pair.b.call("get_deduplication_job_id", ID) == first
    (name, fields) = pair.keys.events()[-1]
    rejected = fields.pop("deduplicatedJobId")
    assert (name, fields) == ("deduplicated", {"jobId": first, "deduplicationId": ID})
    assert rejected not in ("", first)
    assert bool(await pair.b.call("remove_deduplication_key", ID)) is True
    assert bool(await pair.b.call("remove_deduplication_key", ID)) is False
    assert await pair.b.add("n", 3, deduplication=rule) != first


async def test_a_delayed_job_gives_way_to_one_of_the_other_side(pair: Pair) -> None:
    rule = {"id": ID, "ttl": 600_000, "extend": True, "replace": True}
    first = await pair.a.add("n", 1, delay=600_000, deduplication=rule)
    second = await pair.b.add("n", 2, delay=600_000, deduplication=rule)
    assert pair.keys.list("delayed") == [second]
    assert await pair.a.call("get_deduplication_job_id", ID) == second
    assert pair.keys.events()[2:] == [
        ("removed", {"jobId": first, "prev": "delayed"}),
        ("deduplicated", {"jobId": second, "deduplicationId": ID, "deduplicatedJobId": first}),
        ("added", {"jobId": second, "name": "n"}),
        ("delayed", {"jobId": second, "delay": pair.keys.events()[-1][1]["delay"]}),
    ]


async def test_a_delayed_job_is_delayed_anew_by_the_other_side(pair: Pair) -> None:
    rule = {"id": ID, "reschedule": True}
    first = await pair.a.add("n", 1, delay=600_000, timestamp=BORN, deduplication=rule)
    assert await pair.b.add("n", 2, delay=900_000, timestamp=BORN, deduplication=rule) == first
    assert pair.keys.scores("delayed") == {first: (BORN + 900_000) * 4096}
    assert pair.keys.hash(first)["delay"] == "900000"


@pytest.mark.parametrize("outcome", ["completed", "failed"])
@pytest.mark.parametrize("where", [{}, {"priority": 3}, {"delay": 50}, {"job_id": "x"}], ids=str)
async def test_what_one_side_keeps_is_queued_when_the_owner_ends_on_the_other(
    pair: Pair, outcome: str, where: dict[str, Any]
) -> None:
    rule = {"id": ID, "keep_last_if_active": True}
    owner = await pair.a.add("gate", "owner", deduplication=rule)
    worker = await pair.b.worker("by_name")
    await worker.started(owner)
    assert await pair.a.add("echo", "lost", deduplication=rule) == owner
    assert await pair.a.add("echo", "kept", deduplication=rule, **where) == owner
    kept = pair.keys.redis.hgetall(pair.keys(f"dn:{ID}"))
    assert kept.keys() == {"name", "data", "opts", "jid"}
    if "job_id" in where:
        assert kept["jid"] == "x"
    await worker.open(owner, error="scripted" if outcome == "failed" else None)
    await worker.said(outcome, job_id=owner)
    await worker.said("completed", job_id=kept["jid"])
    assert [run.data for run in worker.runs()] == ["owner", "kept"]
    fields = pair.keys.hash(kept["jid"])
    assert (fields["deid"], fields["returnvalue"], fields["priority"]) == (ID, '"kept"', str(where.get("priority", 0)))
    # The follower owned the id in turn, and its end has freed it.
    assert pair.keys.text(f"de:{ID}") == ""
    assert pair.keys.redis.exists(pair.keys(f"dn:{ID}")) == 0


async def test_an_owner_that_is_gone_is_no_owner(pair: Pair) -> None:
    first = await pair.a.add("n", 1, deduplication={"id": ID})
    # As a crash of an older release leaves it: the key without its job.
    pair.keys.redis.delete(pair.keys(first))
    pair.keys.redis.lrem(pair.keys("wait"), 1, first)
    second = await pair.b.add("n", 2, deduplication={"id": ID})
    assert second != first
    assert pair.keys.text(f"de:{ID}") == second
    assert await pair.a.add("n", 3, deduplication={"id": ID}) == second


@pytest.mark.parametrize("asked", ["node", "toromq"])
async def test_only_the_owner_gives_its_id_up(
    pair: Pair, peer: NodePeer, node: NodeSide, redisbox: RedisBox, asked: str
) -> None:
    owner = await pair.a.add("n", deduplication={"id": ID})
    other = await pair.b.add("n", deduplication={"id": "other"})
    pair.keys.redis.set(pair.keys("de:other"), owner)
    async with toromq.Queue("mail", connection=redisbox.unix_url, prefix=pair.keys.prefix) as queue:
        for job_id, freed in ((other, False), (owner, True), (owner, False)):
            if asked == "node":
                answer = await peer.job(node.handle, job_id, "removeDeduplicationKey")
            else:
                job = await queue.get_job(job_id)
                assert job is not None
                answer = await job.remove_deduplication_key()
            assert bool(answer) is freed
    assert pair.keys.text(f"de:{ID}") == ""
    assert pair.keys.text("de:other") == owner


@pytest.mark.parametrize("rule", [{}, {"id": ""}])
async def test_an_id_that_is_missing_is_refused(side: Side, keys: QueueKeys, rule: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        await side.add("n", {}, deduplication=rule)
    with pytest.raises(RefusedError):
        await side.add_bulk([("n", {}, {}), ("n", {}, {"deduplication": rule})])
    assert keys.list("wait") == []


async def test_what_was_once_called_debounce_is_refused(side: Side, keys: QueueKeys) -> None:
    with pytest.raises(RefusedError, match=r"[Dd]eduplication"):
        await side.add("n", {}, debounce={"id": ID})
    assert keys.list("wait") == []


async def test_a_child_can_have_no_deduplication_id(side: Side, keys: QueueKeys, prefix: str) -> None:
    parent = await side.add("n")
    with pytest.raises(RefusedError):
        await side.add("n", deduplication={"id": ID}, parent={"id": parent, "queue": f"{prefix}:mail"})
    assert keys.list("wait") == [parent]
