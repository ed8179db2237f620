"""taskiq with taskiq-redis as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from redis import Redis
from taskiq.api import run_receiver_task  # type: ignore[import-not-found]
from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]

from bench.peers.driver import Close, Driver, Task, current


class Taskiq(Driver):
    """The library, with its fastest broker: a job that a worker has taken is gone."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("taskiq", "taskiq-redis", "redis", "hiredis")}

    def open(self, url: str, queue: str) -> tuple[Any, Any]:
        broker = ListQueueBroker(url, queue_name=queue)

        @broker.task(task_name="process")  # type: ignore[untyped-decorator]
        async def process(number: str, data: dict[str, Any]) -> None:
            current().begin(number)

        return broker, process

    async def add(self, queue: tuple[Any, Any], data: Any) -> str:
        number = self.next_id()
        await queue[1].kiq(number, data)
        return number

    async def close(self, queue: tuple[Any, Any]) -> None:
        await queue[0].shutdown()

    async def work(self, url: str, queue: str, task: Task) -> Close:
        broker, _ = self.open(url, queue)
        broker.is_worker_process = True
        await broker.startup()
        running = asyncio.create_task(run_receiver_task(broker, max_async_tasks=task.concurrency))

        async def close() -> None:
            running.cancel()
            await asyncio.wait([running])
            await broker.shutdown()

        return close

    def left(self, url: str, queue: str) -> int:
        with Redis.from_url(url) as client:
            return int(client.llen(queue))


asyncio.run(Taskiq().serve())
