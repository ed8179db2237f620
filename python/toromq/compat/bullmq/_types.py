"""The dicts that bullmq takes as options."""

from __future__ import annotations

from typing import Any, TypedDict

ConnectionOptions = Any
"""A URL, a dict with host and port, a client of redis-py, or a toromq.Connection."""


class BackoffOptions(TypedDict, total=False):
    """How long to wait before a retry, in milliseconds."""

    type: str
    delay: int
    jitter: float


class DeduplicationOptions(TypedDict, total=False):
    """When a job gives way to one with the same `id`."""

    id: str
    ttl: int
    extend: bool
    replace: bool
    reschedule: bool
    keepLastIfActive: bool


class KeepJobs(TypedDict, total=False):
    """Which finished jobs to keep: the newest `count`, none older than `age` seconds."""

    age: int
    count: int
    limit: int


class JobOptions(TypedDict, total=False):
    """Options of a job; times are milliseconds."""

    attempts: int
    backoff: int | BackoffOptions
    continueParentOnFailure: bool
    deduplication: DeduplicationOptions
    delay: int
    failParentOnFailure: bool
    ignoreDependencyOnFailure: bool
    jobId: str
    keepLogs: int
    lifo: bool
    parent: dict[str, str]
    priority: int
    removeDependencyOnFailure: bool
    removeOnComplete: bool | int | KeepJobs
    removeOnFail: bool | int | KeepJobs
    sizeLimit: int
    stackTraceLimit: int
    timestamp: int


class QueueBaseOptions(TypedDict, total=False):
    """Options of a queue."""

    prefix: str
    connection: ConnectionOptions
    defaultJobOptions: JobOptions
    skipVersionCheck: bool
    skipWaitingForReady: bool


class WorkerOptions(TypedDict, total=False):
    """Options of a worker; times are milliseconds, `drainDelay` seconds."""

    autorun: bool
    concurrency: int
    connection: ConnectionOptions
    drainDelay: float
    limiter: dict[str, int]
    lockDuration: int
    lockRenewTime: int
    maxStalledCount: int
    maximumRateLimitDelay: int
    name: str
    prefix: str
    removeOnComplete: bool | int | KeepJobs
    removeOnFail: bool | int | KeepJobs
    runRetryDelay: int
    settings: dict[str, Any]
    skipVersionCheck: bool
    skipWaitingForReady: bool
    stalledInterval: int


class QueueEventsOptions(TypedDict, total=False):
    """Options of QueueEvents."""

    prefix: str
    connection: ConnectionOptions
    autorun: bool
    blockingTimeout: int
    lastEventId: str
    skipVersionCheck: bool


class QueueEventsProducerOptions(TypedDict, total=False):
    """Options of QueueEventsProducer."""

    prefix: str
    connection: ConnectionOptions
    skipVersionCheck: bool


class PromoteJobsOptions(TypedDict, total=False):
    """Options of `promoteJobs`."""

    count: int


class RetryJobsOptions(TypedDict, total=False):
    """Options of `retryJobs`."""

    state: str
    count: int
    timestamp: int


class RepeatOptions(TypedDict, total=False):
    """When a job scheduler makes jobs: `every` so many milliseconds, or by the cron expression `pattern`."""

    pattern: str
    every: int
    limit: int
    startDate: int | str | float
    endDate: int | str | float
    tz: str
    offset: int
    immediately: bool
    count: int


class JobSchedulerTemplateJson(TypedDict, total=False):
    """What a job scheduler makes its jobs of."""

    data: object
    opts: dict[str, Any]


class JobSchedulerJson(TypedDict, total=False):
    """A job scheduler."""

    key: str
    name: str
    next: int | None
    id: str | None
    iterationCount: int
    limit: int
    startDate: int
    endDate: int
    tz: str
    pattern: str
    every: int
    offset: int
    template: JobSchedulerTemplateJson
