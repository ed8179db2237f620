"""What type checkers must refuse: each line marked so, and no other. Checked, never run."""

from __future__ import annotations

from typing import TypedDict

from toromq import FlowJob, FlowProducer, Job, Queue, QueueEvents, QueueEventsProducer, Worker, sync
from toromq.events import CompletedEvent, FailedEvent


class EmailJob(TypedDict):
    to: str


async def send(job: Job[EmailJob, int]) -> str:
    await job.update_data({"to": 1})  # refused
    return "an int was promised"


async def count(job: Job[EmailJob, int]) -> int:
    return len(job.data["from"])  # refused


async def asynchronous() -> None:
    emails: Queue[EmailJob, int] = Queue("emails")
    await emails.add("welcome", {"to": 1})  # refused
    await emails.add("welcome", {"to": "x"}, attempt=5)  # refused
    await emails.add("welcome", {"to": "x"}, attempts="five")  # refused
    await emails.add("welcome", {"to": "x"}, backoff={"kind": "fixed"})  # refused
    await emails.add(1, {"to": "x"})  # refused
    await emails.get_job(1)  # refused
    await emails.clean("1 hour")  # refused
    await emails.clean(0, type="done")  # refused
    await emails.retry_jobs(state="delayed")  # refused
    await emails.upsert_job_scheduler("hourly", every="1 hour")  # refused
    await emails.upsert_job_scheduler("hourly", every=1000, data={"to": 1})  # refused
    await emails.upsert_job_scheduler("hourly", every=1000, opts={"attempt": 3})  # refused
    await emails.upsert_job_scheduler("hourly", cron="* * * * *")  # refused
    Queue("emails", prefixes="bull")  # refused
    Queue("emails", telemetry="otel")  # refused
    Worker("emails", send)  # refused
    Worker("emails", count, concurency=5)  # refused
    Worker("emails", count, concurrency="5")  # refused
    job = await emails.add("welcome", {"to": "x"})
    job.returnvalue.upper()  # refused
    await job.change_priority(lifo=1.5)  # refused


def failed(event: FailedEvent) -> None: ...


def counted(event: CompletedEvent[int]) -> None: ...


async def events_of_a_queue() -> None:
    events: QueueEvents[str] = QueueEvents("emails")
    events.on("completed", failed)  # refused
    events.once("completed", failed)  # refused
    events.on("completed", counted)  # refused
    events.on("completed")(failed)  # refused
    events.on("drained", failed)  # refused
    events.on("completed", lambda event: event.failed_reason)  # refused
    events.on("completed", failed, job=7)  # refused
    events.on(7, failed)  # refused
    QueueEvents("emails", last_event_id=7)  # refused
    QueueEvents("emails", last_event="0")  # refused
    async for event in events:
        event.job_id.upper()  # refused
    await QueueEventsProducer("emails").publish_event("packed", {"boxes": None})  # refused
    await QueueEventsProducer("emails").publish_event("packed", max=5)  # refused


async def flows_of_jobs() -> None:
    leaf = FlowJob("fetch", queue_name="pages", atempts=3)  # refused
    FlowJob("fetch")  # refused
    FlowJob("fetch", queue_name="pages", children=[7])  # refused
    FlowJob("fetch", queue_name="pages", attempts="3")  # refused
    await FlowProducer().add(leaf, queues_options={"pages": {"attempts": 2}})  # refused
    await FlowProducer().add(7)  # refused


def blocking() -> None:
    emails: sync.Queue[EmailJob, int] = sync.Queue("emails")
    emails.add("welcome", {"to": None})  # refused
    sync.Worker("emails", count)  # refused
