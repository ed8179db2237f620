"""Trees of jobs whose workers are killed again and again end as if nobody had been killed."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide
from tests.interop.sides import DoomedWorker, Side
from tests.property.conftest import PROFILE
from tests.property.test_random_trees import POLICIES, QUEUES, Fleet, Node, named, wanted_of

if TYPE_CHECKING:
    from tests.property.bench import Bench

# Trees in a round, and rounds.
_TREES: Final = 25
_ROUNDS: Final = {"quick": 1, "slow": 12}.get(PROFILE, 1)
_OPTIONS: Final = {"concurrency": 4, "lock_duration": 600, "stalled_interval": 200, "max_stalled_count": 1000}
_FACES: Final[tuple[type[Side], ...]] = (OurSide, OurBlockingSide, NodeSide)


def random_node(rng: random.Random, level: int = 1) -> Node:
    """A tree of up to four levels, with jobs that take a while."""
    width = rng.choice((0, 1, 2, 3)) if level < 4 else 0
    return Node(
        queue=rng.choice(QUEUES),
        policy=rng.choice([*POLICIES]) if level > 1 else "",
        attempts=rng.randint(0, 3),
        fails=rng.choice((0, 0, 0, 1, 2)),
        fatal=rng.random() < 0.05,
        delay=rng.choice((0, 0, 0, 30)),
        priority=rng.randint(0, 2),
        goes=rng.random() < 0.1,
        ms=rng.randint(0, 250),
        children=tuple(random_node(rng, level + 1) for _ in range(width)),
    )


class CrashingFleet(Fleet):
    """Workers in processes of their own, of which one is killed and replaced again and again while jobs run."""

    def __init__(self, bench: Bench, rng: random.Random) -> None:
        super().__init__("crashing", bench, list(_FACES))
        self._rng = rng
        # By queues: each has workers of every implementation.
        self._running: list[list[tuple[Side, DoomedWorker]]] = [[] for _ in QUEUES]
        self._replacing: set[asyncio.Task[None]] = set()
        self.killed = 0

    async def start(self) -> CrashingFleet:
        for side in self._sides:
            await side.start()
        await asyncio.gather(*(self._one_more(side, n % len(QUEUES)) for n, side in enumerate(self._sides)))
        return self

    async def _one_more(self, side: Side, queue: int) -> None:
        self._running[queue].append((side, await side.doomed_worker("tree", **_OPTIONS)))

    async def run(self, trees: dict[str, Node]) -> dict[str, Any]:
        done = asyncio.Event()
        killing = asyncio.create_task(self._kill(done))
        try:
            return await super().run(trees)
        finally:
            # Not cancelled: a wait that ends at that moment would swallow it.
            done.set()
            await asyncio.gather(killing, *self._replacing)

    async def _kill(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))
            queue = self._rng.randrange(len(QUEUES))
            # The last one stays: something must go on while the others are replaced.
            if len(self._running[queue]) < 2 or self._redis.llen(self._key(QUEUES[queue], "active")) == 0:
                continue
            side, worker = self._running[queue].pop(self._rng.randrange(len(self._running[queue])))
            worker.kill()
            self.killed += 1
            task = asyncio.create_task(self._one_more(side, queue))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)


@pytest.mark.timeout(3600)
def test_trees_end_the_same_when_workers_are_killed(bench: Bench) -> None:
    rng = random.Random(4)
    numbers = itertools.count()
    fleet = CrashingFleet(bench, rng)
    recovered = 0
    try:
        bench.run(fleet.start())
        for _ in range(_ROUNDS):
            trees = {f"t{next(numbers)}": random_node(rng) for _ in range(_TREES)}
            wanted, _ = wanted_of(trees)
            found = bench.run(fleet.run(trees))
            differ = [(name, wanted[name], found[name]) for name in wanted if wanted[name] != found[name]]
            assert not differ, f"{len(differ)} jobs, expected and found; the first: {differ[:3]}"
            jobs = [job for name, node in trees.items() for job in named(node, name)]
            keys = [f"{fleet.prefix}:{node.queue}:{name}" for name, node in jobs]
            recovered += sum(bench.redis.hget(key, "stc") is not None for key in keys)
            bench.steps["workers killed"] = fleet.killed
            bench.run_by_workers += len(jobs)
            bench.examples += 1
    finally:
        bench.run(fleet.close())
    # Else nobody was killed while it ran a job.
    assert recovered >= 3
