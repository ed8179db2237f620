"""Sets up job schedulers, reads them, lets a worker run them, and removes them."""

import asyncio
import time
from typing import Any

from bullmq import Queue, Worker


def plain(scheduler: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when the program runs."""
    kept = {name: value for name, value in scheduler.items() if name not in ("next", "offset", "startDate", "endDate")}
    return {**kept, "dates": [name for name in ("next", "offset", "startDate", "endDate") if name in scheduler]}


async def main(connection: Any, prefix: str, say: Any) -> None:
    queue = Queue("mail", {"connection": connection, "prefix": prefix})
    start = int(time.time() * 1000) + 3_600_000
    options = {"attempts": 3, "backoff": {"type": "fixed", "delay": 5}, "removeOnFail": 10}
    job = await queue.upsertJobScheduler(
        "one", {"every": 60_000, "limit": 5, "startDate": start, "endDate": start + 500_000}, "n", {"a": 1}, options
    )
    say("job", [job.name, job.data, job.id.startswith("repeat:one:"), job.opts["attempts"]])
    await queue.upsertJobScheduler("two", {"pattern": "0 15 3 * * *", "tz": "Europe/Madrid"}, "two", [1])
    await queue.upsertJobScheduler("three", {"every": 3_600_000, "offset": 500})
    say("one", plain(await queue.getJobScheduler("one")))
    say("all", sorted((plain(found) for found in await queue.getJobSchedulers()), key=lambda found: found["key"]))
    say("count", [await queue.getJobSchedulersCount(), await queue.getJobCounts("repeat", "delayed")])
    say("is", [await queue.isJobScheduler("one"), await queue.isJobScheduler("four")])
    say("none", await queue.upsertJobScheduler("four", {"every": 1000, "limit": 0}))
    say("ended", await queue.upsertJobScheduler("four", {"every": 1000, "endDate": 5}))
    for wrong in ({}, {"every": 1000, "pattern": "* * * * *"}):
        try:
            await queue.upsertJobScheduler("four", wrong)
        except ValueError:
            say("refused", sorted(wrong))
    again = await queue.jobScheduler.upsertJobScheduler("one", {"every": 60_000}, "other", {"b": 2}, {}, True)
    say("again", [again.id == job.id, (await queue.getJobScheduler("one"))["name"]])
    kept = await queue.jobScheduler.upsertJobScheduler("one", {"every": 5000}, "kept", {}, {}, False)
    say("kept", [kept, (await queue.getJobScheduler("one"))["name"]])
    say("removed", [await queue.removeJobScheduler(name) for name in ("one", "one", "two", "three")])
    say("left", await queue.getJobSchedulersCount())

    ran: list[Any] = []
    done = asyncio.Event()

    async def process(job: Any, token: str) -> int:
        ran.append([job.name, job.data, job.opts["repeat"]["count"]])
        if len(ran) == 3:
            done.set()
        return len(ran)

    await queue.upsertJobScheduler("fast", {"every": 100, "limit": 3}, "tick", {"t": 1})
    worker = Worker("mail", process, {"connection": connection, "prefix": prefix})
    await asyncio.wait_for(done.wait(), 20)
    await worker.close()
    say("ran", ran)
    say("made", (await queue.getJobScheduler("fast"))["iterationCount"])
    await queue.close()
