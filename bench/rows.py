"""The rows: what each is called, what it gives, and who measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from bench.measures import (
    BULK,
    CONCURRENCY,
    FAMILY,
    PRIORITIES,
    QUEUES,
    SLEEPERS,
    Figures,
    Sizes,
    add,
    backlog,
    delayed,
    drain,
    events,
    first_add,
    flow,
    idle,
    idle_worker,
    limited,
)
from bench.server import Bench

_LATENCY = {"p50": "ms", "p99": "ms"}


@dataclass(frozen=True)
class Row:
    """One thing that is measured.

    Args:
        title: what the table calls it.
        what: what is done.
        measure: does it once, with one peer.
        figures: those that get a line each, and their units.
        main: whether a plain run takes it; the others need `--all`, or to be named.
        stand_in: peers that repeat the row show what they did in this one.
        warms: whether it makes a process faster; the others mostly wait.
    """

    title: str
    what: str
    measure: Callable[[Bench, str, Sizes], Figures]
    figures: Mapping[str, str] = field(default_factory=lambda: {"rate": "jobs/s"})
    main: bool = True
    stand_in: str = ""
    warms: bool = True


@dataclass(frozen=True)
class Ratio:
    """A figure of the table over another one of the same peer, or of the ceiling."""

    title: str
    over: tuple[str, str]
    under: tuple[str, str]
    of_ceiling: bool = False


ROWS = {
    "add": Row("add, one at a time", "one coroutine awaits add() again and again", partial(add, row="add")),
    "add_sync": Row(
        "add, one at a time, blocking",
        "one thread calls add() again and again; peers with one face show it in both rows, marked =",
        partial(add, row="add", face="sync"),
        stand_in="add",
    ),
    "add_50": Row("add, 50 at once", "50 coroutines of a process do the same", partial(add, row="add_50", at_once=50)),
    "add_50_sync": Row(
        "add, 50 threads",
        "50 threads of a process do the same; peers with one face show it in both rows, marked =",
        partial(add, row="add_50", at_once=50, face="sync"),
        stand_in="add_50",
    ),
    "bulk": Row(
        "add, bulk", f"one coroutine awaits calls that add {BULK:,} jobs each", partial(add, row="bulk", size=BULK)
    ),
    "drain_async": Row(
        "drain, async",
        f"one worker, {CONCURRENCY} jobs at once, runs a backlog of no-op jobs with an async processor",
        partial(drain),
    ),
    "drain_def": Row(
        "drain, plain def",
        "the same with a plain def, run in threads; peers with one kind of processor repeat the row above, marked =",
        partial(drain, kind="def"),
        stand_in="drain_async",
    ),
    "drain_1": Row(
        "drain, concurrency 1",
        "the same with an async processor, one job at a time",
        partial(drain, row="one", concurrency=1),
        main=False,
    ),
    "drain_large": Row(
        "drain, 10 KB in, 1 KB out",
        "the same with an async processor that reads 10 KB of JSON and returns 1 KB",
        partial(drain, row="large", task="data", data="large"),
    ),
    "sleep": Row(
        f"10 ms of sleep, {SLEEPERS} at once",
        f"the same with a processor that sleeps 10 ms, {SLEEPERS} jobs at once",
        partial(drain, row="sleep", task="sleep", concurrency=SLEEPERS),
    ),
    "idle": Row(
        "idle latency",
        "50 jobs a second on an idle queue: from the call of add() in one process to the processor in another",
        idle,
        _LATENCY,
        warms=False,
    ),
    "events": Row(
        "events, listener",
        "one reader goes over the events of jobs, four each, with a no-op listener for one of the four",
        partial(events, kind="listener"),
        {"rate": "events/s"},
    ),
    "events_loop": Row(
        "events, async for",
        "the same with a loop over all of them; peers without one repeat the row above, marked =",
        partial(events, kind="loop"),
        {"rate": "events/s"},
        stand_in="events",
    ),
    "flow": Row(
        f"flow, 1 + {FAMILY:,}",
        "a parent with its children: how long the call takes with nobody there; and with a worker, from the call until "
        "the parent is completed",
        flow,
        {"add": "ms", "end to end": "ms"},
        main=False,
    ),
    "retries": Row(
        "retries",
        "a backlog whose jobs all fail once and then succeed",
        partial(drain, row="retries", task="retry", attempts=2),
        main=False,
    ),
    "priorities": Row(
        "priorities",
        f"a backlog of no-op jobs with {PRIORITIES} priorities in turn",
        partial(drain, priorities=PRIORITIES),
        main=False,
    ),
    "delayed": Row(
        "delayed jobs, lateness",
        "jobs that are due at even distances: how much later each begins; early are those more than 1 ms too early",
        delayed,
        {**_LATENCY, "early": "jobs"},
        main=False,
        warms=False,
    ),
    "limited": Row(
        "rate limit",
        "a worker with a limiter of 5,000 jobs a second: what begins in whole windows, in per cent of that",
        limited,
        {"allowed": "%"},
        main=False,
        warms=False,
    ),
    "queues_4": Row(
        f"drain, {QUEUES} queues",
        f"one process with {QUEUES} workers, one for each of {QUEUES} queues: the total",
        partial(drain, queues=QUEUES),
        main=False,
    ),
    "cpu_1": Row(
        "drain, 50 us of CPU, 1 process",
        "an async processor that computes for 50 us",
        partial(drain, row="cpu", task="cpu"),
        main=False,
    ),
    "cpu_2": Row(
        "drain, 50 us of CPU, 2 processes",
        "the same with a worker in each of two processes",
        partial(drain, row="cpu", task="cpu", processes=2),
        main=False,
    ),
    **{
        f"backlog_{title}": Row(
            f"backlog of {title}",
            f"the top of a backlog is drained that then still holds {waiting:,} jobs: CPU of worker and server per "
            "job, and what a waiting job takes of the server's memory",
            partial(backlog, waiting=waiting),
            {"cost": "us", "memory": "bytes"},
            main=False,
        )
        for title, waiting in (("1k", 1_000), ("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000))
    },
    "idle_worker": Row(
        "idle worker",
        "a worker of a queue that nobody uses, in a process of its own",
        idle_worker,
        {"commands": "1/s", "CPU": "%", "PSS": "MiB"},
        main=False,
        warms=False,
    ),
    "first_add": Row(
        "new process",
        "from the start of the import of Queue until it is done, and until one job is added",
        first_add,
        {"import": "ms", "first add": "ms"},
        main=False,
        warms=False,
    ),
}

#: How many jobs wait in the rows that `--backlog` can leave out.
BACKLOGS = {"backlog_1k": 1_000, "backlog_10k": 10_000, "backlog_100k": 100_000, "backlog_1M": 1_000_000}

#: The scenarios of the benchmark of BullMQ's authors, by their names.
ALIASES = {
    "queue-add": "add",
    "queue-add-bulk": "bulk",
    "worker-generic": "drain_1",
    "worker-concurrent": "drain_async",
}

RATIOS = (
    *(
        Ratio(f"{ROWS[key].title}: of our ceiling", (key, "rate"), (key, "rate"), of_ceiling=True)
        for key in ("add_50", "bulk", "drain_async", "drain_1")
    ),
    Ratio(f"{QUEUES} queues / 1 queue", ("queues_4", "rate"), ("drain_async", "rate")),
    Ratio("2 processes / 1 process", ("cpu_2", "rate"), ("cpu_1", "rate")),
    *(
        Ratio(f"cost per job, backlog of {key[8:]} / 1k", (key, "cost"), ("backlog_1k", "cost"))
        for key in ("backlog_10k", "backlog_100k", "backlog_1M")
    ),
)
