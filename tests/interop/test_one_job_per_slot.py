"""One job for each time of a job scheduler, never two and never none, whatever happens to the workers.

Thirty schedulers, by interval and by pattern, set up by us and by Node. Five workers of ours in three processes, one
with its clock two seconds fast and one with it two seconds slow, and one of Node; every second or so one or two of the
processes are killed and started again. What happened is read from the events of the queue, whose ids are the server's
time.

Workers do not make jobs for times that are over. So a time may be left out, but only if it was over, by the server's
clock and by that of the worker that made the next job, when it did so; and where the times of a scheduler lie farther
apart than it takes to run all jobs that are due, only because the worker that was to make it was killed before it had.

``TOROMQ_SLOTS_SECONDS`` sets how long it goes on; ``TOROMQ_SLOTS_SEED`` what is random.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis.asyncio

from tests.support import shifted_clock
from tests.support.eventually import aeventually
from tests.support.node_peer import NodePeer, require_node
from toromq import Queue, _native

if TYPE_CHECKING:
    from tests.interop.keys import QueueKeys
    from tests.support.redisbox import RedisBox

_SECONDS: Final = float(os.environ.get("TOROMQ_SLOTS_SECONDS", "20"))
_SEED: Final = int(os.environ.get("TOROMQ_SLOTS_SEED", "4"))
_SKEW_MS: Final = 2000
# How late a job may be because all workers are busy, or starting.
_BUSY_MS: Final = 3000
# What a job takes: long enough that kills meet running jobs, and that no worker can run them all.
_RUN_MS: Final = 200
_OPTIONS: Final[dict[str, Any]] = {"lock_duration": 1000, "stalled_interval": 300, "concurrency": 2, "drain_delay": 0.5}
_PROGRAM: Final = Path(__file__).with_name("our_worker_process.py")

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120 + 3 * _SECONDS)]


@dataclass(frozen=True)
class Scheduler:
    """One scheduler of the test."""

    key: str
    period: int
    every: int | None = None
    offset: int = 0
    pattern: str | None = None
    tz: str = "UTC"

    def between(self, first: int, last: int) -> list[int]:
        """Its times after one of them and before another."""
        if self.every is not None:
            assert (last - first) % self.every == 0, f"{self.key}: {first} and {last} are not of one grid"
            return list(range(first + self.every, last, self.every))
        assert self.pattern is not None
        found: list[int] = []
        while (upcoming := _native.cron_next(self.pattern, self.tz, first, 1, None)[0][0]) < last:
            found.append(first := upcoming)
        assert upcoming == last, f"{self.key}: {last} is not a time of {self.pattern}"
        return found


_SCHEDULERS: Final = tuple(
    [
        Scheduler(f"every-{n}", period, every=period, offset=n * 61)
        for n, period in enumerate((1000, 2000, 3000, 4000, 5000) * 3)
    ]
    + [
        Scheduler(f"pattern-{n}", period * 1000, pattern=f"*/{period} * * * * *", tz=tz)
        for n, (period, tz) in enumerate(
            (period, tz) for tz in ("UTC", "Asia/Kathmandu", "America/St_Johns") for period in (1, 2, 3, 4, 5)
        )
    ]
)


class OurProcess:
    """Workers of ours, started again after each kill."""

    def __init__(self, name: str, settings: dict[str, Any], env: dict[str, str]) -> None:
        self.name = name
        self._settings = {**settings, "options": {**settings["options"], "name": name}}
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when its workers are up."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(_PROGRAM), json.dumps(self._settings), stdout=asyncio.subprocess.PIPE, env=self._env
        )
        assert self._process.stdout is not None
        # Jobs may start before all its workers are up.
        while "ready" not in json.loads(await self._process.stdout.readline()):
            pass
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    async def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while await stdout.readline():
            pass


class NodeProcess:
    """The same with Node."""

    name = "node"

    def __init__(self, redisbox: RedisBox, prefix: str, queue: str) -> None:
        self._where = (redisbox.unix_url, prefix)
        self._queue = queue
        self.peer: NodePeer | None = None

    async def start(self) -> None:
        """Returns when its worker is up."""
        self.peer = await NodePeer.start(*self._where)
        script = {"name": "sleep", "ms": _RUN_MS}
        options = {"lockDuration": 1000, "stalledInterval": 300, "concurrency": 2, "drainDelay": 0.5, "name": self.name}
        await self.peer.worker(self._queue, script, **options)

    async def kill(self) -> None:
        """Ends it at once."""
        if self.peer is not None:
            await asyncio.to_thread(self.peer.kill)


@dataclass
class Story:
    """What the events of the queue tell, job by job, in the order in which it happened."""

    happened: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    latest: dict[str, int] = field(default_factory=dict)

    def take(self, entry_id: str, fields: dict[str, str]) -> None:
        """One entry of the stream."""
        job_id = fields.get("jobId", "")
        at = int(entry_id.split("-")[0])
        self.happened[job_id].append((at, fields["event"]))
        if fields["event"] == "completed":
            scheduler, slot = job_id.removeprefix("repeat:").rsplit(":", 1)
            self.latest[scheduler] = max(self.latest.get(scheduler, 0), int(slot))

    def slots(self) -> dict[str, list[int]]:
        """The times of each scheduler for which there was a job."""
        found: dict[str, list[int]] = defaultdict(list)
        for job_id in self.happened:
            if job_id.startswith("repeat:"):
                scheduler, slot = job_id.removeprefix("repeat:").rsplit(":", 1)
                found[scheduler].append(int(slot))
        return {scheduler: sorted(slots) for scheduler, slots in found.items()}

    def count(self, event: str) -> dict[str, int]:
        """How often it happened to each job to which it did."""
        counts = {job_id: [name for _, name in events].count(event) for job_id, events in self.happened.items()}
        return {job_id: count for job_id, count in counts.items() if count}


async def _listen(url: str, key: str, story: Story) -> None:
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    last = "0-0"
    try:
        while True:
            for _, entries in await client.xread({key: last}, block=500, count=1000):
                for last, fields in entries:
                    story.take(last, fields)
    finally:
        await client.aclose()


async def _set_up(schedulers: tuple[Scheduler, ...], queue: Queue[Any, Any], node: NodePeer, name: str) -> None:
    handle = await node.queue(name)
    for number, scheduler in enumerate(schedulers):
        if number % 2:
            repeat: dict[str, Any] = (
                {"pattern": scheduler.pattern, "tz": scheduler.tz}
                if scheduler.every is None
                else {"every": scheduler.every, "offset": scheduler.offset}
            )
            await node.call(handle, "upsertJobScheduler", scheduler.key, repeat)
        elif scheduler.every is None:
            await queue.upsert_job_scheduler(scheduler.key, pattern=scheduler.pattern, tz=scheduler.tz)
        else:
            await queue.upsert_job_scheduler(scheduler.key, every=scheduler.every, offset=scheduler.offset)


async def test_every_time_has_one_job_however_workers_die_and_clocks_differ(
    redisbox: RedisBox, prefix: str, queue_name: str, keys: QueueKeys, tmp_path: Path
) -> None:
    require_node()
    library = shifted_clock.build(tmp_path)
    settings = {
        "url": redisbox.unix_url, "prefix": prefix, "queue": queue_name, "options": _OPTIONS,
        "script": {"name": "sleep", "ms": _RUN_MS},
    }  # fmt: skip
    node = NodeProcess(redisbox, prefix, queue_name)
    processes: list[OurProcess | NodeProcess] = [
        OurProcess("fast", {**settings, "face": "toromq", "workers": 2}, shifted_clock.environment(library, 2)),
        OurProcess("slow", {**settings, "face": "toromq", "workers": 1}, shifted_clock.environment(library, -2)),
        OurProcess("sync", {**settings, "face": "toromq.sync", "workers": 2}, dict(os.environ)),
        node,
    ]
    story = Story()
    listening = asyncio.create_task(_listen(redisbox.unix_url, keys("events"), story))
    random = Random(_SEED)
    kills = 0
    try:
        await asyncio.gather(*(process.start() for process in processes))
        assert node.peer is not None
        async with Queue(queue_name, connection=redisbox.unix_url, prefix=prefix) as queue:
            await _set_up(_SCHEDULERS, queue, node.peer, queue_name)
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            await asyncio.sleep(random.uniform(0.1, 1.2))
            victims = random.sample(processes, random.choice((1, 1, 1, 2)))
            for process in victims:
                await process.kill()
            kills += len(victims)
            await asyncio.gather(*(process.start() for process in victims))
        # The series go on: of each a job runs whose time is after all this.
        over = time.time_ns() // 1_000_000 + _SKEW_MS
        await aeventually(
            lambda: min(story.latest.get(one.key, 0) for one in _SCHEDULERS) > over, 40, "a later job of each"
        )
        # And what was interrupted has been run again.
        async with Queue(queue_name, connection=redisbox.unix_url, prefix=prefix) as queue:
            await queue.pause()
        await aeventually(lambda: not keys.list("active"), 20, "an end of all running jobs")
    finally:
        for process in processes:
            await process.kill()
    await aeventually(lambda: story.happened and _is_told(story, keys), 10, "all events")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    _check(story, keys, kills)


def _is_told(story: Story, keys: QueueKeys) -> bool:
    completed = story.count("completed")
    return len(completed) == keys.redis.zcard(keys("completed"))


def _check(story: Story, keys: QueueKeys, kills: int) -> None:
    pending = set(keys.list("delayed")) | set(keys.list("wait")) | set(keys.list("active"))
    made = {job_id for job_id in story.happened if job_id.startswith("repeat:")}
    assert set(story.count("added").values()) == {1}
    assert set(story.count("completed").values()) == {1}
    assert story.count("failed") == {}
    assert story.count("duplicated") == {}
    assert made == set(story.count("added"))
    # A job is done, or it is the next one of its scheduler.
    undone = made - set(story.count("completed"))
    upcoming = {f"repeat:{key}:{slot}" for key, slot in keys.scores("repeat").items()}
    assert undone == pending == upcoming
    assert keys.scores("repeat").keys() == {one.key for one in _SCHEDULERS}
    records: dict[str, Any] = {job_id: dict(keys.redis.hgetall(keys(job_id))) for job_id in made}
    _check_clocks(story, records)
    reasons = Counter[str]()
    slots = story.slots()
    for scheduler in _SCHEDULERS:
        for first, second in zip(slots[scheduler.key], slots[scheduler.key][1:], strict=False):
            for absent in scheduler.between(first, second):
                reasons[_reason(scheduler, first, second, absent, story, records)] += 1
    stalled = story.count("stalled")
    print(f"{kills} kills, {len(made)} jobs, {len(stalled)} of them interrupted; left out: {dict(reasons) or 'none'}")
    # Else this showed little.
    assert kills >= _SECONDS / 4
    assert len(stalled) >= kills / 5


def _check_clocks(story: Story, records: dict[str, dict[str, Any]]) -> None:
    """Each process has worked, by the clock it was to have."""
    ahead: dict[str, list[int]] = defaultdict(list)
    for job_id, record in records.items():
        active = [at for at, event in story.happened[job_id] if event == "active"]
        if len(active) == 1 and "processedOn" in record:
            ahead[record["pb"]].append(int(record["processedOn"]) - active[0])
    medians = {name: statistics.median(found) for name, found in ahead.items()}
    assert medians == pytest.approx({"fast": 2000, "slow": -2000, "sync": 0, "node": 0}, abs=300)


def _reason(
    scheduler: Scheduler, first: int, second: int, absent: int, story: Story, records: dict[str, dict[str, Any]]
) -> str:
    """Why there was no job for a time between those of two jobs that there were; there must be a reason."""
    before, after = (f"repeat:{scheduler.key}:{slot}" for slot in (first, second))
    what = f"{scheduler.key}: no job for {absent}, between {first} and {second}"
    assert absent <= int(records[after]["timestamp"]), f"{what}: it was still to come by its maker's clock"
    made_at = next(at for at, event in story.happened[after] if event == "added")
    assert absent <= made_at, f"{what}: it was still to come"
    if scheduler.period <= _BUSY_MS:
        return "made late"
    stalled = [at for at, event in story.happened[before] if event == "stalled" and at <= made_at]
    assert stalled, f"{what}: nobody was killed over {before}: {story.happened[before]}, {story.happened[after]}"
    return "its maker was killed"
