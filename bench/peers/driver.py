"""What the Python peers share: one request per line on stdin, one answer per line on stdout; see ../README.md."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

# About 100 bytes of JSON. node/peer.mjs has the same.
PAYLOAD = {"user": 123456, "email": "somebody@example.com", "template": "welcome", "params": {"lang": "en", "n": 1}}


class Driver:
    """Serves the requests of the benchmark; a peer supplies the first six methods with its library."""

    def versions(self) -> dict[str, str]:
        """The versions of the packages that matter."""
        raise NotImplementedError

    def open(self, url: str, queue: str) -> Any:
        """A queue object with an async `close`."""
        raise NotImplementedError

    async def add(self, queue: Any) -> str:
        """Add one job and give its id."""
        raise NotImplementedError

    async def add_bulk(self, queue: Any, count: int) -> list[str]:
        """Add many jobs in one call and give their ids."""
        raise NotImplementedError

    async def work(
        self, url: str, queue: str, concurrency: int, kind: str, start: Callable[[str], None]
    ) -> Callable[[], Awaitable[None]]:
        """Start a worker whose processor only calls `start` with the job's id; give what closes it."""
        raise NotImplementedError

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
        """Read a queue's events from the oldest on, call `heard` at each job that completed, and stop where it says so;
        `kind` is "listener" or "loop". Gives what closes the reader."""
        raise NotImplementedError

    async def do_hello(self) -> dict[str, Any]:
        """Say what runs here."""
        return {"versions": {**self.versions(), "Python": sys.version.split()[0]}}

    async def do_add(
        self, url: str, queue: str, jobs: int, at_once: int = 1, size: int = 1, every: float = 0
    ) -> dict[str, Any]:
        """Add jobs from `at_once` coroutines, each awaiting calls that add `size`; note when each call was made.

        With `every`, the calls have fixed times, whatever became of those before.
        """
        opened = self.open(url, queue)
        ids = [await self.add(opened)]  # untimed: it connects
        times: list[float] = []

        async def adder() -> None:
            for n in range(jobs // at_once // size):
                if every:
                    await asyncio.sleep(begun + (n + 1) * every - time.monotonic())
                times.append(time.monotonic())
                ids.extend([await self.add(opened)] if size == 1 else await self.add_bulk(opened, size))

        cpu, begun = time.process_time(), time.monotonic()
        await asyncio.gather(*(adder() for _ in range(at_once)))
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        await opened.close()
        return {"seconds": seconds, "cpu": cpu, "ids": ids, "times": times}

    async def do_start(self, url: str, queue: str, concurrency: int, kind: str) -> dict[str, Any]:
        """Start a worker that notes which jobs it began when."""
        ids: list[str] = []
        times: list[float] = []

        def start(job_id: str) -> None:
            times.append(time.monotonic())
            ids.append(job_id)

        self.ids, self.times, self.cpu = ids, times, time.process_time()
        self.close = await self.work(url, queue, concurrency, kind, start)
        return {}

    async def do_stop(self) -> dict[str, Any]:
        """Close the worker and say what it noted."""
        cpu = time.process_time() - self.cpu
        await self.close()
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
