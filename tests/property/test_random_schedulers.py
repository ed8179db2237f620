"""Random lives of a job scheduler, led by us, by Node, and by all clients in turn: each leaves the same keys.

Where we differ on purpose (docs/wire.md) nothing is done: setting up the same pattern again while its job is due or has
run before its time, and setting up anything in a paused queue.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurBlockingSide, OurSide
from tests.interop.series import DAY, HOUR, Lane, Series
from tests.interop.sides import Side
from tests.support.invariants import check_invariants

if TYPE_CHECKING:
    from tests.property.bench import Bench

_START: Final = 2_067_033_600_000
_WHEN: Final[list[dict[str, Any]]] = [
    {"every": DAY},
    {"every": DAY, "offset": HOUR},
    {"every": 2 * DAY},
    {"every": DAY, "start_date": _START},
    {"every": DAY, "limit": 2},
    {"pattern": "0 0 1 1 *", "tz": "UTC"},
    {"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True},
    {"pattern": "30 2 * * *", "tz": "Europe/Stockholm", "start_date": _START},
]
_MORE: Final[list[dict[str, Any]]] = [
    {},
    {"data": {"a": [1, "é"]}},
    {"name": "other", "opts": {"priority": 2}},
    {"opts": {"lifo": True, "attempts": 2, "backoff": {"type": "fixed", "delay": HOUR}}},
    {"opts": {"remove_on_complete": True}},
]


@dataclass(frozen=True)
class Step:
    """One thing that happens."""

    what: str
    turn: int
    when: int = 0
    more: int = 0


_steps: Final = st.builds(
    Step,
    st.sampled_from(["upsert", "upsert", "upsert", "begin", "begin", "end", "fail", "remove"]),
    st.integers(0, 2),
    st.integers(0, len(_WHEN) - 1),
    st.integers(0, len(_MORE) - 1),
)


class Life:
    """A scheduler in each of the lanes."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._lane = series.lanes[0]

    def _newest(self) -> str | None:
        found = self._lane.keys.scores("repeat")
        return f"repeat:s:{found['s']}" if found else None

    def _waits(self, job_id: str | None) -> bool:
        lists = (self._lane.keys.list(name) for name in ("wait", "prioritized"))
        return any(job_id in ids for ids in lists)

    async def _begin(self, turn: int) -> bool:
        keys, newest = self._lane.keys, self._newest()
        if newest is None:
            return False
        if not self._waits(newest):
            # A job of a pattern that ran before its time would be met again.
            by_pattern = keys.redis.hexists(keys("repeat:s"), "pattern")
            if by_pattern or keys.redis.zscore(keys("delayed"), newest) is None:
                return False
        await self._series.begin(turn)
        return True

    async def step(self, step: Step) -> bool:
        """Whether it could be done."""
        series, keys = self._series, self._lane.keys
        newest = self._newest()
        if step.what == "upsert":
            when = _WHEN[step.when]
            pattern = keys.redis.hget(keys("repeat:s"), "pattern")
            if "pattern" in when and pattern == when["pattern"] and self._waits(newest):
                return False
            await series.upsert(step.turn, **when, **_MORE[step.more])
        elif step.what == "begin":
            return await self._begin(step.turn)
        elif step.what in ("end", "fail"):
            if not self._lane.fetched and not await self._begin(step.turn):
                return False
            await series.end(error="no" if step.what == "fail" else None)
        else:
            await series.call("remove_job_scheduler", "s", turn=step.turn)
        return True


@pytest.mark.timeout(3600)
def test_random_lives_of_a_scheduler_leave_the_same_keys(bench: Bench, profile: settings) -> None:
    """Fails with the shortest life that shows a difference."""
    done: Counter[str] = Counter()
    numbers = itertools.count()

    async def live(steps: list[Step]) -> None:
        prefix = f"{bench.prefix}:s{next(numbers)}"
        lanes: list[Lane] = []
        sides: list[Side] = []
        kinds: dict[str, list[type[Side]]] = {
            "ours": [OurSide], "node": [NodeSide], "mixed": [NodeSide, OurSide, OurBlockingSide]
        }  # fmt: skip
        for name, of_lane in kinds.items():
            own: list[Side] = []
            for kind in of_lane:
                first = (bench.peer,) if kind is NodeSide else ()
                own.append(kind(*first, bench.url, f"{prefix}:{name}", "mail"))  # type: ignore[call-arg]
            lanes.append(Lane(QueueKeys(bench.redis, f"{prefix}:{name}", "mail"), own))
            sides += own
        try:
            for side in sides:
                await side.start()
            life = Life(Series(lanes))
            for step in steps:
                if await life.step(step):
                    done[step.what] += 1
                    bench.steps["all lanes"] += 1
            for lane in lanes:
                assert check_invariants(bench.redis, lane.keys.prefix) == []
        finally:
            for side in sides:
                await side.close()
            await bench.peer.reset()
            for key in list(bench.redis.scan_iter(f"{prefix}:*", count=1000)):
                bench.redis.unlink(key)

    # Lives are short: twice as many as of other things.
    @settings(profile, max_examples=2 * profile.max_examples)
    @given(st.lists(_steps, min_size=4, max_size=20))
    def check(steps: list[Step]) -> None:
        bench.run(live(steps))
        bench.examples += 1

    check()
    bench.operations.update(done)
    # Fewer would mean that this does not see what it is for.
    assert all(done[name] >= 5 for name in ("upsert", "begin", "end", "fail", "remove")), done
