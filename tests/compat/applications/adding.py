"""Adds jobs with every kind of option, and looks at what is stored of them."""

from typing import Any

from bullmq import Queue


async def main(connection: Any, prefix: str, say: Any) -> None:
    queue = Queue("mail", {"connection": connection, "prefix": prefix})
    say("queue", [queue.name, queue.prefix == prefix, queue.qualifiedName == f"{prefix}:mail", queue.jobsOpts])
    say("keys", [queue.toKey("wait") == f"{prefix}:mail:wait", queue.keys["events"] == f"{prefix}:mail:events"])

    for n, data in enumerate([{"a": 1, "b": [1, None]}, [1, 2], "text", 7, None, True, {1: "one"}]):
        job = await queue.add("data", data, {"jobId": f"data-{n}"})
        found = await queue.getJob(job.id)
        say("data", [job.id, job.name, found.name, found.data, found.progress, found.token, found.parentKey])
        say("numbers", [found.attemptsMade, found.attemptsStarted, found.processedOn, found.finishedOn, found.delay])
        say("outcome", [found.returnvalue, found.failedReason, found.stacktrace, found.stalledCounter])
        say("same", [job.timestamp == found.timestamp, found.queueQualifiedName == queue.qualifiedName])
    await queue.obliterate()

    options: list[dict[str, Any]] = [
        {},
        {"attempts": 3, "backoff": 500},
        {"attempts": 3, "backoff": {"type": "exponential", "delay": 100}},
        {"backoff": {"type": "mine"}},
        {"delay": 60_000},
        {"priority": 3},
        {"lifo": True},
        {"timestamp": 1_600_000_000_000},
        {"removeOnComplete": True, "removeOnFail": {"age": 3600, "count": 10}},
        {"removeOnComplete": 100},
        {"stackTraceLimit": 2, "keepLogs": 5},
        {"failParentOnFailure": True},
        {"ignoreDependencyOnFailure": True},
        {"removeDependencyOnFailure": True, "continueParentOnFailure": False},
        {"deduplication": {"id": "one", "ttl": 5000}},
    ]
    for n, given in enumerate(options):
        job = await queue.add("options", {}, {"jobId": f"options-{n}", **given})
        found = await queue.getJob(f"options-{n}")
        say("options", [given, job.opts == found.opts, found.opts, found.priority, found.attempts])
        say("id", [found.deduplication_id, found.discarded])
        say("keep", [found.removeOnComplete, found.removeOnFail])
    say("waiting", [job.id for job in await queue.getWaiting()])
    say("delayed", [job.id for job in await queue.getDelayed()])
    say("prioritized", [job.id for job in await queue.getPrioritized()])
    say("counts", await queue.getJobCounts())
    say("some counts", await queue.getJobCounts("wait", "waiting", "delayed", "paused"))
    say("sum", await queue.getJobCountByTypes("waiting", "delayed"))
    say("single", [await queue.getWaitingCount(), await queue.getDelayedCount(), await queue.getFailedCount()])
    say("priorities", await queue.getCountsPerPriority([0, 1, 3]))
    say("states", [await queue.getJobState(name) for name in ("options-0", "options-4", "options-6", "nothing")])
    say("page", [job.id for job in await queue.getJobs(["waiting"], 1, 3, True)])
    say("types", sorted(queue.sanitizeJobTypes(["wait", "active"])))
    say("missing", await queue.getJob("nothing"))

    again = await queue.add("again", {"other": 1}, {"jobId": "options-0"})
    say("same id", [again.id, (await queue.getJob("options-0")).name])
    rejected = await queue.add("rejected", {}, {"deduplication": {"id": "one"}})
    say("deduplicated", [rejected.id, await queue.getDeduplicationJobId("one")])
    say("free", await queue.getDeduplicationJobId("two"))
    await queue.obliterate()

    added = await queue.addBulk(
        [
            {"name": "first", "data": {"n": 1}, "opts": {"jobId": "bulk-1"}},
            {"name": "second", "data": {"n": 2}, "opts": {"jobId": "bulk-2", "delay": 60_000}},
            {"name": "third", "data": {"n": 3}, "opts": {"jobId": "bulk-3", "priority": 2}},
        ]
    )
    say("bulk", [[job.id, job.name, job.data] for job in added])
    say("bulk states", [await job.getState() for job in added])
    say("nothing in bulk", await queue.addBulk([]))

    job = added[0]
    say("log", [await job.log("one"), await job.log("two"), await job.addJobLog(queue, "bulk-1", "three", 2)])
    say("logs", [await queue.getJobLogs("bulk-1"), await queue.getJobLogs("bulk-1", 0, 0, False)])
    say("no logs", await queue.getJobLogs("bulk-2"))
    await job.updateProgress(50)
    await job.updateData({"n": 4})
    say("updated", [job.progress, job.data])
    await job.updateProgress({"done": 1})
    found = await job.fromId(queue, "bulk-1")
    say("stored", [found.progress, found.data])
    await queue.close()

    opts = {"connection": connection, "prefix": prefix, "defaultJobOptions": {"attempts": 4, "delay": 9}}
    defaults = Queue("sms", opts)
    job = await defaults.add("x", {}, {"attempts": 2, "delay": 0})
    say("defaults", [defaults.jobsOpts, job.opts, (await defaults.add("y", {})).opts])
    try:
        await defaults.add("x", object())
    except TypeError:
        say("no JSON", "TypeError")
    await defaults.close()
