"""BullMQ's queues for Python, with a Rust core.

A name is imported when it is first looked at: a program that adds jobs does not load what runs them.
"""

from __future__ import annotations

# Type checkers know it by its name; to import it would take longer than all the rest here.
TYPE_CHECKING = False
if TYPE_CHECKING:
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

# Where each of them is.
_HOMES = {
    "_flow_nodes": "FlowJob FlowQueueOptions JobNode",
    "_run": "run",
    "_worker_options": "Metrics MetricsTime",
    "connection": "Connection",
    "errors": (
        "ConfigurationError DelayedError EventError EventsLostError FailedChildrenError JobCancelledError "
        "JobFailedError JobNotFoundError JobNotInStateError JobTimeoutError LockMismatchError "
        "LockMissingError ParentConflictError ParentNotFoundError PendingChildrenError RateLimitError "
        "RedisConnectionError SandboxError SchedulerConflictError ScriptError SerializationError ToroError "
        "UnrecoverableError WaitingChildrenError WaitingError"
    ),
    "flow": "FlowProducer",
    "job": "Job",
    "metrics": "MetricsMeta QueueMetrics",
    "options": (
        "PRIORITY_LIMIT Backoff Deduplication DeduplicationOptions Dependencies DependenciesCount JobLogs "
        "JobOptions JobState KeepJobs ParentOptions QueueMeta RateLimit SandboxOptions TelemetryOptions "
        "WorkerInfo"
    ),
    "queue": "Queue",
    "queue_events": "QueueEvents",
    "queue_events_producer": "QueueEventsProducer",
    "sandbox_job": "SandboxJob",
    "schedulers": "JobScheduler JobSchedulerTemplate",
    "worker": "Worker",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
# Modules that can be used as `toromq.sync` without an import of their own.
_MODULES = frozenset(
    (
        "connection", "errors", "events", "flow", "job", "metrics", "options", "queue", "queue_events",
        "queue_events_producer", "sandbox_job", "schedulers", "server", "sync", "telemetry", "types", "worker",
    )
)  # fmt: skip


def _loaded(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except AttributeError as error:
        # Python would say that what was asked for does not exist.
        raise ImportError(f"{module} can't be imported: {error}", name=module) from error


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _loaded(f"toromq.{name}")
    if name == "__version__":
        found: Any = _loaded("toromq._bridge").version
    elif name in _HOME_OF:
        found = getattr(_loaded(f"toromq.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'toromq' has no attribute {name!r}")
    # From now on it is found without us.
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
