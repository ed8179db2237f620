"""saq as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from saq import Queue, Worker  # type: ignore[import-not-found]

from bench.peers.driver import Close, Driver, Task


class Saq(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("saq", "redis", "hiredis")}

    def open(self, url: str, queue: str) -> Queue:
        return Queue.from_url(url, name=queue)

    async def add(self, queue: Queue, data: Any) -> str:
        number = self.next_id()
        await queue.enqueue("process", number=number, data=data)
        return number

    async def close(self, queue: Queue) -> None:
        await queue.disconnect()

    async def work(self, url: str, queue: str, task: Task) -> Close:
        async def process(context: Any, *, number: str, data: Any) -> None:
            task.begin(number)

        worker = Worker(self.open(url, queue), [("process", process)], concurrency=task.concurrency)
        running = asyncio.create_task(worker.start())

        async def close() -> None:
            await worker.stop()
            await asyncio.wait([running])

        return close

    def left(self, url: str, queue: str) -> int:
        async def count() -> int:
            opened = self.open(url, queue)
            left = int(await opened.count("incomplete"))
            await opened.disconnect()
            return left

        return asyncio.run(count())


asyncio.run(Saq().serve())
