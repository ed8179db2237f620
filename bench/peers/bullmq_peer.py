"""The package `bullmq` of PyPI as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from urllib.parse import urlsplit

from bullmq import Job, Queue, QueueEvents, Worker  # type: ignore[import-untyped]

from bench.peers.driver import PAYLOAD, Driver


class BullMQ(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("bullmq", "redis", "hiredis")}

    def open(self, url: str, queue: str) -> Queue:
        return Queue(queue, {"connection": url})

    async def add(self, queue: Queue) -> str:
        return str((await queue.add("job", PAYLOAD)).id)

    async def add_bulk(self, queue: Queue, count: int) -> list[str]:
        return [str(job.id) for job in await queue.addBulk([{"name": "job", "data": PAYLOAD}] * count)]

    async def work(
        self, url: str, queue: str, concurrency: int, kind: str, start: Callable[[str], None]
    ) -> Callable[[], Awaitable[None]]:
        async def process(job: Job, token: str) -> None:
            start(str(job.id))

        worker = Worker(queue, process, {"connection": url, "concurrency": concurrency})

        async def close() -> None:
            # Right after the last job its close() often never returns; some time later it does.
            await asyncio.sleep(0.5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.close(), 5)

        return close

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
        place = urlsplit(url)
        # Without the limit that redis-py sets by itself, with which it hears nothing.
        connection = {"host": place.hostname, "port": place.port, "socket_timeout": None}
        events = QueueEvents(queue, {"connection": connection, "lastEventId": "0-0", "autorun": False})
        events.on("completed", lambda event, entry: heard())
        running = asyncio.ensure_future(events.run())

        async def close() -> None:
            await events.close()
            await asyncio.wait([running])

        return close


asyncio.run(BullMQ().serve())
