"""Listens to what happens to a queue, and publishes events of its own."""

import asyncio
from typing import Any

from bullmq import Queue, QueueEvents, QueueEventsProducer, Worker


async def main(connection: Any, prefix: str, say: Any) -> None:
    options = {"connection": connection, "prefix": prefix}
    queue = Queue("mail", options)
    events = QueueEvents("mail", {**options, "autorun": False, "lastEventId": "0-0", "blockingTimeout": 2000})
    heard: dict[str, list[Any]] = {}
    ends: dict[str, asyncio.Event] = {}

    def listen(name: str) -> None:
        def listener(*told: Any) -> None:
            *said, entry = told
            assert isinstance(entry, str)
            heard.setdefault(name, []).append(said)
            ends.setdefault(name, asyncio.Event()).set()

        events.on(name, listener)

    async def end(name: str) -> None:
        await asyncio.wait_for(ends.setdefault(name, asyncio.Event()).wait(), 10)

    names = ["added", "waiting", "active", "completed", "failed", "delayed", "progress", "removed", "drained", "paused"]
    names += ["resumed", "cleaned", "duplicated", "deduplicated", "stalled", "retries-exhausted", "packed", "end"]
    for name in [*names, "completed:good", "failed:good", "packed:good"]:
        listen(name)
    never: list[Any] = []
    events.on("completed", never.append)
    events.off("completed", never.append)
    say("before", [events.running, events.closed, events.closing, events.name, events.prefix == prefix])

    await queue.add("n", {}, {"jobId": "late", "delay": 60_000, "timestamp": 1_700_000_000_000})
    await queue.remove("late")
    await queue.add("n", {"a": 1}, {"jobId": "good"})
    await queue.add("n", {"a": 1}, {"jobId": "good"})
    await queue.add("n", {}, {"jobId": "first", "deduplication": {"id": "d"}})
    await queue.add("n", {}, {"jobId": "second", "deduplication": {"id": "d"}})
    await queue.pause()
    await queue.resume()

    running = asyncio.ensure_future(events.run())

    async def process(job: Any, token: str) -> Any:
        await job.updateProgress({"half": [1, None]})
        if job.id == "first":
            raise ValueError("why")
        return {"to": "å"}

    worker = Worker("mail", process, options)
    await end("failed")
    await end("drained")
    await worker.close()
    await queue.clean(0, 10, "completed")

    producer = QueueEventsProducer("mail", options)
    await producer.publishEvent({"eventName": "packed", "boxes": 2, "weight": 1.5, "by": "å", "jobId": "good"})
    try:
        await producer.publishEvent({"boxes": 2})
    except ValueError:
        say("refused", "without a name")
    await producer.publishEvent({"eventName": "end"})
    await end("end")
    say("running", [events.running, producer.name, producer.prefix == prefix, producer.closing])
    await producer.close()
    await events.close()
    await asyncio.wait([running])
    await queue.close()
    heard["drained"] = heard["drained"][:1]
    for name in [*names, "completed:good", "failed:good", "packed:good"]:
        say(name, heard.get(name))
    say("never", never)
    say("after", [events.running, events.closed, events.closing])
