"""toromq as a peer of the benchmark."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import toromq.sync
from bench.peers.driver import PAYLOAD, SLEEP_S, Close, Driver, Options, Task, answer_to
from toromq import FlowJob, FlowProducer, Job, Queue, QueueEvents, RateLimit, Worker, __version__, _native


class Toromq(Driver):
    """The library."""

    def versions(self) -> dict[str, str]:
        """The version; refuses a debug build, whose figures would mean nothing."""
        if _native.debug_build:
            raise RuntimeError("this is a debug build of toromq; build with: maturin develop --release")
        return {"toromq": f"{__version__} (release build)"}

    def open(self, url: str, queue: str) -> Queue[Any, Any]:
        return Queue(queue, connection=url)

    async def add(self, queue: Queue[Any, Any], data: Any) -> str:
        return (await queue.add("job", data)).id

    async def add_bulk(self, queue: Queue[Any, Any], jobs: Sequence[tuple[Any, Options]]) -> list[str]:
        return [job.id for job in await queue.add_bulk([("job", data, options) for data, options in jobs])]

    def open_sync(self, url: str, queue: str) -> toromq.sync.Queue[Any, Any]:
        return toromq.sync.Queue(queue, connection=url)

    def add_sync(self, queue: toromq.sync.Queue[Any, Any], data: Any) -> str:
        return queue.add("job", data).id

    def close_sync(self, queue: toromq.sync.Queue[Any, Any]) -> None:
        queue.close()

    async def add_flow(self, url: str, queue: str, children: int) -> dict[str, Any]:
        async with FlowProducer(connection=url) as producer:
            await producer.wait_until_ready()
            below = [FlowJob("child", queue_name=queue, data=PAYLOAD) for _ in range(children)]
            called = time.monotonic()
            node = await producer.add(FlowJob("parent", queue_name=queue, data=PAYLOAD, children=below))
            seconds = time.monotonic() - called
        ids = [node.job.id, *(child.job.id for child in node.children or ())]
        return {"called": called, "seconds": seconds, "ids": ids}

    async def work(self, url: str, queue: str, task: Task) -> Close:
        begin = task.begin

        async def process(job: Job[Any, Any]) -> None:
            begin(job.id)

        async def process_sleep(job: Job[Any, Any]) -> None:
            begin(job.id)
            await asyncio.sleep(SLEEP_S)

        async def process_data(job: Job[Any, Any]) -> Any:
            begin(job.id)
            return answer_to(job.data)

        def process_plain(job: toromq.sync.Job[Any, Any]) -> None:
            begin(job.id)

        processors: dict[str, Any] = {"sleep": process_sleep, "data": process_data}
        processor = processors.get(task.what, process_plain if task.kind == "def" else process)
        limiter = RateLimit(*task.limit) if task.limit else None
        worker: Worker[Any, Any] = Worker(
            queue, processor, connection=url, concurrency=task.concurrency, limiter=limiter
        )
        await worker.__aenter__()
        return worker.close

    async def listen(self, url: str, queue: str, kind: str, heard: Callable[[], bool]) -> Close:
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
