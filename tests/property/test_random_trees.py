"""Random trees of jobs, run by Node, by us, and by both together, end as a small model says they must.

Whichever jobs run first, a tree ends in one way: a parent waits for all its children before it does its own work. What
stays open, such as which of two children that fail their parent comes first, is not compared.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide
from tests.interop.sides import Side, Tree
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.property.bench import Bench

QUEUES: Final = ("left", "right")
POLICIES: Final = {
    "": "",
    "fail_parent_on_failure": "fails",
    "continue_parent_on_failure": "ignored",
    "ignore_dependency_on_failure": "ignored",
    "remove_dependency_on_failure": "forgotten",
}
_LEVELS: Final = 4
_QUIET: Final = ("wait", "active", "prioritized", "delayed")
# A parent of which a child has failed says so itself, or the operation that it was refused.
_BY_CHILD: Final = ("child ", "Cannot complete job", "move_to_waiting_children of job")


@dataclass(frozen=True)
class Node:
    """A job of a tree, and what it does once its children have ended."""

    queue: str
    policy: str
    attempts: int
    fails: int
    fatal: bool
    delay: int
    priority: int
    goes: bool = False
    ms: int = 0
    children: tuple[Node, ...] = ()


@st.composite
def nodes(draw: st.DrawFn, level: int = 1) -> Node:
    """A tree; shrinks to a job alone that completes."""
    width = draw(st.integers(0, 3)) if level < _LEVELS else 0
    return Node(
        queue=draw(st.sampled_from(QUEUES)),
        policy=draw(st.sampled_from([*POLICIES])) if level > 1 else "",
        attempts=draw(st.integers(0, 3)),
        fails=draw(st.sampled_from([0, 0, 1, 2, 3])),
        fatal=draw(st.sampled_from([False, False, False, False, True])),
        delay=draw(st.sampled_from([0, 0, 0, 0, 15])),
        priority=draw(st.integers(0, 2)),
        goes=draw(st.sampled_from([False, False, False, True])),
        children=tuple(draw(nodes(level + 1)) for _ in range(width)),
    )


@dataclass
class End:
    """How a job ends."""

    state: str
    attempts_made: int
    reason: str | None = None
    result: str | None = None
    processed: frozenset[str] = frozenset()
    ignored: frozenset[tuple[str, str]] = frozenset()
    failed: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()


def named(node: Node, name: str) -> Iterator[tuple[str, Node]]:
    """Each job with its id, children before their parent."""
    for n, child in enumerate(node.children):
        yield from named(child, f"{name}.{n}")
    yield name, node


def expected(node: Node, name: str, ends: dict[str, End]) -> None:
    """How a tree ends, into ``ends`` by ids."""
    of: dict[str, set[Any]] = {"processed": set(), "ignored": set(), "fails": set(), "forgotten": set(), "": set()}
    for n, child in enumerate(node.children):
        child_id = f"{name}.{n}"
        expected(child, child_id, ends)
        end, key = ends[child_id], f"{child.queue}:{child_id}"
        if end.state == "completed":
            of["processed"].add(key)
        elif end.state == "failed":
            # One that goes lets its parent go where nothing else is said.
            kind = POLICIES[child.policy] or ("forgotten" if child.goes else "")
            of[kind].add((key, str(end.reason)) if kind == "ignored" else key)
        else:
            of[""].add(key)
    end = ends[name] = End(
        "waiting-children", 0, processed=frozenset(of["processed"]), ignored=frozenset(of["ignored"]),
        failed=frozenset(of["fails"]), pending=frozenset(of[""]),
    )  # fmt: skip
    tries = max(1, node.attempts)
    if end.failed:
        end.state, end.attempts_made, end.reason = "failed", 1, "of a child"
    elif end.pending:
        return
    elif node.fatal:
        end.state, end.attempts_made, end.reason = "failed", 1, f"{name} is fatal"
    elif node.fails >= tries:
        end.state, end.attempts_made, end.reason = "failed", tries, f"{name} failed {tries} times"
    else:
        end.state, end.attempts_made, end.result = "completed", node.fails + 1, f"result of {name}"


def wanted_of(trees: dict[str, Node]) -> tuple[dict[str, End | None], dict[str, End]]:
    """How the jobs of trees are found at the end, by their ids, and how they ended."""
    ends: dict[str, End] = {}
    for name, node in trees.items():
        expected(node, name, ends)
    jobs = [job for name, node in trees.items() for job in named(node, name)]
    found = {
        name: None if node.goes and ends[name].state in ("completed", "failed") else ends[name] for name, node in jobs
    }
    return found, ends


class Fleet:
    """Workers on both queues under a prefix of their own, and who adds the trees."""

    def __init__(self, name: str, bench: Bench, kinds: list[type[Side]]) -> None:
        self.name = name
        self.prefix = f"{bench.prefix}:{name}"
        self._redis = bench.redis
        self._sides: list[Side] = []
        for kind, queue in itertools.product(kinds, QUEUES):
            first = (bench.peer,) if kind is NodeSide else ()
            self._sides.append(kind(*first, bench.url, self.prefix, queue))  # type: ignore[call-arg]
        self._producers = itertools.cycle(self._sides[:: len(QUEUES)])

    async def start(self) -> Self:
        """Starts the workers."""
        for side in self._sides:
            await side.start()
            await side.worker("tree", concurrency=3)
        return self

    async def close(self) -> None:
        """Ends them."""
        for side in self._sides:
            await side.close()

    async def run(self, trees: dict[str, Node]) -> dict[str, End | None]:
        """Adds trees by their ids, waits until nothing more happens, and says how all their jobs ended.

        None stands for a job that is gone.
        """
        await next(self._producers).add_flows(*(_tree(node, name) for name, node in trees.items()), bulk=True)
        await aeventually(self._is_quiet, 60, f"the {self.name} workers are done")
        jobs = [job for name, node in trees.items() for job in named(node, name)]
        return {name: self._end_of(name, node.queue) for name, node in jobs}

    def _key(self, queue: str, suffix: str) -> str:
        return f"{self.prefix}:{queue}:{suffix}"

    def _is_quiet(self) -> bool:
        # At one moment: no job goes from one queue to the other unseen.
        return self._redis.exists(*(self._key(queue, name) for queue in QUEUES for name in _QUIET)) == 0

    def _end_of(self, name: str, queue: str) -> End | None:
        key, short = self._key(queue, name), f"{self.prefix}:"
        ends = ("completed", "failed", "waiting-children")
        states = [one for one in ends if self._redis.zscore(self._key(queue, one), name) is not None]
        if not states:
            parts = ("dependencies", "processed", "failed", "unsuccessful", "lock")
            assert self._redis.exists(key, *(f"{key}:{part}" for part in parts)) == 0
            return None
        (state,) = states
        stored: dict[str, str] = self._redis.hgetall(key)  # type: ignore[assignment]
        assert "defa" not in stored
        reason = stored.get("failedReason") if state == "failed" else None
        if reason is not None and reason.startswith(_BY_CHILD):
            reason = "of a child"
        processed: dict[str, str] = self._redis.hgetall(f"{key}:processed")  # type: ignore[assignment]
        ignored: dict[str, str] = self._redis.hgetall(f"{key}:failed")  # type: ignore[assignment]
        for child, result in processed.items():
            assert json.loads(result) == f"result of {child.rpartition(':')[2]}"
        return End(
            state,
            int(stored.get("atm", 0)),
            reason,
            json.loads(stored["returnvalue"]) if "returnvalue" in stored else None,
            frozenset(child.removeprefix(short) for child in processed),
            frozenset((child.removeprefix(short), _own(why)) for child, why in ignored.items()),
            frozenset(str(child).removeprefix(short) for child in self._redis.zrange(f"{key}:unsuccessful", 0, -1)),
            frozenset(str(child).removeprefix(short) for child in self._redis.smembers(f"{key}:dependencies")),
        )


def _own(reason: str) -> str:
    return "of a child" if reason.startswith(_BY_CHILD) else reason


def _tree(node: Node, name: str) -> Tree:
    numbers = {"attempts": node.attempts, "delay": node.delay, "priority": node.priority}
    options = {"job_id": name, **numbers, **({node.policy: True} if node.policy else {})}
    if node.goes:
        options |= {"remove_on_complete": True, "remove_on_fail": True}
    data = {"fails": node.fails, "fatal": node.fatal, "ms": node.ms}
    children = tuple(_tree(child, f"{name}.{n}") for n, child in enumerate(node.children))
    return Tree("tree", node.queue, children, data=data, options=options)


FLEETS: Final[dict[str, list[type[Side]]]] = {
    "node": [NodeSide],
    "toromq": [OurSide],
    "sync": [OurBlockingSide],
    "mixed": [NodeSide, OurSide],
}


@pytest.mark.timeout(3600)
def test_random_trees_end_the_same_whoever_runs_them(bench: Bench, profile: settings) -> None:
    """Fails with the smallest forest that ends otherwise somewhere."""
    seen: Counter[str] = Counter()
    numbers = itertools.count()

    async def ends(fleets: list[Fleet], trees: dict[str, Node]) -> list[dict[str, End | None]]:
        return await asyncio.gather(*(fleet.run(trees) for fleet in fleets))

    async def started() -> list[Fleet]:
        return [await Fleet(name, bench, kinds).start() for name, kinds in FLEETS.items()]

    fleets = bench.run(started())

    @settings(profile)
    @given(st.lists(nodes(), min_size=1, max_size=4))
    def check(forest: list[Node]) -> None:
        trees = {f"t{next(numbers)}": node for node in forest}
        wanted, ends_of = wanted_of(trees)
        for fleet, found in zip(fleets, bench.run(ends(fleets, trees)), strict=True):
            differ = {name: (wanted[name], found[name]) for name in wanted if wanted[name] != found[name]}
            assert differ == {}, f"expected and found of the {fleet.name} workers"
            bench.steps[fleet.name] += len(found)
        for name, node in (job for tree in trees.items() for job in named(tree[1], tree[0])):
            seen[ends_of[name].state] += 1
            if wanted[name] is None:
                seen["gone"] += 1
            if ends_of[name].state == "failed":
                seen[node.policy or "no policy"] += 1
        bench.examples += 1
        bench.run_by_workers += len(wanted) * len(fleets)

    try:
        check()
    finally:
        bench.run(closed(fleets))
    bench.operations.update(seen)
    # Fewer would mean that this does not see what it is for.
    wanted_of_them = ("completed", "failed", "waiting-children", "gone", *filter(None, POLICIES))
    assert all(seen[name] >= 5 for name in wanted_of_them), seen


async def closed(fleets: list[Fleet]) -> None:
    for fleet in fleets:
        await fleet.close()


def test_the_model_of_a_tree() -> None:
    """What the reference does with a tree, in small."""
    leaf = Node("left", "", 2, 1, fatal=False, delay=0, priority=0)
    bad = Node("right", "fail_parent_on_failure", 0, 1, fatal=False, delay=0, priority=0)
    ends: dict[str, End] = {}
    expected(Node("left", "", 1, 0, fatal=False, delay=0, priority=0, children=(leaf, bad)), "r", ends)
    assert ends["r.0"] == End("completed", 2, result="result of r.0")
    assert ends["r.1"] == End("failed", 1, "r.1 failed 1 times")
    assert ends["r"] == End(
        "failed", 1, "of a child", processed=frozenset({"left:r.0"}), failed=frozenset({"right:r.1"})
    )
