"""Fetches and finishes jobs without a worker's loop."""

import asyncio
import time
from typing import Any

from bullmq import Job, Queue, Worker


async def main(connection: Any, prefix: str, say: Any) -> None:
    opts = {"connection": connection, "prefix": prefix}
    queue = Queue("mail", opts)
    worker = Worker("mail", None, opts)
    began = time.monotonic()
    say("nothing", [await worker.getNextJob("mine"), time.monotonic() - began < 1])
    for name in ("a", "b", "c", "d"):
        await queue.add(name, {"name": name}, {"jobId": name})

    job = await worker.getNextJob("mine")
    say("fetched", [job.id, job.data, job.token, job.attemptsStarted, await job.getState()])
    say("in the list", [await job.isInList("active"), await job.isInList("wait")])
    try:
        await job.moveToCompleted("x", "not mine")
    except TypeError:
        say("wrong token", "TypeError")
    await job.moveToCompleted({"done": 1}, "mine")
    say("completed", [job.returnvalue, job.attemptsMade, job.finishedOn > 0])
    try:
        await job.moveToCompleted({"done": 1}, "mine")
    except TypeError:
        say("twice", "TypeError")

    job = await worker.getNextJob("mine")
    await job.moveToFailed(ValueError("broken"), "mine")
    say("failed", [job.id, job.failedReason, job.attemptsMade, job.finishedOn > 0, await job.isFailed()])
    stored = await queue.getJob("b")
    say("stored", [stored.failedReason, stored.attemptsMade, len(stored.stacktrace), await stored.isInZSet("failed")])

    async def process(job: Job, token: str) -> str:
        if job.name == "d":
            raise ValueError("no")
        return f"{job.name} under {token}"

    second = Worker("mail", process, {**opts, "autorun": False})
    told: list[Any] = []
    second.on("completed", lambda job, result: told.append(["completed", job.id, result]))
    second.on("failed", lambda job, error: told.append(["failed", job.id, str(error)]))
    for _ in range(2):
        job = await second.getNextJob("its")
        say("processed", await second.processJob(job, "its"))
    say("told", told)
    say("counts", await queue.getJobCounts())

    waiting = asyncio.ensure_future(worker.getNextJob("mine"))
    await asyncio.sleep(0.1)
    await queue.add("e", {}, {"jobId": "e"})
    job = await asyncio.wait_for(waiting, 4)
    say("the next one", job and job.id)
    await worker.close(True)
    await second.close(True)
    await queue.close()
