"""Tells jobs that run to end; they are free to look at it."""

import asyncio
from typing import Any

from bullmq import AbortController, AbortError, AbortSignal, Job, Queue, Worker


async def main(connection: Any, prefix: str, say: Any) -> None:
    opts = {"connection": connection, "prefix": prefix}
    controller = AbortController()
    say("fresh", [controller.signal.aborted, controller.signal.reason])
    controller.signal.throw_if_aborted()
    controller.abort("why")
    controller.abort("again")
    await controller.signal.wait()
    say("aborted", [controller.signal.aborted, controller.signal.reason])
    try:
        controller.signal.throw_if_aborted()
    except AbortError as error:
        say("error", [str(error), error.reason])
    say("no reason", [str(AbortError()), AbortError().reason])

    started: dict[str, asyncio.Event] = {}
    told: list[Any] = []

    async def process(job: Job, token: str, signal: AbortSignal) -> str:
        started[job.id].set()
        if job.name == "waits":
            await signal.wait()
            signal.throw_if_aborted()
        if job.name == "returns":
            await signal.wait()
            return f"stopped: {signal.reason}"
        if job.name == "ignores":
            await asyncio.sleep(0.3)
        return "done"

    queue = Queue("mail", opts)
    worker = Worker("mail", process, {**opts, "concurrency": 5})
    worker.on("completed", lambda job, result: told.append([job.id, "completed", result]))
    worker.on("failed", lambda job, error: told.append([job.id, "failed", type(error).__name__, str(error)]))

    async def add(job_id: str, name: str) -> None:
        started[job_id] = asyncio.Event()
        await queue.add(name, {}, {"jobId": job_id})
        await started[job_id].wait()

    async def all_told(count: int) -> None:
        while len(told) < count:
            await asyncio.sleep(0.01)
        say("told", sorted(told))
        told.clear()

    await add("w1", "waits")
    await add("r1", "returns")
    await add("i1", "ignores")
    say("cancel", [worker.cancelJob("w1", "first"), worker.cancelJob("r1"), worker.cancelJob("i1", "x")])
    say("nobody", worker.cancelJob("nobody", "x"))
    await all_told(3)
    await add("w2", "waits")
    await add("r2", "returns")
    worker.cancelAllJobs("all of you")
    await all_told(2)
    await worker.close(True)

    async def without(job: Job, token: str) -> str:
        started[job.id].set()
        await asyncio.sleep(0.2)
        return "not told"

    deaf = Worker("mail", without, opts)
    deaf.on("completed", lambda job, result: told.append([job.id, "completed", result]))
    await add("n1", "no signal")
    say("takes no signal", deaf.cancelJob("n1", "x"))
    deaf.cancelAllJobs()
    await all_told(1)
    await deaf.close(True)
    await queue.close()
