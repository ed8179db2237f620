"""Pauses, moves, retries and removes jobs, and asks for what can't be."""

from typing import Any

from bullmq import Queue


async def main(connection: Any, prefix: str, say: Any) -> None:
    queue = Queue("mail", {"connection": connection, "prefix": prefix})

    async def add(*names: str, **opts: Any) -> list[Any]:
        return [await queue.add(name, {}, {"jobId": name, **opts}) for name in names]

    async def refused(what: str, awaitable: Any) -> None:
        try:
            await awaitable
        except TypeError:
            say(what, "TypeError")
        else:
            say(what, "done")

    say("not paused", await queue.isPaused())
    await queue.pause()
    say("paused", await queue.isPaused())
    await add("a", "b", "c")
    say("waits", [job.id for job in await queue.getWaiting()])
    await queue.resume()
    say("resumed", [await queue.isPaused(), await queue.getJobCounts("waiting", "paused")])

    (late,) = await add("late", delay=60_000)
    await late.promote()
    say("promoted", [await late.getState(), await late.isWaiting(), await late.isDelayed(), late.delay])
    await refused("promoted twice", late.promote())
    await refused("retried while it waits", late.retry())
    await refused("retried as completed", late.retry("completed", {"resetAttemptsMade": True}))

    (first, second) = await add("p1", "p2", priority=5)
    await second.changePriority({"priority": 1})
    say("priorities", [[job.id, job.priority] for job in await queue.getPrioritized()])
    await first.changePriority({"priority": 1, "lifo": True})
    say("lifo", [[job.id, job.priority] for job in await queue.getPrioritized()])
    await first.changePriority({"priority": 0})
    say("standard", [first.priority, await first.getState()])

    await late.remove()
    say("removed", [await queue.getJob("late"), await queue.remove("p1"), await late.getState()])
    await refused("data of a removed job", late.updateData({}))
    await refused("progress of a removed job", late.updateProgress(1))
    await refused("priority of a removed job", late.changePriority({"priority": 1}))
    await refused("promotion of a removed job", late.promote())

    await add("d1", "d2", delay=60_000)
    await queue.promoteJobs({"count": 10})
    say("all promoted", [await queue.getJobState("d1"), await queue.getJobState("d2")])
    await add("d3", delay=60_000)
    await queue.drain()
    say("drained", await queue.getJobCounts())
    await queue.drain(True)
    say("all drained", await queue.getJobCounts())

    await add("e1", "e2", "e3")
    say("cleaned", [sorted(await queue.clean(0, 2, "wait")), await queue.getWaitingCount()])
    say("nothing to clean", await queue.clean(0, 0, "failed"))

    say("no limits", [await queue.getGlobalConcurrency(), await queue.getGlobalRateLimit()])
    say("concurrency", [await queue.setGlobalConcurrency(3), await queue.setGlobalConcurrency(4)])
    say("is set", [await queue.getGlobalConcurrency(), await queue.removeGlobalConcurrency()])
    say("is gone", [await queue.getGlobalConcurrency(), await queue.removeGlobalConcurrency()])
    say("rate", [await queue.setGlobalRateLimit(3, 1000), await queue.getGlobalRateLimit()])
    say("no rate", [await queue.removeGlobalRateLimit(), await queue.getGlobalRateLimit()])
    say("removed twice", await queue.removeGlobalRateLimit())
    await queue.rateLimit(60_000)
    say("limited", [50_000 < await queue.getRateLimitTtl() <= 60_000, await queue.removeRateLimitKey()])
    say("not limited", [await queue.removeRateLimitKey(), await queue.removeDeprecatedPriorityKey()])

    say("events", [await queue.trimEvents(0) > 10, await queue.trimEvents(1000)])

    await add("f1")
    await queue.obliterate()
    say("obliterated", [await queue.getJobCounts(), await queue.getJob("f1")])
    await queue.close()
