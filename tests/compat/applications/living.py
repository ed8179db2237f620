"""Starts, pauses, resumes and ends workers; reaches Redis in every way there is; keeps and removes jobs."""

import asyncio
import functools
from typing import Any

import redis.asyncio
from bullmq import Job, Queue, Worker


async def main(connection: Any, prefix: str, say: Any) -> None:
    url = f"redis://{connection['host']}:{connection['port']}/0"
    client = redis.asyncio.Redis(host=connection["host"], port=connection["port"], socket_timeout=None)
    for given in (url, connection, client):
        queue = Queue("mail", {"connection": given, "prefix": prefix})
        await queue.add("hello", {})
        say("connected", await queue.getWaitingCount())
        await queue.drain()
        await queue.close()
    opts = {"connection": connection, "prefix": prefix}
    queue = Queue("mail", opts)

    async def plain(job: Job, token: str) -> Any:
        return ["plain", job.data]

    class Callable:
        async def __call__(self, job: Job, token: str) -> Any:
            return ["object", job.data]

    async def three(extra: str, job: Job, token: str) -> Any:
        return [extra, job.data]

    async def optional(job: Job, token: str, signal: Any = None) -> Any:
        return ["signal", type(signal).__name__]

    async def anything(job: Job, *more: Any) -> Any:
        return ["more", len(more)]

    partial = functools.partial(three, "partial")
    for processor in (plain, Callable(), partial, optional, anything, lambda job, token: plain(job, token)):
        done: asyncio.Queue[Any] = asyncio.Queue()
        worker = Worker("mail", processor, opts)
        worker.on("completed", lambda job, result, done=done: done.put_nowait(result))
        worker.on("failed", lambda job, error, done=done: done.put_nowait(repr(error)))
        await queue.add("x", 7)
        say("processor", await asyncio.wait_for(done.get(), 4))
        await worker.close(True)

    told: list[Any] = []
    release = asyncio.Event()

    async def slow(job: Job, token: str) -> Any:
        told.append(f"begins {job.id}")
        await release.wait()
        told.append(f"ends {job.id}")

    worker = Worker("mail", slow, {**opts, "autorun": False, "name": "tom"})
    for event in ("paused", "resumed", "closed"):
        worker.on(event, lambda event=event: told.append(event))
    say("fresh", [worker.name, worker.running, worker.paused, worker.closing, worker.closed, worker.workerName])
    running = asyncio.ensure_future(worker.run())
    while not await queue.get_workers_count():
        await asyncio.sleep(0.01)
    (entry, *_) = await queue.get_workers()
    say("worker", [entry["name"], entry["rawname"].endswith(":w:tom"), "addr" in entry])
    await queue.add("x", {}, {"jobId": "one"})
    while not told:
        await asyncio.sleep(0.01)
    say("running", worker.running)
    pausing = asyncio.ensure_future(worker.pause())
    await asyncio.sleep(0.1)
    say("waits for what runs", [pausing.done(), worker.paused])
    release.set()
    await asyncio.wait_for(pausing, 4)
    say("pausing ended", told[:])
    await queue.add("x", {}, {"jobId": "two"})
    await asyncio.sleep(0.2)
    say("takes nothing", await queue.getWaitingCount())
    worker.resume()
    while "ends two" not in told:
        await asyncio.sleep(0.01)
    await worker.pause(True)
    worker.resume()
    say("resumed", [told[:], worker.paused])
    await worker.close(True)
    await asyncio.wait_for(running, 4)
    say("closed", [worker.running, worker.closing, worker.closed, worker.forceClosing, told[-1]])

    async def either(job: Job, token: str) -> Any:
        if job.name == "bad":
            raise ValueError("bad")
        return 1

    await queue.obliterate(True)
    worker = Worker("mail", either, {**opts, "concurrency": 3})
    keeps: list[Any] = [False, True, 1, {"count": 2}, {"age": 100, "count": 1}]
    for keep in keeps:
        for name in ("good", "bad") * 3:
            await queue.add(name, {}, {"removeOnComplete": keep, "removeOnFail": keep})
        while await queue.getJobCountByTypes("waiting", "active"):
            await asyncio.sleep(0.01)
        say("kept", [keep, await queue.getJobCounts("completed", "failed")])
        await queue.clean(0, 0, "completed")
        await queue.clean(0, 0, "failed")
    await worker.close(True)
    await queue.close()
    await client.aclose()
