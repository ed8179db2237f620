"""The same flow added by Node and by us: every key it leaves is the same (items 35 and 54)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide
from tests.interop.sides import RefusedError, Side, Tree, TreeIds
from tests.support.keyspace import keyspace

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.leaves_keys_broken("jobs that are there already are written as far as a test needs them"),
]

BORN: Final = 1_700_000_000_000
POLICIES: Final = (
    "fail_parent_on_failure",
    "continue_parent_on_failure",
    "ignore_dependency_on_failure",
    "remove_dependency_on_failure",
)


class Keys(NamedTuple):
    """One prefix, to write what is there before a flow comes."""

    redis: redis_py.Redis
    prefix: str

    def queue(self, name: str) -> QueueKeys:
        return QueueKeys(self.redis, self.prefix, name)

    def stand(self, queue: str, job_id: str, state: str, **fields: Any) -> None:
        """A job in some state."""
        keys = self.queue(queue)
        usual = {"name": "old", "data": "{}", "opts": "{}", "timestamp": BORN, "delay": 0, "priority": 0}
        if state in ("completed", "failed"):
            usual |= {"processedOn": BORN, "finishedOn": BORN, "ats": 1, "atm": 1}
            usual |= {"returnvalue": '["old"]'} if state == "completed" else {"failedReason": "no"}
        self.redis.hset(keys(job_id), mapping=usual | fields)
        if state in ("wait", "active"):
            self.redis.lpush(keys(state), job_id)
        else:
            self.redis.zadd(keys(state), {job_id: BORN * 4096 if state == "delayed" else BORN})

    def belongs(self, queue: str, child: str, parent_queue: str, parent: str) -> None:
        """A job becomes the child of another, which need not be there."""
        base = self.queue(parent_queue)("")[:-1]
        link = {"parentKey": f"{base}:{parent}", "parent": json.dumps({"id": parent, "queueKey": base})}
        self.redis.hset(self.queue(queue)(child), mapping=link)
        self.redis.sadd(f"{base}:{parent}:dependencies", self.queue(queue)(child))


def node(name: str, *children: Tree, queue: str = "q", born: bool = True, **options: Any) -> Tree:
    """A job whose id is its name."""
    prefix, data = options.pop("prefix", None), options.pop("data", {"of": name})
    stamp = {"timestamp": BORN + 77} if born else {}
    return Tree(name, queue, children, prefix, data, {"job_id": name, **stamp, **options})


def nothing(keys: Keys) -> None:
    """No key is there before."""


Before = Callable[[Keys], None]


class Case(NamedTuple):
    """What is there, and what is added; options of queues, where it is one tree."""

    trees: Callable[[str], list[Tree]]
    before: Before = nothing
    queues_options: dict[str, dict[str, Any]] | None = None
    bulk: bool = False


def one(*trees: Tree, before: Before = nothing, **more: Any) -> Case:
    return Case(lambda _: list(trees), before, **more)


LEAF: Final = node("leaf", queue="pages")
DEEP: Final = node(
    "R",
    node("A", node("A1", node("A1a"), queue="pages"), delay=700),
    node("B", queue="pages"),
    node("C", node("C1", priority=3), priority=5, lifo=True),
    node("D", queue="pages", delay=500),
    priority=2,
    delay=900,
)


def standing(queue: str, job_ids: str | tuple[str, ...], state: str) -> Before:
    def write(keys: Keys) -> None:
        for job_id in (job_ids,) if isinstance(job_ids, str) else job_ids:
            keys.stand(queue, job_id, state)

    return write


def alone(keys: Keys) -> None:
    keys.stand("q", "top", "waiting-children")
    keys.stand("q", "R", "completed")


def child_of(parent: str, alive: bool) -> Before:
    def write(keys: Keys) -> None:
        keys.stand("pages", "leaf", "delayed")
        keys.belongs("pages", "leaf", "q", parent)
        if alive:
            keys.stand("q", parent, "waiting-children")

    return write


def outside(state: str) -> Before:
    def write(keys: Keys) -> None:
        keys.stand("q", "top", state)
        keys.stand("q", "other", "wait")
        keys.belongs("q", "other", "q", "top")

    return write


def below(prefix: str) -> list[Tree]:
    return [node("R", LEAF, parent={"id": "top", "queue": f"{prefix}:q"})]


def paused(keys: Keys) -> None:
    keys.redis.hset(keys.queue("pages")("meta"), "paused", "1")


def maxed(keys: Keys) -> None:
    keys.stand("pages", "busy", "active")
    keys.redis.hset(keys.queue("pages")("meta"), mapping={"concurrency": "1", "opts.maxLenEvents": "50"})


CASES: Final[dict[str, Case]] = {
    "a job alone": one(node("R")),
    "a delayed job alone": one(node("R", delay=5000)),
    "a job alone with a priority": one(node("R", priority=7)),
    "a job alone before the others": one(node("R", lifo=True)),
    "a job alone with a deduplication id": one(node("R", deduplication={"id": "K", "ttl": 60_000})),
    "levels, queues, delays and priorities": one(DEEP),
    "children of every policy": one(node("R", *(node(flag, queue="pages", **{flag: True}) for flag in POLICIES))),
    "policies that are off": one(node("R", node("x", **dict.fromkeys(POLICIES, False)))),
    "two prefixes": Case(lambda prefix: [node("R", node("x", queue="pages", prefix=f"{prefix}:far"))]),
    "children in the order of each kind": one(
        node("R", *(node(f"c{n}", **given) for n, given in enumerate(
            [{}, {"lifo": True}, {"priority": 2}, {}, {"priority": 1}, {"delay": 9}, {"lifo": True}, {"delay": 9}]))),
    ),
    "data of every kind": one(
        node("R", *(node(f"d{n}", data=data) for n, data in enumerate([None, 1.5, "ß/\u2028", [], {"a": [{}]}]))),
        Tree("none", "q", options={"job_id": "none", "timestamp": BORN}),
    ),
    "many options": one(
        node("R", node("x", attempts=3, backoff=500, remove_on_complete=True, keep_logs=3, stack_trace_limit=1)),
    ),
    "options of queues": one(
        node("R", LEAF, node("own", queue="pages", attempts=9)),
        queues_options={"pages": {"attempts": 4, "priority": 6}},
    ),
    "ids that are made": Case(
        lambda _: [Tree("R", "q", (Tree("x", "pages", options={"timestamp": BORN}),), options={"timestamp": BORN})]
    ),
    "several trees": one(node("R", LEAF), node("S", node("T", node("U"))), node("V")),
    "one tree as many": one(node("R", LEAF), bulk=True),
    "the same tree twice": one(node("R", LEAF), node("R", LEAF)),
    "a paused queue": one(node("R", LEAF, node("x", queue="pages", delay=50)), before=paused),
    "a queue at its limit": one(node("R", LEAF), before=maxed),
    **{
        f"a child that is {state}": one(node("R", LEAF), before=standing("pages", "leaf", state))
        for state in ("wait", "delayed", "active", "completed", "failed", "waiting-children")
    },
    **{
        f"a completed child of a parent with {given}": one(
            node("R", LEAF, **given), before=standing("pages", "leaf", "completed")
        )
        for given in ({"priority": 4}, {"lifo": True})
    },
    "a completed child among others": one(
        node("R", LEAF, node("x")), before=standing("pages", "leaf", "completed")
    ),
    "a completed child two levels down": one(
        node("R", node("A", LEAF)), before=standing("pages", "leaf", "completed")
    ),
    "parents that are released in order": one(
        *(node(f"R{n}", node(f"x{n}")) for n in range(3)), before=standing("q", ("x0", "x1", "x2"), "completed")
    ),
    "a failed child with a policy": one(
        node("R", node("leaf", queue="pages", fail_parent_on_failure=True)), before=standing("pages", "leaf", "failed")
    ),
    "a child of this parent": one(node("R", LEAF), before=child_of("R", alive=False)),
    "a child of a parent that is there": one(node("R", LEAF), before=child_of("R", alive=True)),
    "a child of a parent that is gone": one(node("R", LEAF), before=child_of("gone", alive=False)),
    **{
        f"a root that is {state}": one(node("R", LEAF), before=standing("q", "R", state))
        for state in ("wait", "active", "completed", "failed", "waiting-children")
    },
    **{
        f"a flow below a parent that is {state}": Case(below, outside(state))
        for state in ("waiting-children", "active", "completed", "failed")
    },
    "a completed root below a parent that waits for it alone": Case(below, alone),
}  # fmt: skip


def picture(redis: redis_py.Redis, prefix: str, names: dict[str, str]) -> dict[str, Any]:
    """All keys, with JSON taken apart and ids that were made called by the jobs' names."""

    def apart(text: Any) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError):
            return text

    found: dict[str, Any] = {}
    for key, kept in keyspace(redis, prefix).items():
        value = kept.value
        if kept.type == "hash":
            value = {name: apart(text) for name, text in value.items()}
        found[key] = [sorted(value) if isinstance(value, set) else value, kept.has_ttl]
    text = json.dumps(found)
    for made, name in names.items():
        text = text.replace(made, name)
    # Prefixes stand in full keys only.
    return dict(json.loads(re.sub(re.escape(prefix) + r"(?=:)", "P", text)))


def names_of(trees: list[TreeIds]) -> dict[str, str]:
    """The name of each job by its id."""
    names: dict[str, str] = {}
    for name, job_id, below in trees:
        names |= {job_id: name, **names_of(below)}
    return names


def called(names: dict[str, str], answer: list[TreeIds]) -> Any:
    """What was answered, with ids that were made called by the jobs' names."""
    return [(name, names[job_id], called(names, below)) for name, job_id, below in answer]


async def added(side: Side, case: Case, prefix: str) -> Any:
    """What a case answers, its made ids among it."""
    try:
        return await side.add_flows(*case.trees(prefix), queues_options=case.queues_options, bulk=case.bulk)
    except RefusedError as refusal:
        return refusal.code


@pytest.mark.parametrize("face", [OurSide, OurBlockingSide], ids=["toromq", "sync"])
@pytest.mark.parametrize("name", CASES)
async def test_a_flow_leaves_what_one_of_node_leaves(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str, name: str, face: type[OurSide]
) -> None:
    case = CASES[name]
    pictures: list[Any] = []
    for kind in ("ours", "node"):
        own = f"{prefix}:{kind}"
        case.before(Keys(redis, own))
        side: Side = face(redisbox.unix_url, own, "none") if kind == "ours" else NodeSide(
            peer, redisbox.unix_url, own, "none"
        )  # fmt: skip
        answer = await added(side, case, own)
        assert isinstance(answer, list), answer
        names = names_of(answer)
        found = picture(redis, own, names)
        pictures.append((called(names, answer), found))
        await side.close()
    ours, nodes = pictures
    keys = sorted({*ours[1], *nodes[1]})
    assert {key: (ours[1].get(key), nodes[1].get(key)) for key in keys if ours[1].get(key) != nodes[1].get(key)} == {}
    assert ours[0] == nodes[0]


async def test_a_child_of_another_parent_hangs_in_node_and_is_refused_by_us(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    """Where the only child belongs to another parent, a parent of Node's waits for ever, and nobody is told."""
    states: dict[str, Any] = {}
    for kind in ("ours", "node"):
        keys = Keys(redis, f"{prefix}:{kind}")
        child_of("owner", alive=True)(keys)
        before = keyspace(redis, keys.prefix)
        side: Side = OurSide(redisbox.unix_url, keys.prefix, "q") if kind == "ours" else NodeSide(
            peer, redisbox.unix_url, keys.prefix, "q"
        )  # fmt: skip
        answer = await added(side, one(node("R", LEAF)), keys.prefix)
        waits = redis.zscore(keys.queue("q")("waiting-children"), "R") is not None
        pending = redis.exists(keys.queue("q")("R:dependencies"))
        states[kind] = (answer, waits, pending, keyspace(redis, keys.prefix) == before)
        await side.close()
    assert states["ours"] == (-7, False, 0, True)
    assert states["node"] == ([("R", "R", [("leaf", "leaf", [])])], True, 0, False)


async def test_a_parent_that_is_missing_is_refused_by_both(
    peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    for kind in ("ours", "node"):
        own = f"{prefix}:{kind}"
        side: Side = OurSide(redisbox.unix_url, own, "q") if kind == "ours" else NodeSide(
            peer, redisbox.unix_url, own, "q"
        )  # fmt: skip
        assert await added(side, Case(below), own) == -5
        assert redis.exists(f"{own}:q:R", f"{own}:pages:leaf") == 0
        await side.close()
