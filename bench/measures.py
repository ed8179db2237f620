"""What is done for each row, and what is checked while it is done."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peer import PEERS
from bench.server import Bench, check

CONCURRENCY = 100
SLEEPERS = 500
BULK = 1_000
FAMILY = 1_000
QUEUES = 4
PRIORITIES = 10
# Each idle job comes long after the one before it has ended.
_EVERY_S = 0.02
_SETTLE_S = 0.3

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
    one: int = 5_000
    large: int = 5_000
    sleep: int = 20_000
    retries: int = 10_000
    cpu: int = 10_000
    idle: int = 100
    events: int = 100_000
    family: int = FAMILY
    beneath: int = 5_000
    delayed: int = 20_000
    #: All delayed jobs are there before the first is due.
    lead_ms: int = 2_000
    over_ms: int = 5_000
    limit: int = 5_000
    windows: int = 3
    #: Twice as long as any worker waits before it looks by itself.
    idle_s: float = 20


QUICK = Sizes(
    add=200,
    add_50=500,
    bulk=2_000,
    backlog=5_000,
    one=500,
    large=500,
    sleep=2_000,
    retries=1_000,
    cpu=1_000,
    idle=20,
    events=8_000,
    beneath=1_000,
    delayed=1_000,
    over_ms=500,
    limit=500,
    windows=1,
    idle_s=2,
)


def _rates(jobs: int, seconds: float, process_cpu: float, spent: Figures) -> Figures:
    return {"jobs": jobs, "seconds": seconds, "rate": jobs / seconds, "process_us": process_cpu / jobs * 1e6, **spent}


def add(
    bench: Bench, name: str, sizes: Sizes, *, row: str, at_once: int = 1, size: int = 1, face: str = "async"
) -> Figures:
    """Add jobs; every one of them has an id of its own and waits afterwards."""
    place, jobs = bench.fresh(), int(getattr(sizes, row))
    meter = bench.meter()
    answer = bench.producer(name).ask("add", jobs=jobs, at_once=at_once, size=size, face=face, **place)
    spent = meter.read(jobs)
    # One more than timed: the first one connects.
    check(len(set(answer["ids"])) == len(answer["ids"]) == jobs + 1, f"{name}, {row}: ids are missing or not unique")
    check(_waiting(bench, name, place) == jobs + 1, f"{name}, {row}: not every job waits")
    return _rates(jobs, answer["seconds"], answer["cpu"], spent)


def drain(
    bench: Bench,
    name: str,
    sizes: Sizes,
    *,
    row: str = "backlog",
    kind: str = "async",
    task: str = "noop",
    concurrency: int = CONCURRENCY,
    queues: int = 1,
    processes: int = 1,
    **added_with: Any,
) -> Figures:
    """Run a backlog, from the start of the first job until all are completed in Redis; each runs exactly once."""
    bench.settle()
    names = [bench.name() for _ in range(queues)]
    jobs = max(1, int(getattr(sizes, row) * PEERS[name].backlog) // queues)
    # The size of a bulk divides the jobs: nothing is left over.
    size = _bulk(name, jobs)
    added = [
        job_id
        for queue in names
        for job_id in bench.producer(name).ask(
            "add", url=bench.url, queue=queue, jobs=jobs // size * size, size=size, **added_with
        )["ids"]
    ]
    bench.active = 0
    meter, asked = bench.meter(), time.monotonic()
    workers = [bench.worker(name, number + 1) for number in range(processes)]
    for worker in workers:
        worker.ask("start", url=bench.url, queues=names, concurrency=concurrency, kind=kind, task=task)
    end = bench.completion(name, len(added), *names)
    spent = meter.read(len(added))
    answers = [worker.ask("stop") for worker in workers]
    ran = [job_id for answer in answers for job_id in answer["ids"]]
    # Each queue counts its own jobs from 1.
    check(Counter(ran) == _times(added, 2 if task == "retry" else 1), f"{name}: a job did not run exactly once")
    _check_left(bench, name, names, len(added))
    most = concurrency * processes
    check(bench.active <= most, f"{name}: {bench.active} jobs were active at once, of at most {most}")
    check(concurrency * processes * queues > 1 or ran == added, f"{name}: the first that came was not the first to run")
    begun = min(min(answer["times"]) for answer in answers if answer["times"])
    check(asked < begun < end, f"{name}: its clock is not the benchmark's")
    rates = _rates(len(added), end - begun, sum(answer["cpu"] for answer in answers), spent)
    return rates if PEERS[name].foreign else {**rates, "active": bench.active}


def idle(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """Add to an idle queue in one process, see the processor start in another; each job runs exactly once."""
    place = bench.fresh()
    bench.worker(name).ask("start", url=place["url"], queues=[place["queue"]], concurrency=CONCURRENCY)
    time.sleep(_SETTLE_S)
    added = bench.producer(name).ask("add", jobs=sizes.idle, every=_EVERY_S, **place)
    bench.completion(name, len(added["ids"]), place["queue"])
    began = bench.worker(name).ask("stop")
    check(Counter(began["ids"]) == _times(added["ids"]), f"{name}: a job did not run exactly once")
    _check_left(bench, name, [place["queue"]], len(added["ids"]))
    start = dict(zip(began["ids"], began["times"], strict=True))
    calls = zip(added["ids"][1:], added["times"], strict=True)
    waits = [(start[job_id] - called) * 1e3 for job_id, called in calls]
    return {**_percentiles(waits), "jobs": len(waits)}


def events(bench: Bench, name: str, sizes: Sizes, *, kind: str) -> Figures:
    """Read the events of jobs that were added, begun and completed, from the first to the last; none may be missed."""
    place = bench.fresh()
    jobs = sizes.events // 4
    for first in range(0, jobs, BULK):
        bench.client.eval(_EVENTS, 1, f"bull:{place['queue']}:events", first, min(first + BULK, jobs) - 1)
    meter = bench.meter()
    answer = bench.worker(name).ask("listen", kind=kind, jobs=jobs, **place)
    spent = meter.read(4 * jobs)
    check(answer["heard"] == jobs, f"{name}: heard of {answer['heard']} jobs of {jobs}")
    return _rates(4 * jobs, answer["seconds"], answer["cpu"], spent)


def flow(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """Add a parent with its children, with nobody there; then again, with a worker, until the parent is completed."""
    place = bench.fresh()
    alone = bench.producer(name).ask("flow", children=sizes.family, **place)
    check(len(set(alone["ids"])) == sizes.family + 1, f"{name}: ids of a flow are missing or not unique")
    check(bench.counts(place["queue"]) == [sizes.family + 1, 0, 0, 0], f"{name}: not all of a flow waits")
    place = bench.fresh()
    bench.worker(name).ask("start", url=place["url"], queues=[place["queue"]], concurrency=CONCURRENCY)
    time.sleep(_SETTLE_S)
    added = bench.producer(name).ask("flow", children=sizes.family, **place)
    end = bench.completion(name, sizes.family + 1, place["queue"])
    began = bench.worker(name).ask("stop")
    check(Counter(began["ids"]) == _times(added["ids"]), f"{name}: a job did not run exactly once")
    check(began["ids"][-1] == added["ids"][0], f"{name}: the parent was not the last to run")
    _check_left(bench, name, [place["queue"]], sizes.family + 1)
    return {"add": alone["seconds"] * 1e3, "end to end": (end - added["called"]) * 1e3}


def backlog(bench: Bench, name: str, sizes: Sizes, *, waiting: int) -> Figures:
    """Drain the top of a backlog that still holds `waiting` jobs at the end; the first come first."""
    place, top = bench.fresh(), int(sizes.beneath * PEERS[name].backlog)
    before = int(bench.client.info("memory")["used_memory"])
    jobs = waiting + top - 1
    size = _bulk(name, jobs)
    added = bench.producer(name).ask("add", jobs=jobs // size * size, size=size, **place)["ids"]
    jobs = jobs % size
    if jobs:
        added += bench.producer(name).ask("add", jobs=jobs, size=1, **place)["ids"]
    stored = int(bench.client.info("memory")["used_memory"]) - before
    meter = bench.meter()
    bench.worker(name).ask("start", url=place["url"], queues=[place["queue"]], concurrency=CONCURRENCY)
    bench.completion(name, top, place["queue"])
    spent = meter.read(bench.counts(place["queue"])[2])
    began = bench.worker(name).ask("stop")
    ran = began["ids"]
    # They are fetched in order; which of those that run together begins first is up to the worker.
    check(Counter(ran) == _times(added[: len(ran)]), f"{name}: a job ran twice, or before an older one")
    left, active, completed, failed = bench.counts(place["queue"])
    # `bullmq` often does not come to the end of its close(), and leaves what ran meanwhile where it is.
    check(name == "bullmq" or active == 0, f"{name}: its close left active jobs")
    check(failed == 0 and left + active + completed == len(added), f"{name}: jobs are lost or have failed")
    check(completed + active >= len(ran) >= completed, f"{name}: {completed} jobs are completed, {len(ran)} ran")
    process_us = began["cpu"] / len(ran) * 1e6
    return {
        "cost": process_us + spent["server_us"],
        "memory": stored / len(added),
        "process_us": process_us,
        **spent,
    }


def delayed(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """Jobs that are due at even distances: how much later than that they begin."""
    place, jobs = bench.fresh(), int(sizes.delayed * PEERS[name].backlog)
    size = _bulk(name, jobs)
    bench.worker(name).ask("start", url=place["url"], queues=[place["queue"]], concurrency=CONCURRENCY)
    added = bench.producer(name).ask(
        "add", jobs=jobs, size=size, delays=[sizes.lead_ms, sizes.over_ms / jobs], **place
    )["ids"]
    check(len(added) == jobs + 1, f"{name}: not every delayed job was added")
    due = _due(bench, place["queue"], added)
    bench.completion(name, len(added), place["queue"])
    began = bench.worker(name).ask("stop")
    check(Counter(began["ids"]) == _times(added), f"{name}: a delayed job did not run exactly once")
    _check_left(bench, name, [place["queue"]], len(added))
    wall = time.time() - time.monotonic()
    start = dict(zip(began["ids"], began["times"], strict=True))
    late = [(start[job_id] + wall) * 1e3 - moment for job_id, moment in due.items()]
    # The stored times are whole milliseconds, rounded as each library likes.
    return {**_percentiles(late), "early": sum(wait < -1 for wait in late), "jobs": len(late)}


def limited(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """A worker that may begin so many jobs a second: what it begins, in per cent of that, and what that costs."""
    place, jobs = bench.fresh(), sizes.limit * sizes.windows
    added = bench.producer(name).ask("add", jobs=jobs, size=_bulk(name, jobs), **place)["ids"]
    meter = bench.meter()
    bench.worker(name).ask(
        "start", url=place["url"], queues=[place["queue"]], concurrency=CONCURRENCY, limit=[sizes.limit, 1_000]
    )
    bench.completion(name, len(added), place["queue"])
    spent = meter.read(len(added))
    began = bench.worker(name).ask("stop")
    check(Counter(began["ids"]) == _times(added), f"{name}: a job did not run exactly once")
    _check_left(bench, name, [place["queue"]], len(added))
    # The first job after the last whole window began when that one ended.
    times = sorted(began["times"])
    seconds = times[jobs] - times[0]
    # All keep to the same rate; what they differ in is the cost.
    process_us = began["cpu"] / len(added) * 1e6
    return {"allowed": jobs / seconds / sizes.limit * 100, "jobs": jobs, "process_us": process_us, **spent}


def idle_worker(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """A worker of a queue that nobody uses, in a process of its own: what it asks of the server and of the machine."""
    # On a server of its own: workers of `bullmq` whose close() never returned were seen to ask the other one for more,
    # twenty times a second.
    with contextlib.closing(bench.alone(name)) as own:
        worker = own.worker(name)
        worker.ask("start", url=own.url, queues=[own.name()], concurrency=CONCURRENCY)
        time.sleep(_SETTLE_S * 3)
        meter, cpu, begun = own.meter(), _cpu_of(worker.pid), time.monotonic()
        time.sleep(sizes.idle_s)
        # One job, so that what is read is what was done.
        spent, cpu, seconds = meter.read(1), _cpu_of(worker.pid) - cpu, time.monotonic() - begun
        memory = _pss(worker.pid)
        worker.ask("stop")
    return {"commands": spent["commands"] / seconds, "CPU": cpu / seconds * 100, "PSS": memory / 2**20}


def first_add(bench: Bench, name: str, sizes: Sizes) -> Figures:
    """A new process that imports the library and adds one job."""
    place, command = bench.fresh(), PEERS[name].fresh
    assert command is not None
    done = subprocess.run(
        [*command(), place["url"], place["queue"]],
        # What was installed was compiled then; what is imported from a source tree is compiled at its first import.
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    check(done.returncode == 0, f"{name}: its first add failed: {done.stderr[-1000:]}")
    answer = json.loads(done.stdout)
    check(bench.counts(place["queue"]) == [1, 0, 0, 0], f"{name}: the first job does not wait")
    check(name != "toromq" or answer["threads"] == 1, f"{name}: importing it starts threads")
    return {"import": answer["import"] * 1e3, "first add": answer["added"] * 1e3}


def _bulk(name: str, jobs: int) -> int:
    return min(BULK, jobs) if PEERS[name].runs("bulk") else 1


def _waiting(bench: Bench, name: str, place: dict[str, str]) -> int:
    if PEERS[name].foreign:
        return int(bench.producer(name).ask("left", **place)["left"])
    waiting, *others = bench.counts(place["queue"])
    return waiting if not any(others) else -1


def _times(ids: list[str], times: int = 1) -> Counter[str]:
    return Counter({job_id: count * times for job_id, count in Counter(ids).items()})


def _check_left(bench: Bench, name: str, queues: list[str], completed: int) -> None:
    if PEERS[name].foreign:
        left = sum(bench.producer(name).ask("left", url=bench.url, queue=queue)["left"] for queue in queues)
        check(left == 0, f"{name}: {left} jobs are left")
        return
    counts = [sum(state) for state in zip(*map(bench.counts, queues), strict=True)]
    check(counts == [0, 0, completed, 0], f"{name}: {counts} wait, are active, completed, failed, of {completed}")


def _due(bench: Bench, queue: str, ids: list[str]) -> dict[str, float]:
    pipe = bench.client.pipeline(transaction=False)
    for job_id in ids[1:]:
        pipe.hmget(f"bull:{queue}:{job_id}", "timestamp", "opts")
    stored = zip(ids[1:], pipe.execute(), strict=True)
    return {job_id: int(timestamp) + float(json.loads(opts)["delay"]) for job_id, (timestamp, opts) in stored}


def _percentiles(values: list[float]) -> Figures:
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)]}


def _cpu_of(pid: int) -> float:
    # Nanoseconds per thread, much finer than the clock ticks of `stat`.
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return float("nan")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def _pss(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if not os.access(rollup, os.R_OK):
        return float("nan")
    lines = rollup.read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
