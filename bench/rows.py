"""The rows: what is done, and what is checked while it is done."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.peer import PEERS, Process
from tests.support.redisbox import RedisBox

CONCURRENCY = 100
BULK = 1_000
# Each idle job comes long after the one before it has ended.
_EVERY_S = 0.02
_SETTLE_S = 0.3
_PATIENCE_S = 60.0

Figures = dict[str, float]
# What happens to some jobs.
_EVENTS = """
for job_id = ARGV[1], ARGV[2] do
  local function add(event, ...)
    redis.call('XADD', KEYS[1], '*', 'event', event, 'jobId', job_id, ...)
  end
  add('added', 'name', 'job')
  add('waiting')
  add('active', 'prev', 'waiting')
  add('completed', 'returnvalue', '{"sent":true}', 'prev', 'active')
end
"""


@dataclass(frozen=True)
class Sizes:
    """How many jobs the rows take."""

    add: int = 2_000
    add_50: int = 5_000
    bulk: int = 10_000
    backlog: int = 20_000
    idle: int = 100
    events: int = 100_000


QUICK = Sizes(add=200, add_50=500, bulk=2_000, backlog=5_000, idle=20, events=8_000)


class Bench:
    """One server, and two processes of every peer: one that adds, one that works."""

    def __init__(self, names: list[str], aof: bool) -> None:
        self.aof = aof
        # A rewrite of the file in the middle would fall on whoever is measured then; `fresh` does it in between.
        extra = ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
        self.box = RedisBox(appendonly=aof, extra=extra).start()
        self.client: Any = self.box.client()
        self.producers = {name: Process(PEERS[name]) for name in names}
        self.workers = {name: Process(PEERS[name]) for name in names}
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """End everything."""
        for process in (*self.producers.values(), *self.workers.values()):
            process.close()
        self.box.close()

    def fresh(self) -> dict[str, str]:
        """Empty the server and its file, and give the place of a queue that nobody used."""
        self.client.flushall(asynchronous=False)
        if self.aof:
            self.client.bgrewriteaof()
            while any(self.client.info("persistence")[f"aof_rewrite_{now}"] for now in ("in_progress", "scheduled")):
                time.sleep(0.01)
        return {"url": self.box.url, "queue": f"bench-{next(self._numbers)}"}

    def server_cpu(self) -> float:
        """CPU seconds the server has spent."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def counts(self, queue: str) -> list[int]:
        """How many jobs wait, are active, completed, failed."""
        pipe = self.client.pipeline()
        for state in ("wait", "active"):
            pipe.llen(f"bull:{queue}:{state}")
        for state in ("completed", "failed"):
            pipe.zcard(f"bull:{queue}:{state}")
        return list(pipe.execute())

    def completion(self, queue: str, jobs: int) -> float:
        """Wait until so many jobs are completed in Redis, and give the time at which that was seen.

        It looks rarely at first and every millisecond at the end, so that looking costs the peer next to nothing.
        """
        begun = time.monotonic()
        while (done := self.client.zcard(f"bull:{queue}:completed")) < jobs:
            spent = time.monotonic() - begun
            check(spent < _PATIENCE_S, f"{self.counts(queue)} wait, are active, completed, failed, of {jobs}")
            time.sleep(min(0.05, max(0.001, spent * (jobs - done) / max(done, 1) / 2)))
        return time.monotonic()


def check(fine: bool, otherwise: str) -> None:
    """End the benchmark unless `fine`: the figures of a run that went wrong are worth nothing."""
    if not fine:
        raise SystemExit(f"bench: a check failed: {otherwise}")


def _rates(jobs: int, seconds: float, process_cpu: float, server_cpu: float) -> Figures:
    microseconds = {"process_us": process_cpu / jobs * 1e6, "server_us": server_cpu / jobs * 1e6}
    return {"jobs": jobs, "seconds": seconds, "rate": jobs / seconds, **microseconds}


def add(bench: Bench, name: str, sizes: Sizes, *, row: str, at_once: int = 1, size: int = 1) -> Figures:
    """Add jobs; every one of them has an id of its own and waits afterwards."""
    place, jobs = bench.fresh(), int(getattr(sizes, row))
    server = bench.server_cpu()
    answer = bench.producers[name].ask("add", jobs=jobs, at_once=at_once, size=size, **place)
    server = bench.server_cpu() - server
    # One more than timed: the first one connects.
    check(len(set(answer["ids"])) == len(answer["ids"]) == jobs + 1, f"{name}, {row}: ids are missing or not unique")
    check(bench.counts(place["queue"]) == [jobs + 1, 0, 0, 0], f"{name}, {row}: not every job waits")
    return _rates(jobs, answer["seconds"], answer["cpu"], server)


def drain(bench: Bench, name: str, sizes: Sizes, *, kind: str) -> Figures:
    """Run a backlog, from the start of the first job until all are completed in Redis; each runs exactly once."""
    place, jobs = bench.fresh(), int(sizes.backlog * PEERS[name].backlog)
    added = bench.producers[name].ask("add", jobs=jobs, size=BULK, **place)["ids"]
    server, asked = bench.server_cpu(), time.monotonic()
    bench.workers[name].ask("start", concurrency=CONCURRENCY, kind=kind, **place)
    end = bench.completion(place["queue"], len(added))
    server = bench.server_cpu() - server
    answer = bench.workers[name].ask("stop")
    _check_ran(bench, name, place["queue"], added, answer["ids"])
    begun = min(answer["times"])
    check(asked < begun < end, f"{name}: its clock is not the benchmark's")
    return _rates(len(added), end - begun, answer["cpu"], server)


def idle(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """Add to an idle queue in one process, see the processor start in another; each job runs exactly once."""
    place = bench.fresh()
    bench.workers[name].ask("start", concurrency=CONCURRENCY, kind="async", **place)
    time.sleep(_SETTLE_S)
    added = bench.producers[name].ask("add", jobs=sizes.idle, every=_EVERY_S, **place)
    bench.completion(place["queue"], len(added["ids"]))
    began = bench.workers[name].ask("stop")
    _check_ran(bench, name, place["queue"], added["ids"], began["ids"])
    start = dict(zip(began["ids"], began["times"], strict=True))
    calls = zip(added["ids"][1:], added["times"], strict=True)
    waits = sorted((start[job_id] - called) * 1e3 for job_id, called in calls)
    return {"p50": waits[len(waits) // 2], "p99": waits[int(len(waits) * 0.99)], "jobs": len(waits)}


def events(bench: Bench, name: str, sizes: Sizes, *, kind: str) -> Figures:
    """Read the events of jobs that were added, begun and completed, from the first to the last; none may be missed."""
    place = bench.fresh()
    jobs = sizes.events // 4
    for first in range(0, jobs, BULK):
        bench.client.eval(_EVENTS, 1, f"bull:{place['queue']}:events", first, min(first + BULK, jobs) - 1)
    server = bench.server_cpu()
    answer = bench.workers[name].ask("listen", kind=kind, jobs=jobs, **place)
    server = bench.server_cpu() - server
    check(answer["heard"] == jobs, f"{name}: heard of {answer['heard']} jobs of {jobs}")
    return _rates(4 * jobs, answer["seconds"], answer["cpu"], server)


def _check_ran(bench: Bench, name: str, queue: str, added: list[str], ran: list[str]) -> None:
    check(sorted(ran) == sorted(added), f"{name}: a job did not run exactly once")
    check(bench.counts(queue) == [0, 0, len(added), 0], f"{name}: jobs are left or have failed")


@dataclass(frozen=True)
class Row:
    """One thing that is measured; `figures` get a line each.

    Peers that lack the row show what they did in its `stand_in`.
    """

    title: str
    what: str
    measure: Callable[[Bench, str, Sizes], Figures]
    unit: str = "jobs/s"
    figures: tuple[str, ...] = ("rate",)
    stand_in: str = ""


ROWS = {
    "add": Row("add, one at a time", "one coroutine awaits add() again and again", partial(add, row="add")),
    "add_50": Row("add, 50 at once", "50 coroutines of a process do the same", partial(add, row="add_50", at_once=50)),
    "bulk": Row(
        "add, bulk", "one coroutine awaits calls that add 1,000 jobs each", partial(add, row="bulk", size=BULK)
    ),
    "drain_async": Row(
        "drain, async",
        "one worker, 100 jobs at once, runs a backlog of no-op jobs with an async processor",
        partial(drain, kind="async"),
    ),
    "drain_def": Row(
        "drain, plain def",
        "the same with a plain def, run in threads; peers with one kind of processor repeat the row above, marked =",
        partial(drain, kind="def"),
        stand_in="drain_async",
    ),
    "idle": Row(
        "idle latency",
        "50 jobs a second on an idle queue: from the call of add() in one process to the processor in another",
        idle,
        "ms",
        ("p50", "p99"),
    ),
    "events": Row(
        "events, listener",
        "one reader goes over the events of jobs, four each, with a no-op listener for one of the four",
        partial(events, kind="listener"),
        "events/s",
    ),
    "events_loop": Row(
        "events, async for",
        "the same with a loop over all of them; peers without one repeat the row above, marked =",
        partial(events, kind="loop"),
        "events/s",
        stand_in="events",
    ),
}
