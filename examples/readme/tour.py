# The other samples of the README, one after the other, with what they take for granted.

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta

from toromq import Backoff, Deduplication, FlowJob, FlowProducer, Queue, QueueEvents, Worker, sync

url = os.environ.get("TOROMQ_URL", "embedded:.toromq")


@dataclass
class Order:
    number: int


def options(queue: sync.Queue) -> None:
    queue.add("resize", {"path": "a.png"}, delay=timedelta(minutes=5), priority=2, attempts=5,
              backoff=Backoff.exponential(1000), remove_on_complete=1000, job_id="resize-a")


async def control(queue: Queue, job, job_id: str) -> None:
    await queue.add("sync", {"user": 7}, deduplication=Deduplication.debounce("user-7", 5_000), delay=5_000)
    result = await job.wait_until_finished(timeout=10_000)        # one reader of events for all who wait

    await queue.pause()                                           # the workers of every client, Node's too
    await queue.set_global_rate_limit(max=100, duration=1_000)
    await queue.clean(grace=timedelta(days=1), type="failed")
    async for job in queue.iter_jobs("delayed"):
        await job.promote()

    worker = Worker("emails", connection=url, concurrency=20)
    @worker.processor("welcome")                                  # by the job's name
    async def welcome(job): ...
    worker.cancel_job(job_id, "no longer wanted")

    Worker("reports", "reports.build:run", concurrency=4)         # each job in a child process that may crash
    Queue("orders", data_type=Order)                              # a pydantic model, msgspec Struct or dataclass


async def more(queue: Queue, job) -> None:
    flow = FlowProducer()
    await flow.add(FlowJob("report", queue_name="reports", data={"month": "2026-05"}, children=[
        FlowJob("fetch", queue_name="regions", data={"region": "us"}),
        FlowJob("fetch", queue_name="regions", data={"region": "eu"})]))    # all of them, or none
    values = await job.get_children_values()                      # in the parent's processor, which runs last

    await queue.upsert_job_scheduler("nightly", pattern="0 15 3 * * *", tz="Europe/Madrid", name="report")
    await queue.upsert_job_scheduler("heartbeat", every=timedelta(seconds=1))

    async with QueueEvents("emails") as events:                   # also `async for event in events`
        @events.on("completed")
        def done(event): print(event.job_id, event.returnvalue)


async def main() -> None:
    with sync.Queue("images", connection=url) as images:
        options(images)

    async def send(job) -> dict[str, bool]:
        return {"sent": True}

    async with Queue("emails", connection=url) as emails, Worker("emails", send, connection=url):
        job = await emails.add("welcome", {})
        print(await job.wait_until_finished(timeout=30_000))
        await emails.add("later", {}, delay=timedelta(hours=1))
        await more(emails, job)
        await control(emails, job, job.id)
        print(await emails.get_job_counts("waiting", "delayed"))


asyncio.run(main())
