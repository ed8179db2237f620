"""The same queues without `await`: every name of `toromq`, blocking the thread that calls it and nothing else.

The files here are made from those of the same names one folder up by `tools/make_sync.py`.
"""

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
