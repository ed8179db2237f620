"""arq as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from arq import ArqRedis, Worker, func  # type: ignore[import-not-found]
from redis.asyncio import ConnectionPool

from bench.peers.driver import Close, Driver, Task

# By default it looks for jobs twice a second only, and takes at most one for each slot then.
_POLL_S = 0.01


class Arq(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("arq", "redis", "hiredis")}

    def open(self, url: str, queue: str) -> ArqRedis:
        return ArqRedis(ConnectionPool.from_url(url), default_queue_name=queue)

    async def add(self, queue: ArqRedis, data: Any) -> str:
        number = self.next_id()
        await queue.enqueue_job("process", number, data)
        return number

    async def close(self, queue: ArqRedis) -> None:
        await queue.aclose(close_connection_pool=True)

    async def work(self, url: str, queue: str, task: Task) -> Close:
        async def process(context: Any, number: str, data: Any) -> None:
            task.begin(number)

        worker = Worker(
            [func(process, name="process")],
            queue_name=queue,
            redis_pool=self.open(url, queue),
            max_jobs=task.concurrency,
            poll_delay=_POLL_S,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.async_run())

        async def close() -> None:
            running.cancel()
            await asyncio.wait([running])
            await worker.close()

        return close

    def left(self, url: str, queue: str) -> int:
        async def count() -> int:
            opened = self.open(url, queue)
            left = int(await opened.zcard(queue))
            await self.close(opened)
            return left

        return asyncio.run(count())


asyncio.run(Arq().serve())
