"""Runs jobs that succeed, fail, are tried again, put themselves off or never want to be tried again."""

import asyncio
import time
from typing import Any

from bullmq import DelayedError, Job, Queue, UnrecoverableError, WaitingChildrenError, Worker


async def main(connection: Any, prefix: str, say: Any) -> None:
    opts = {"connection": connection, "prefix": prefix}
    queue = Queue("mail", opts)
    asked: list[Any] = []

    async def process(job: Job, token: str) -> Any:
        if job.name == "looks":
            say("inside", [job.token == token, await job.isActive(), job.attemptsStarted, job.attemptsMade, job.data])
            await job.updateProgress(10)
            await job.updateProgress({"step": 2})
            await job.updateData({"n": 2})
            await job.log("a line")
            return {"n": job.data["n"], "list": [1, "two", None]}
        if job.name == "fails":
            raise ValueError(f"attempt {job.attemptsMade + 1}")
        if job.name == "recovers" and job.attemptsMade < 2:
            raise RuntimeError("not yet")
        if job.name == "hopeless":
            raise UnrecoverableError("never")
        if job.name == "later" and job.attemptsStarted == 1:
            await job.moveToDelayed(round(time.time() * 1000) + 50, token)
            raise DelayedError()
        if job.name == "childless" and await job.moveToWaitingChildren(token, {}):
            raise WaitingChildrenError()
        return None

    def backoff(attempt: int, kind: str, error: Exception, job: Job) -> int:
        asked.append([attempt, kind, type(error).__name__, job.id])
        return 20

    worker = Worker("mail", process, {**opts, "settings": {"backoffStrategy": backoff}})
    told: list[Any] = []
    worker.on("active", lambda job, prev: told.append(["active", job.id, prev]))
    worker.on("completed", lambda job, result: told.append(["completed", job.id, result, job.attemptsMade]))

    def failed(job: Job, error: Exception) -> None:
        told.append(["failed", job.id, type(error).__name__, str(error), job.attemptsMade, job.failedReason])

    worker.on("failed", failed)

    async def run(name: str, **given: Any) -> None:
        job = await queue.add(name, {"n": 1}, {"jobId": name, **given})
        while await job.getState() not in ("completed", "failed"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        stored = await queue.getJob(name)
        say(name, told[:])
        told.clear()
        say("stored", [await stored.getState(), stored.returnvalue, stored.failedReason, stored.progress, stored.data])
        say("attempts", [stored.attemptsMade, stored.attemptsStarted, len(stored.stacktrace), stored.token])
        say("times", [stored.timestamp <= stored.processedOn <= stored.finishedOn])

    await run("looks")
    await run("fails")
    for name, given in (
        ("recovers", {"attempts": 3, "backoff": 10}),
        ("hopeless", {"attempts": 3}),
        ("later", {}),
        ("childless", {}),
    ):
        await run(name, **given)

    for kind in ({"type": "fixed", "delay": 10}, {"type": "exponential", "delay": 10}, {"type": "mine"}):
        await queue.remove("fails")
        await run("fails", attempts=3, backoff=kind)
    say("strategy", asked)

    job = await queue.getJob("fails")
    await job.retry()
    while await job.getState() != "failed":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    say("retried", told[:])
    await queue.retryJobs({"state": "completed", "count": 10})
    while (await queue.getJobCounts("completed"))["completed"] < 4:
        await asyncio.sleep(0.01)
    say("counts", await queue.getJobCounts())
    say("logs", await queue.getJobLogs("looks"))
    await worker.close(True)
    await queue.close()
