"""The same queues without `await`: every name of `toromq`, blocking the thread that calls it and nothing else.

The files here are made from those of the same names one folder up by `tools/make_sync.py`. As there, a name is imported
when it is first looked at.
"""

from __future__ import annotations

from toromq import _loaded

# Type checkers know it by its name; to import it would take longer than all the rest here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toromq._flow_nodes import FlowJob, JobNode
    from toromq._worker_options import Metrics, MetricsTime
    from toromq.connection import Connection
    from toromq.options import RateLimit
    from toromq.sync.flow import FlowProducer
    from toromq.sync.job import Job
    from toromq.sync.queue import Queue
    from toromq.sync.queue_events import QueueEvents
    from toromq.sync.queue_events_producer import QueueEventsProducer
    from toromq.sync.sandbox_job import SandboxJob
    from toromq.sync.worker import Worker

__all__ = [
    "Connection",
    "FlowJob",
    "FlowProducer",
    "Job",
    "JobNode",
    "Metrics",
    "MetricsTime",
    "Queue",
    "QueueEvents",
    "QueueEventsProducer",
    "RateLimit",
    "SandboxJob",
    "Worker",
]

_HOMES = {
    "toromq._flow_nodes": "FlowJob JobNode",
    "toromq._worker_options": "Metrics MetricsTime",
    "toromq.connection": "Connection",
    "toromq.options": "RateLimit",
    "toromq.sync.flow": "FlowProducer",
    "toromq.sync.job": "Job",
    "toromq.sync.queue": "Queue",
    "toromq.sync.queue_events": "QueueEvents",
    "toromq.sync.queue_events_producer": "QueueEventsProducer",
    "toromq.sync.sandbox_job": "SandboxJob",
    "toromq.sync.worker": "Worker",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = frozenset(("flow", "job", "queue", "queue_events", "queue_events_producer", "sandbox_job", "worker"))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _loaded(f"toromq.sync.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'toromq.sync' has no attribute {name!r}")
    found = globals()[name] = getattr(_loaded(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
