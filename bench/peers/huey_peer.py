"""huey as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from huey import RedisHuey  # type: ignore[import-not-found]

from bench.peers.driver import Close, Driver, Task, current


class Huey(Driver):
    """The library."""

    blocking = True

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("huey", "redis", "hiredis")}

    def open_sync(self, url: str, queue: str) -> tuple[Any, Any]:
        opened = RedisHuey(queue, url=url)

        @opened.task(name="process")  # type: ignore[untyped-decorator]
        def process(number: str, data: Any) -> None:
            current().begin(number)

        return opened, process

    def add_sync(self, queue: tuple[Any, Any], data: Any) -> str:
        number = self.next_id()
        queue[1](number, data)
        return number

    async def work(self, url: str, queue: str, task: Task) -> Close:
        opened, _ = self.open_sync(url, queue)
        consumer = opened.create_consumer(workers=task.threads)
        consumer.start()

        async def close() -> None:
            await asyncio.to_thread(consumer.stop, graceful=True)

        return close

    def left(self, url: str, queue: str) -> int:
        return int(RedisHuey(queue, url=url).pending_count())


asyncio.run(Huey().serve())
