"""Types for annotations: the options of queues and workers as dictionaries, and what a processor is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from toromq._worker_options import Metrics
    from toromq.connection import Connection
    from toromq.options import JobOptions, KeepJobs, RateLimit, SandboxOptions
    from toromq.telemetry import Telemetry


class Adapter(Protocol):
    """What turns JSON into a value and back, as pydantic's `TypeAdapter` does."""

    def validate_python(self, object: Any, /) -> Any:
        """A value from what one can be made from; raises ValueError."""
        ...

    def validate_json(self, data: bytes, /) -> Any:
        """A value from JSON text; raises ValueError."""
        ...

    def dump_json(self, instance: Any, /) -> bytes:
        """The JSON text of a value."""
        ...


class QueueOptions(TypedDict, total=False):
    """What `Queue` takes by keyword; its documentation says what each means."""

    connection: Connection | str | None
    prefix: str
    default_job_options: JobOptions | None
    max_len_events: int | None
    skip_metas_update: bool
    telemetry: Telemetry | None
    data_type: Any
    result_type: Any


class QueueEventsOptions(TypedDict, total=False):
    """What `QueueEvents` takes by keyword; its documentation says what each means."""

    connection: Connection | str | None
    prefix: str
    last_event_id: str
    blocking_timeout: int | timedelta
    result_type: Any


class WorkerOptions(TypedDict, total=False):
    """What `Worker` takes by keyword; its documentation says what each means."""

    connection: Connection | str | None
    prefix: str
    name: str | None
    concurrency: int
    lock_duration: int | timedelta
    lock_renew_time: int | timedelta | None
    skip_lock_renewal: bool
    stalled_interval: int | timedelta
    max_stalled_count: int
    skip_stalled_check: bool
    max_started_attempts: int | None
    drain_delay: float | timedelta | None
    limiter: RateLimit | None
    maximum_rate_limit_delay: int | timedelta
    run_retry_delay: int | timedelta
    metrics: Metrics | int | None
    remove_on_complete: bool | int | KeepJobs | None
    remove_on_fail: bool | int | KeepJobs | None
    backoff_strategy: Callable[..., Any] | None
    sandbox: SandboxOptions | None
    telemetry: Telemetry | None
    data_type: Any
    result_type: Any
