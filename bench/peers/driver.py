"""What the Python peers share: one request per line on stdin, one answer per line on stdout; see ../README.md."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

# About 100 bytes of JSON. node/peer.mjs has the same, and examples/ceiling.rs.
PAYLOAD = {"user": 123456, "email": "somebody@example.com", "template": "welcome", "params": {"lang": "en", "n": 1}}
# About 10 KB, and 1 KB of answer.
LARGE = {"records": [PAYLOAD] * 100}
ANSWER_RECORDS = 10
SLEEP_S = 0.01
# No-op jobs in threads take turns at the interpreter: a hundred threads would be no help.
_THREADS = 16
CPU_S = 50e-6

Options = dict[str, Any]
Close = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        begin: notes the job's id and does what the task wants but sleep and answer: a processor calls it first.
        what: "noop", "data", "sleep", "retry" or "cpu".
        kind: "async", or "def" for a plain function in threads.
        concurrency: how many jobs at once.
        limit: at most so many jobs in so many milliseconds, or None.
    """

    begin: Callable[[str], None]
    what: str
    kind: str
    concurrency: int
    limit: Sequence[int] | None

    @property
    def threads(self) -> int:
        """How many threads to run no-op jobs in, for a peer that has nothing else."""
        return min(self.concurrency, _THREADS)


_current: list[Task] = []


def current() -> Task:
    """The task of the worker that was started last, for peers whose processors are found by their names."""
    return _current[-1]


def process_now(number: str, data: Any) -> None:
    """A processor that is found by its name."""
    current().begin(number)


class Driver:
    """Serves the requests of the benchmark; a peer supplies the methods that raise NotImplementedError.

    A peer that has no async face supplies the blocking methods and sets `blocking`. One whose keys are not BullMQ's
    gives its jobs ids of its own with `next_id`, as an argument that the processor gets, and supplies `left`.
    """

    blocking = False

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._closing: list[Close] = []

    def next_id(self) -> str:
        """An id that no job of this process has."""
        return str(next(self._numbers))

    def versions(self) -> dict[str, str]:
        """The versions of the packages that matter."""
        raise NotImplementedError

    def open(self, url: str, queue: str) -> Any:
        """What `add` and `add_bulk` take."""
        raise NotImplementedError

    async def add(self, queue: Any, data: Any) -> str:
        """Add one job and give its id."""
        raise NotImplementedError

    async def add_bulk(self, queue: Any, jobs: Sequence[tuple[Any, Options]]) -> list[str]:
        """Add many jobs in one call, each with data and options (delay, priority, attempts), and give their ids."""
        raise NotImplementedError

    async def close(self, queue: Any) -> None:
        """Close what `open` gave."""
        await queue.close()

    def open_sync(self, url: str, queue: str) -> Any:
        """What `add_sync` takes, from many threads."""
        raise NotImplementedError

    def add_sync(self, queue: Any, data: Any) -> str:
        """Add one job and give its id."""
        raise NotImplementedError

    def add_bulk_sync(self, queue: Any, count: int, data: Any) -> list[str]:
        """Add many jobs in one call and give their ids."""
        raise NotImplementedError

    def close_sync(self, queue: Any) -> None:
        """Close what `open_sync` gave."""

    async def add_flow(self, url: str, queue: str, children: int) -> dict[str, Any]:
        """Add a parent with children: the time of the call, the seconds it took, the ids with the parent's first."""
        raise NotImplementedError

    async def work(self, url: str, queue: str, task: Task) -> Close:
        """Start a worker; give what closes it."""
        raise NotImplementedError

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Close:
        """Read a queue's events from the oldest on, call `heard` at each job that completed, and stop where it says so;
        `kind` is "listener" or "loop". Gives what closes the reader."""
        raise NotImplementedError

    def left(self, url: str, queue: str) -> int:
        """How many jobs wait or run."""
        raise NotImplementedError

    async def do_hello(self) -> dict[str, Any]:
        """Say what runs here."""
        return {"versions": {**self.versions(), "Python": sys.version.split()[0]}}

    async def do_add(
        self,
        url: str,
        queue: str,
        jobs: int,
        at_once: int = 1,
        size: int = 1,
        every: float = 0,
        face: str = "async",
        data: str = "small",
        delays: Sequence[float] | None = None,
        priorities: int = 0,
        attempts: int = 0,
    ) -> dict[str, Any]:
        """Add jobs from `at_once` coroutines or threads, each with calls that add `size`; note when each was made.

        With `every`, the calls have fixed times, whatever became of those before. `delays` are those of the first job
        and from one to the next, in milliseconds.
        """
        content = LARGE if data == "large" else PAYLOAD

        def options(number: int) -> Options:
            return {
                **({"delay": round(delays[0] + number * delays[1])} if delays else {}),
                **({"priority": 1 + number % priorities} if priorities else {}),
                **({"attempts": attempts} if attempts else {}),
            }

        each = [(content, options(number)) for number in range(jobs)]
        calls = [each[first : first + size] for first in range(0, jobs // size * size, size)]
        plan = [calls[number::at_once] for number in range(at_once)]
        if self.blocking or face == "sync":
            return await asyncio.to_thread(self._add_sync, url, queue, plan, every)
        opened = self.open(url, queue)
        # Untimed: it connects.
        if delays or attempts or priorities:
            ids = await self.add_bulk(opened, [(content, options(0))])
        else:
            ids = [await self.add(opened, content)]
        times: list[float] = []

        async def adder(calls: list[list[tuple[Any, Options]]]) -> None:
            for n, call in enumerate(calls):
                if every:
                    await asyncio.sleep(begun + (n + 1) * every - time.monotonic())
                times.append(time.monotonic())
                ids.extend([await self.add(opened, content)] if size == 1 else await self.add_bulk(opened, call))

        cpu, begun = time.process_time(), time.monotonic()
        if size == 1 and (delays or attempts or priorities):
            raise ValueError("options go with bulks")
        await asyncio.gather(*map(adder, plan))
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        await self.close(opened)
        return {"seconds": seconds, "cpu": cpu, "ids": ids, "times": times}

    def _add_sync(
        self, url: str, queue: str, plan: list[list[list[tuple[Any, Options]]]], every: float
    ) -> dict[str, Any]:
        opened = self.open_sync(url, queue)
        content = next((calls[0][0][0] for calls in plan if calls), PAYLOAD)
        ids = [self.add_sync(opened, content)]
        times: list[float] = []
        errors: list[BaseException] = []

        def adder(calls: list[list[tuple[Any, Options]]]) -> None:
            try:
                for n, call in enumerate(calls):
                    if every:
                        time.sleep(max(0.0, begun + (n + 1) * every - time.monotonic()))
                    times.append(time.monotonic())
                    if len(call) == 1:
                        ids.append(self.add_sync(opened, content))
                    else:
                        ids.extend(self.add_bulk_sync(opened, len(call), content))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=adder, args=(calls,)) for calls in plan]
        cpu, begun = time.process_time(), time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        self.close_sync(opened)
        if errors:
            raise errors[0]
        return {"seconds": seconds, "cpu": cpu, "ids": ids, "times": times}

    async def do_flow(self, url: str, queue: str, children: int) -> dict[str, Any]:
        """Add a parent with its children; a first one, untimed and in a queue of its own, connects."""
        await self.add_flow(url, f"{queue}-before", 1)
        return await self.add_flow(url, queue, children)

    async def do_start(
        self,
        url: str,
        queues: Sequence[str],
        concurrency: int,
        kind: str = "async",
        task: str = "noop",
        limit: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Start a worker for each queue; they note which jobs they began when."""
        ids: list[str] = []
        times: list[float] = []
        seen: set[str] = set()

        def begin(job_id: str) -> None:
            times.append(time.monotonic())
            ids.append(job_id)

        def begin_retry(job_id: str) -> None:
            begin(job_id)
            if job_id not in seen:
                seen.add(job_id)
                raise RuntimeError("the first attempt fails")

        def begin_cpu(job_id: str) -> None:
            begin(job_id)
            end = time.perf_counter() + CPU_S
            while time.perf_counter() < end:
                pass

        begins = {"retry": begin_retry, "cpu": begin_cpu}
        self.ids, self.times, self.cpu = ids, times, time.process_time()
        wanted = Task(begins.get(task, begin), task, kind, concurrency, limit)
        _current.append(wanted)
        self._closing = [await self.work(url, queue, wanted) for queue in queues]
        return {}

    async def do_ended(self, jobs: int) -> dict[str, Any]:
        """Wait until so many jobs have begun, and give the time of the last one."""
        deadline = time.monotonic() + 60
        while len(self.times) < jobs:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.times)} of {jobs} jobs have begun")
            await asyncio.sleep(0.02)
        # What ends the last one is still under way.
        last = max(self.times)
        await asyncio.sleep(0.2)
        return {"time": last + 1e-6}

    async def do_left(self, url: str, queue: str) -> dict[str, Any]:
        """Count what waits or runs."""
        return {"left": await asyncio.to_thread(self.left, url, queue)}

    async def do_stop(self) -> dict[str, Any]:
        """Close the workers and say what they noted."""
        cpu = time.process_time() - self.cpu
        for close in self._closing:
            await close()
        return {"cpu": cpu, "ids": self.ids, "times": self.times}

    async def do_listen(self, url: str, queue: str, kind: str, jobs: int) -> dict[str, Any]:
        """Read the events of so many jobs, and say how long it took."""
        count = 0
        done = asyncio.Event()

        def heard() -> bool:
            nonlocal count
            count += 1
            if count == jobs:
                done.set()
            return count == jobs

        cpu, begun = time.process_time(), time.monotonic()
        close = await self.listen(url, queue, kind, heard)
        await done.wait()
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        await close()
        return {"seconds": seconds, "cpu": cpu, "heard": count}

    async def serve(self) -> None:
        """Answer requests until stdin ends."""
        # Whatever a library prints must not get among the answers.
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            try:
                answer = await getattr(self, f"do_{request.pop('do')}")(**request)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


def answer_to(data: Any) -> dict[str, Any]:
    """What a processor of large data returns: a tenth of it."""
    return {"records": data["records"][:ANSWER_RECORDS]}
