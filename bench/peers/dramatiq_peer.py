"""dramatiq as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import dramatiq  # type: ignore[import-not-found]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]
from redis import Redis

from bench.peers.driver import Close, Driver, Task, current


class Dramatiq(Driver):
    """The library."""

    blocking = True

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("dramatiq", "redis", "hiredis")}

    def open_sync(self, url: str, queue: str) -> tuple[Any, Any]:
        def process(number: str, data: Any) -> None:
            current().begin(number)

        broker = RedisBroker(url=url)
        return broker, dramatiq.actor(process, actor_name="process", queue_name=queue, broker=broker)

    def add_sync(self, queue: tuple[Any, Any], data: Any) -> str:
        number = self.next_id()
        queue[1].send(number, data)
        return number

    def close_sync(self, queue: tuple[Any, Any]) -> None:
        queue[0].close()

    async def work(self, url: str, queue: str, task: Task) -> Close:
        broker, _ = self.open_sync(url, queue)
        worker = dramatiq.Worker(broker, worker_threads=task.threads)
        worker.start()

        async def close() -> None:
            await asyncio.to_thread(worker.stop)
            broker.close()

        return close

    def left(self, url: str, queue: str) -> int:
        with Redis.from_url(url) as client:
            # A job's message stays there until it is acknowledged.
            return int(client.hlen(f"dramatiq:{queue}.msgs"))


asyncio.run(Dramatiq().serve())
