"""The same operation by Node and by us on the same queue: what differs afterwards stands here, and nothing else does.

Items 37, 47 and 48, and more: each operation meets each kind of job that there can be.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import pytest_asyncio

from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurSide
from tests.interop.sides import RefusedError, Side
from tests.interop.zoo import IDS, OLD, SETTINGS, Zoo

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.leaves_keys_broken("a zoo has jobs of all kinds, broken ones as well"),
]

_HOUR = 3_600_000
_LEGACY: Final = ("l1", "l2")


class Known(NamedTuple):
    """A difference that is meant: after which operations, and at which keys; ``answer`` stands for what it replied."""

    operation: str
    keys: str
    reason: str


KNOWN: Final = (
    Known(
        r"change_priority .*priority=5 lifo=True",
        r"S:mail:marker",
        "Node wakes nobody for a job at the front of its priority, and an idle worker sleeps on",
    ),
    Known(
        r"drain .*",
        r"S:mail:wait",
        "Node cuts the list by a count after it passed over the next job of a scheduler: that is lost, an id stays",
    ),
    Known(
        r"clean \(\d+, [02], 'wait'\) ",
        r"answer",
        "Node gives the ids of a list the newest first, we the next to run first",
    ),
    Known(
        r"clean \(\d+, 0, 'wait'\) ",
        r"S:mail:(l1|l2|paused|events)",
        "waiting are for us, as in every count and getter, those as well that an old client put aside",
    ),
    Known(
        r"clean \((\d+, 1, 'active'|3600000, [12], 'delayed'|3600000, 2, 'prioritized')\) ",
        r"answer|S:mail:(a2|active|d\d|delayed|p1:dependencies|pr\d|prioritized|events)",
        "Node looks at as many jobs as the limit allows to delete, we delete as many",
    ),
    Known(
        r"obliterate .*force=True.*",
        r"S:mail:(d[en]:.*|waiting-children|(p\d+|nobody)(:.*)?)",
        "Node leaves windows of deduplication, and parents with children in other queues",
    ),
    Known(r"remove_unprocessed_children .*", r"answer", "Node does not say how many went"),
    Known(
        r"remove_orphaned_jobs .*",
        r"answer|S:mail:nobody:dependencies",
        "Node deletes keys that belong to no job, too; it takes metrics and the like for such",
    ),
)


def unknown(operation: str, found: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """The differences that are not meant; those that are must be there."""
    meant = [one for one in KNOWN if re.fullmatch(one.operation, operation)]
    missing = [one for one in meant if not any(re.fullmatch(one.keys, key) for *_, key in found)]
    assert missing == []
    return {key: pair for key, pair in found.items() if not any(re.fullmatch(one.keys, key[-1]) for one in meant)}


class Twins:
    """The same queue twice: one for us, one for Node."""

    def __init__(self, ours: Side, nodes: Side, zoos: tuple[Zoo, Zoo]) -> None:
        self._sides = (ours, nodes)
        self._zoos = zoos

    async def differences(
        self, operation: Callable[[Side], Awaitable[Any]], settings: dict[str, str]
    ) -> dict[str, tuple[Any, Any]]:
        """What is not the same after it, by key: ours, Node's."""
        now = time.time_ns() // 1_000_000
        pictures: list[dict[str, Any]] = []
        for side, zoo in zip(self._sides, self._zoos, strict=True):
            zoo.fill(settings, now)
            try:
                answer = await operation(side)
            except RefusedError as refusal:
                # Node has a number for what scripts refuse, and none for what it refuses itself.
                answer = f"refused, {refusal.code}" if refusal.code in (-1, -3, -5, -8) else "refused"
            pictures.append({**zoo.picture(now), "answer": answer})
        ours, nodes = pictures
        keys = sorted(ours.keys() | nodes.keys())
        return {key: (ours.get(key), nodes.get(key)) for key in keys if ours.get(key) != nodes.get(key)}


@pytest_asyncio.fixture
async def twins(peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> AsyncIterator[Twins]:
    ours, nodes = Zoo(redis, f"{prefix}:ours"), Zoo(redis, f"{prefix}:node")
    our_side = OurSide(redisbox.unix_url, ours.prefix, "mail")
    await peer.use(redisbox.unix_url, nodes.prefix)
    node_side = await NodeSide(peer, redisbox.unix_url, nodes.prefix, "mail").start()
    yield Twins(our_side, node_side, (ours, nodes))
    await our_side.close()


# --- one job ----------------------------------------------------------------------------------------------------------

_ONE_OF_EACH: Final = (
    *("w1", "w3", "w:x:y", "repeat:s1:1000", "l1", "pr1", "pr3", "d1", "d2", "d3", "repeat:s3:3000", "a1", "a2", "p1"),
    *("p4", "c1", "c3", "f1", "f5", "lost"),
)
_FINISHED: Final = (*(job_id for job_id in IDS if job_id[0] in "cf"), "w1", "d1", "lost")
JOBS: Final[list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[str, ...]]]] = [
    ("remove", (), {}, IDS),
    ("remove", (), {"remove_children": False}, IDS),
    ("retry", (), {}, _FINISHED),
    ("retry", ("completed",), {}, _FINISHED),
    ("retry", ("failed",), {"reset_attempts_made": True}, ("f1", "f5")),
    ("retry", ("completed",), {"reset_attempts_made": True, "reset_attempts_started": True}, ("c1", "c3")),
    ("promote", (), {}, _ONE_OF_EACH),
    ("change_delay", (20 * 60_000,), {}, _ONE_OF_EACH),
    ("change_delay", (0,), {}, ("d1", "d2", "d3")),
    ("change_priority", (), {"priority": 0}, _ONE_OF_EACH),
    ("change_priority", (), {"priority": 0, "lifo": True}, ("w1", "w3", "pr1", "d1", "a1")),
    ("change_priority", (), {"priority": 5}, _ONE_OF_EACH),
    ("change_priority", (), {"priority": 5, "lifo": True}, ("w1", "w3", "pr1", "pr3", "d1", "a1", "c1")),
    ("remove_child_dependency", (), {}, IDS),
    ("remove_unprocessed_children", (), {}, tuple(job_id for job_id in IDS if job_id[0] in "pa")),
    ("clear_logs", (), {}, ("w1", "c1", "p1")),
    ("clear_logs", (1,), {}, ("w1", "c1", "p1")),
]


@pytest.mark.parametrize(("operation", "arguments", "options", "ids"), JOBS, ids=lambda value: str(value)[:40])
async def test_an_operation_of_a_job(
    twins: Twins, operation: str, arguments: tuple[Any, ...], options: dict[str, Any], ids: tuple[str, ...]
) -> None:
    name = f"{operation} {arguments} " + " ".join(f"{option}={value}" for option, value in options.items())
    found: dict[tuple[str, ...], Any] = {}
    for n, job_id in enumerate(ids):
        # Each job in one of the settings, and those of old clients where there are some.
        setting = "paused" if job_id in _LEGACY else list(SETTINGS)[n % 3]

        async def operate(side: Side, job_id: str = job_id) -> Any:
            answer = await side.on_job(job_id, operation, *arguments, **options)
            return None if operation == "remove" else answer

        for key, pair in (await twins.differences(operate, SETTINGS[setting])).items():
            found[job_id, setting, key] = pair
    assert unknown(name, found) == {}


# --- the whole queue --------------------------------------------------------------------------------------------------

_CLEANED: Final = ("wait", "active", "delayed", "prioritized", "completed", "failed", "waiting-children")
QUEUES: Final[list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = [
    ("pause", (), {}),
    ("resume", (), {}),
    ("drain", (), {}),
    ("drain", (True,), {}),
    *(("clean", (grace, limit, state), {}) for state in _CLEANED for grace in (0, _HOUR) for limit in (0, 1, 2)),
    ("obliterate", (), {}),
    ("obliterate", (), {"force": True}),
    ("obliterate", (), {"force": True, "count": 3}),
    ("retry_jobs", (), {}),
    ("retry_jobs", (), {"count": 2, "timestamp": OLD + 3}),
    ("retry_jobs", (), {"state": "completed"}),
    ("promote_jobs", (), {}),
    ("promote_jobs", (), {"count": 1}),
    ("remove", ("never",), {}),
    ("remove", ("a1",), {}),
    ("remove", ("repeat:s1:1000",), {}),
    ("remove", ("repeat:s1:900",), {}),
    ("remove_orphaned_jobs", (), {}),
    ("remove_deprecated_priority_key", (), {}),
    *(("remove_job_scheduler", (scheduler,), {}) for scheduler in ("s1", "s2", "s3", "never")),
    ("get_job_schedulers_count", (), {}),
]


@pytest.mark.parametrize(("operation", "arguments", "options"), QUEUES, ids=lambda value: str(value)[:40])
async def test_an_operation_of_the_queue(
    twins: Twins, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    name = f"{operation} {arguments} " + " ".join(f"{option}={value}" for option, value in options.items())

    async def operate(side: Side) -> Any:
        return await side.call(operation, *arguments, **options)

    found: dict[tuple[str, ...], Any] = {}
    for setting, fields in SETTINGS.items():
        for key, pair in (await twins.differences(operate, fields)).items():
            found[setting, key] = pair
    assert unknown(name, found) == {}


# --- reading ----------------------------------------------------------------------------------------------------------

READS: Final[list[tuple[str, tuple[Any, ...]]]] = [
    *((f"get_{state}", (*page,)) for state in ("waiting", "active", "prioritized", "delayed", "waiting_children",
      "completed", "failed") for page in ((), (1, 2), (2, -1), (0, 0))),
    *(("get_jobs", (types, *page, asc)) for types in (["wait"], ["completed", "failed"], ["delayed", "active", "wait"])
      for page in ((0, -1), (0, 1), (1, 3)) for asc in (True, False)),
    *(("get_ranges", (types, *page, asc)) for types in (["wait"], ["completed", "failed"]) for page in ((0, -1), (1, 2))
      for asc in (True, False)),
    ("get_job_counts", ()),
    ("get_job_counts", ("failed", "delayed")),
    ("get_job_count_by_types", ("failed", "completed", "wait")),
    *((f"get_{state}_count", ()) for state in ("waiting", "active", "prioritized", "delayed", "waiting_children",
      "completed", "failed")),
    ("count", ()),
    ("get_counts_per_priority", ([0, 5, 7, 9],)),
    ("is_paused", ()),
    ("get_version", ()),
    *(("get_job_logs", ("w1", *page)) for page in ((), (0, 1), (1, -1), (0, 0, False), (0, -1, False), (5, 9))),
    *(("get_job_state", (job_id,)) for job_id in IDS),
]  # fmt: skip


def plain(answer: Any) -> Any:
    """An answer without what tells the sides apart: a list of jobs is one of their ids."""
    if isinstance(answer, list):
        return [getattr(item, "id", None) or (item["id"] if isinstance(item, dict) else item) for item in answer]
    if isinstance(answer, dict):
        return {str(name): value for name, value in answer.items()}
    return answer


@pytest.mark.parametrize("setting", SETTINGS)
async def test_what_is_read(
    ours: OurSide, node: NodeSide, redis: redis_py.Redis, prefix: str, redisbox: RedisBox, setting: str
) -> None:
    zoo = Zoo(redis, prefix)
    zoo.fill(SETTINGS[setting], time.time_ns() // 1_000_000)
    # What an old client put aside waits for us, and is in no state for Node, which no longer writes it.
    redis.delete(*(zoo.key(suffix) for suffix in ("paused", *_LEGACY)))
    before = zoo.picture(0)
    found: dict[tuple[str, ...], Any] = {}
    for operation, arguments in READS:
        pair = plain(await ours.call(operation, *arguments)), plain(await node.call(operation, *arguments))
        if pair[0] != pair[1]:
            found[operation, str(arguments)] = pair
    for job_id in IDS:
        pair = await ours.view(job_id), await node.view(job_id)
        if pair[0] != pair[1]:
            found["view", job_id] = pair
    for job_id in ("p1", "p7", "p13", "w1"):
        for operation in ("get_dependencies_count", "get_children_values", "get_ignored_children_failures"):
            pair = await ours.on_job(job_id, operation), await node.on_job(job_id, operation)
            if pair[0] != pair[1]:
                found[operation, job_id] = pair
    assert found == {}
    assert zoo.picture(0) == before
