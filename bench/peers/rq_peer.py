"""rq as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker  # type: ignore[import-not-found]
from rq.timeouts import TimerDeathPenalty  # type: ignore[import-not-found]

from bench.peers.driver import Close, Driver, Task

_PROCESS = "bench.peers.driver.process_now"


class InThread(SimpleWorker):  # type: ignore[misc]
    """Its fastest worker, which does not fork; and signals are for main threads only."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        pass


class Rq(Driver):
    """The library. It runs one job at a time."""

    blocking = True

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("rq", "redis", "hiredis")}

    def open_sync(self, url: str, queue: str) -> Queue:
        return Queue(queue, connection=Redis.from_url(url))

    def add_sync(self, queue: Queue, data: Any) -> str:
        number = self.next_id()
        queue.enqueue(_PROCESS, number, data)
        return number

    def add_bulk_sync(self, queue: Queue, count: int, data: Any) -> list[str]:
        numbers = [self.next_id() for _ in range(count)]
        queue.enqueue_many([Queue.prepare_data(_PROCESS, args=[number, data]) for number in numbers])
        return numbers

    async def work(self, url: str, queue: str, task: Task) -> Close:
        worker = InThread([queue], connection=Redis.from_url(url))
        # There is no other way to end it in a thread.
        idle = {"max_idle_time": 2, "logging_level": "WARNING"}
        running = asyncio.create_task(asyncio.to_thread(worker.work, **idle))

        async def close() -> None:
            await running

        return close

    def left(self, url: str, queue: str) -> int:
        opened = self.open_sync(url, queue)
        return int(opened.count) + int(opened.started_job_registry.count)


asyncio.run(Rq().serve())
