"""toromq as a peer of the benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.peers.driver import PAYLOAD, Driver
from toromq import Job, Queue, QueueEvents, Worker, __version__, _native


class Toromq(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        """The version; refuses a debug build, whose figures would mean nothing."""
        if _native.debug_build:
            raise RuntimeError("this is a debug build of toromq; build with: maturin develop --release")
        return {"toromq": f"{__version__} (release build)"}

    def open(self, url: str, queue: str) -> Queue[Any, Any]:
        return Queue(queue, connection=url)

    async def add(self, queue: Queue[Any, Any]) -> str:
        return (await queue.add("job", PAYLOAD)).id

    async def add_bulk(self, queue: Queue[Any, Any], count: int) -> list[str]:
        return [job.id for job in await queue.add_bulk([("job", PAYLOAD)] * count)]

    async def work(
        self, url: str, queue: str, concurrency: int, kind: str, start: Callable[[str], None]
    ) -> Callable[[], Awaitable[None]]:
        async def process(job: Job[Any, Any]) -> None:
            start(job.id)

        def process_plain(job: Job[Any, Any]) -> None:
            start(job.id)

        processor = process_plain if kind == "def" else process
        worker: Worker[Any, Any] = Worker(queue, processor, connection=url, concurrency=concurrency)
        await worker.__aenter__()
        return worker.close

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
        events: QueueEvents[Any] = QueueEvents(queue, connection=url, last_event_id="0")
        if kind == "loop":
            async for event in events:
                if event.event == "completed" and heard():
                    break
        else:
            events.on("completed", lambda event: heard())
            await events.__aenter__()
        return events.close


asyncio.run(Toromq().serve())
