"""BullMQ's queues for Python, with a Rust core."""

from typing import Any

from toromq._bridge import version as __version__
from toromq._flow_nodes import FlowJob, FlowQueueOptions, JobNode
from toromq._run import run
from toromq._worker_options import Metrics, MetricsTime
from toromq.connection import Connection
from toromq.errors import (
    ConfigurationError,
    DelayedError,
    EventError,
    EventsLostError,
    FailedChildrenError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobNotInStateError,
    JobTimeoutError,
    LockMismatchError,
    LockMissingError,
    ParentConflictError,
    ParentNotFoundError,
    PendingChildrenError,
    RateLimitError,
    RedisConnectionError,
    SandboxError,
    SchedulerConflictError,
    ScriptError,
    SerializationError,
    ToroError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from toromq.flow import FlowProducer
from toromq.job import Job
from toromq.metrics import MetricsMeta, QueueMetrics
from toromq.options import (
    PRIORITY_LIMIT,
    Backoff,
    Deduplication,
    DeduplicationOptions,
    Dependencies,
    DependenciesCount,
    JobLogs,
    JobOptions,
    JobState,
    KeepJobs,
    ParentOptions,
    QueueMeta,
    RateLimit,
    SandboxOptions,
    TelemetryOptions,
    WorkerInfo,
)
from toromq.queue import Queue
from toromq.queue_events import QueueEvents
from toromq.queue_events_producer import QueueEventsProducer
from toromq.sandbox_job import SandboxJob
from toromq.schedulers import JobScheduler, JobSchedulerTemplate
from toromq.worker import Worker

__all__ = [
    "PRIORITY_LIMIT",
    "Backoff",
    "ConfigurationError",
    "Connection",
    "Deduplication",
    "DeduplicationOptions",
    "DelayedError",
    "Dependencies",
    "DependenciesCount",
    "EventError",
    "EventsLostError",
    "FailedChildrenError",
    "FlowJob",
    "FlowProducer",
    "FlowQueueOptions",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobLogs",
    "JobNode",
    "JobNotFoundError",
    "JobNotInStateError",
    "JobOptions",
    "JobScheduler",
    "JobSchedulerTemplate",
    "JobState",
    "JobTimeoutError",
    "KeepJobs",
    "LockMismatchError",
    "LockMissingError",
    "Metrics",
    "MetricsMeta",
    "MetricsTime",
    "ParentConflictError",
    "ParentNotFoundError",
    "ParentOptions",
    "PendingChildrenError",
    "Queue",
    "QueueEvents",
    "QueueEventsProducer",
    "QueueMeta",
    "QueueMetrics",
    "RateLimit",
    "RateLimitError",
    "RedisConnectionError",
    "SandboxError",
    "SandboxJob",
    "SandboxOptions",
    "SchedulerConflictError",
    "ScriptError",
    "SerializationError",
    "TelemetryOptions",
    "ToroError",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "Worker",
    "WorkerInfo",
    "__version__",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "server":
        # Half of what importing everything costs, and most programs bring their own Redis.
        import importlib

        return importlib.import_module("toromq.server")
    raise AttributeError(f"module 'toromq' has no attribute {name!r}")
