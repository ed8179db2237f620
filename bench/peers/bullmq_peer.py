"""The package `bullmq` of PyPI as a peer of the benchmark. Runs in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from bullmq import FlowProducer, Job, Queue, QueueEvents, Worker  # type: ignore[import-untyped]

from bench.peers.driver import PAYLOAD, SLEEP_S, Close, Driver, Options, Task, answer_to


class BullMQ(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("bullmq", "redis", "hiredis")}

    def open(self, url: str, queue: str) -> Queue:
        return Queue(queue, {"connection": url})

    async def add(self, queue: Queue, data: Any) -> str:
        return str((await queue.add("job", data)).id)

    async def add_bulk(self, queue: Queue, jobs: Sequence[tuple[Any, Options]]) -> list[str]:
        bulk = [{"name": "job", "data": data, "opts": options} for data, options in jobs]
        return [str(job.id) for job in await queue.addBulk(bulk)]

    async def add_flow(self, url: str, queue: str, children: int) -> dict[str, Any]:
        producer = FlowProducer(url)
        below = [{"name": "child", "queueName": queue, "data": PAYLOAD} for _ in range(children)]
        called = time.monotonic()
        node = await producer.add({"name": "parent", "queueName": queue, "data": PAYLOAD, "children": below})
        seconds = time.monotonic() - called
        await producer.close()
        ids = [str(node["job"].id), *(str(child["job"].id) for child in node["children"])]
        return {"called": called, "seconds": seconds, "ids": ids}

    async def work(self, url: str, queue: str, task: Task) -> Close:
        begin = task.begin

        async def process(job: Job, token: str) -> None:
            begin(str(job.id))

        async def process_sleep(job: Job, token: str) -> None:
            begin(str(job.id))
            await asyncio.sleep(SLEEP_S)

        async def process_data(job: Job, token: str) -> Any:
            begin(str(job.id))
            return answer_to(job.data)

        processors: dict[str, Any] = {"sleep": process_sleep, "data": process_data}
        options: dict[str, Any] = {"connection": url, "concurrency": task.concurrency}
        if task.limit:
            options["limiter"] = {"max": task.limit[0], "duration": task.limit[1]}
        worker = Worker(queue, processors.get(task.what, process), options)

        async def close() -> None:
            # Right after the last job its close() often never returns; some time later it does.
            await asyncio.sleep(0.5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.close(), 5)

        return close

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Close:
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
