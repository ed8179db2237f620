"""What type checkers must accept, and what they must make of it. Checked, never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, assert_type

from toromq import (
    Backoff,
    Connection,
    DeduplicationOptions,
    Dependencies,
    DependenciesCount,
    FlowJob,
    FlowProducer,
    Job,
    JobLogs,
    JobNode,
    JobOptions,
    JobScheduler,
    JobState,
    KeepJobs,
    ParentOptions,
    Queue,
    QueueEvents,
    QueueEventsProducer,
    QueueMeta,
    RateLimit,
    TelemetryOptions,
    Worker,
    sync,
)
from toromq.events import CompletedEvent, CustomEvent, DelayedEvent, FailedEvent, QueueEvent
from toromq.telemetry import OpenTelemetry, Span, Telemetry
from toromq.types import QueueEventsOptions, QueueOptions, WorkerOptions


class EmailJob(TypedDict):
    to: str


class EmailResult(TypedDict):
    sent: bool


@dataclass
class Order:
    number: int


async def send(job: Job[EmailJob, EmailResult]) -> EmailResult:
    assert_type(job.data, EmailJob)
    assert_type(job.returnvalue, EmailResult | None)
    await job.update_progress(10)
    return {"sent": job.data["to"] != ""}


def send_in_a_thread(job: sync.Job[EmailJob, EmailResult]) -> EmailResult:
    job.log("sending")
    return {"sent": True}


async def asynchronous() -> None:
    emails: Queue[EmailJob, EmailResult] = Queue("emails", connection=Connection("redis://localhost"))
    job = await emails.add("welcome", {"to": "user@example.com"}, attempts=5, backoff=Backoff.exponential(1000))
    assert_type(job, Job[EmailJob, EmailResult])
    await emails.add("later", {"to": "x"}, delay=timedelta(seconds=5), remove_on_complete=True)
    await emails.add("then", {"to": "x"}, run_at=datetime(2035, 7, 3, tzinfo=UTC), remove_on_fail={"count": 5})
    many: list[tuple[str, EmailJob]] = [("a", {"to": "x"}), ("b", {"to": "y"})]
    await emails.add_bulk(many)
    await emails.add_bulk([("a", {"to": "x"}, {"priority": 3})])
    found = await emails.get_job("1")
    assert_type(found, Job[EmailJob, EmailResult] | None)
    assert_type(await emails.get_failed(), list[Job[EmailJob, EmailResult]])
    assert_type(await job.get_state(), JobState)
    assert_type(await emails.get_meta(), QueueMeta)
    assert_type(await emails.get_job_logs("1"), JobLogs)
    assert_type(await job.get_dependencies(), Dependencies)
    assert_type(await job.get_dependencies_count(), DependenciesCount)
    keep: KeepJobs = {"age": 3600, "count": 100}
    once: DeduplicationOptions = {"id": "welcome", "ttl": timedelta(minutes=1)}
    below: ParentOptions = {"id": "7", "queue": "bull:reports"}
    traced: TelemetryOptions = {"metadata": "00-1"}
    await emails.add("kept", {"to": "x"}, remove_on_complete=keep, deduplication=once, telemetry=traced)
    await emails.add("child", {"to": "x"}, parent=below)
    async for each in emails.iter_jobs("completed"):
        assert_type(each.data, EmailJob)
    hour = timedelta(hours=1)
    hourly = await emails.upsert_job_scheduler("hourly", every=hour, data={"to": "x"}, opts={"attempts": 3})
    assert_type(hourly, Job[EmailJob, EmailResult] | None)
    until = datetime(2035, 7, 3, tzinfo=UTC)
    await emails.upsert_job_scheduler("nightly", pattern="0 15 3 * * *", tz="Europe/Madrid", end_date=until)
    assert_type(await emails.get_job_scheduler("hourly"), JobScheduler | None)
    assert_type(await emails.get_job_schedulers(), list[JobScheduler])

    worker = Worker("emails", send, concurrency=50, limiter=RateLimit(10, 1000), data_type=None)
    assert_type(worker, Worker[EmailJob, EmailResult])
    assert_type(Worker("emails", send_in_a_thread), Worker[EmailJob, EmailResult])

    @worker.on("completed")
    async def done(job: Job[EmailJob, EmailResult], result: EmailResult) -> None:
        print(job.id, result["sent"])

    worker.off("completed", done)
    options: WorkerOptions = {"concurrency": 4, "lock_duration": timedelta(seconds=30)}
    async with Worker("emails", send, **options) as running:
        await running.close()
    orders = Queue("orders", data_type=Order)
    await orders.add("order", Order(7))
    assert_type((await orders.get_waiting())[0].data, Order)
    untyped: Queue = Queue("anything")
    await untyped.add("x", {"whatever": [1, 2, None]})


async def events_of_a_queue() -> None:
    of_events: QueueEventsOptions = {"last_event_id": "0", "blocking_timeout": timedelta(seconds=1)}
    events: QueueEvents[EmailResult] = QueueEvents("emails", **of_events)

    @events.on("completed")
    async def completed(event: CompletedEvent[EmailResult]) -> None:
        print(event.job_id, event.returnvalue["sent"])

    @events.on("failed", job_id="7")
    def failed(event: FailedEvent) -> str:
        return event.failed_reason

    @events.on("error")
    def error(error: Exception) -> None:
        print(error)

    @events.on("packed")
    def packed(event: CustomEvent) -> None:
        print(event.fields["boxes"])

    def anything(event: QueueEvent[EmailResult]) -> None:
        print(event.event, event.timestamp)

    def delayed(event: DelayedEvent) -> None:
        print(event.delay)

    events.on("completed", lambda event: event.returnvalue["sent"])
    events.once("delayed", delayed)
    events.on("stalled", anything)
    events.off("stalled", anything)
    async with events:
        async for event in events:
            assert_type(event, QueueEvent[EmailResult])
            match event:
                case CompletedEvent(job_id=job_id, returnvalue=value):
                    assert_type(job_id, str)
                    assert_type(value, EmailResult)
                case FailedEvent():
                    assert_type(event.failed_reason, str)
                case _:
                    assert_type(event.id, str)
    of_orders = QueueEvents("orders", result_type=Order)
    assert_type(of_orders, QueueEvents[Order])
    untyped = QueueEvents("anything")
    untyped.on("completed", lambda event: print(event.returnvalue["whatever"]))
    async with QueueEventsProducer("orders") as producer:
        assert_type(await producer.publish_event("packed", {"boxes": 2, "by": "x"}, job_id="7"), str)


async def flows_of_jobs() -> None:
    leaf = FlowJob("fetch", queue_name="pages", data={"region": "eu"}, attempts=3, ignore_dependency_on_failure=True)
    options: JobOptions = {"priority": 2}
    tree = FlowJob("report", queue_name="reports", opts=options, children=[leaf, {"name": "x", "queue_name": "q"}])
    async with FlowProducer(prefix="bull") as flow:
        node = await flow.add(tree, queues_options={"pages": {"default_job_options": {"attempts": 2}}})
        assert_type(node, JobNode[Job[Any, Any]])
        assert_type(node.children[0].job.id, str)
        assert_type(await flow.add_bulk([tree, leaf]), list[JobNode[Job[Any, Any]]])
        assert_type(await flow.get_flow("reports", node.job.id), JobNode[Job[Any, Any]] | None)
        await flow.add(FlowJob("below", queue_name="q", parent=node.job))
    with sync.FlowProducer() as blocking_flow:
        assert_type(blocking_flow.add(tree), JobNode[sync.Job[Any, Any]])


def blocking() -> None:
    for event in sync.QueueEvents[EmailResult]("emails"):
        assert_type(event, QueueEvent[EmailResult])
    sync.QueueEvents("emails").on("failed", lambda event: event.failed_reason.upper())
    of_queue: QueueOptions = {"prefix": "bull", "max_len_events": 100}
    emails: sync.Queue[EmailJob, EmailResult] = sync.Queue("emails", **of_queue)
    job = emails.add("welcome", {"to": "user@example.com"})
    assert_type(job, sync.Job[EmailJob, EmailResult])
    assert_type(emails.get_job_counts(), dict[str, int])
    for each in emails.iter_jobs():
        assert_type(each.data, EmailJob)
    assert_type(sync.Worker("emails", send_in_a_thread), sync.Worker[EmailJob, EmailResult])


async def traced(own: Telemetry) -> None:
    telemetry = OpenTelemetry("shop", "1.0")
    emails: Queue[EmailJob, EmailResult] = Queue("emails", telemetry=telemetry)
    worker: Worker[EmailJob, EmailResult] = Worker("emails", telemetry=own)
    flows = FlowProducer(telemetry=telemetry)
    either: Telemetry = telemetry
    span: Span = either.start_span("smtp", "internal", {"to": "ada", "tries": 2}, parent=None)
    with span.current():
        assert_type(span.context(), str | None)
    assert_type(await emails.record_job_counts_metric("waiting"), dict[str, int])
    for made in (emails, worker, flows):
        await made.close()
