"""What a queue is in both faces: its options, its listeners, its handle in the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic

from toromq._bridge import NativeQueue, NativeWaits, make, version
from toromq._job_fields import DataT, JobFields, ResultT
from toromq._listeners import Listeners
from toromq._packing import packed
from toromq._payload import payload_type
from toromq._tracing import NO_SPAN, QueueTracing, check_telemetry
from toromq.connection import Connection, connection_of
from toromq.errors import ConfigurationError, JobFailedError, JobNotFoundError, JobTimeoutError
from toromq.options import JobOptions, check_prefix, check_queue_name, flag, text, whole, with_hints

if TYPE_CHECKING:
    from toromq.telemetry import Attributes, Span, SpanKind, Telemetry
    from toromq.types import Adapter



class QueueBase(Listeners, Generic[DataT, ResultT]):
    """The part of a queue that waits for nothing."""

    EVENTS = frozenset(("waiting", "progress", "removed", "cleaned", "paused", "resumed", "error"))

    @with_hints
    def __init__(
        self,
        name: str,
        /,
        *,
        connection: Connection | str | None = None,
        prefix: str = "bull",
        default_job_options: JobOptions | None = None,
        max_len_events: int | None = None,
        skip_metas_update: bool = False,
        data_type: type[DataT] | Adapter | None = None,
        result_type: type[ResultT] | Adapter | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """See Queue."""
        self.name = check_queue_name(name)
        super().__init__(f"queue {self.name}")
        self.prefix = check_prefix(prefix)
        if default_job_options is not None and not isinstance(default_job_options, Mapping):
            raise ConfigurationError(f"default_job_options: got {default_job_options!r}; allowed are options of a job")
        self.default_job_options: JobOptions = default_job_options or {}
        packed("check", b"{}", {}, self.default_job_options, "default_job_options.")
        self._data_type = payload_type("data_type", data_type)
        self._result_type = payload_type("result_type", result_type)
        self._connection = connection_of(connection)
        self._owns_connection = self._connection is not connection
        self._max_events = None if max_len_events is None else whole("max_len_events", max_len_events, 0)
        self._skips_metas_update = flag("skip_metas_update", skip_metas_update)
        tracer = check_telemetry(telemetry)
        self._tracing = None if tracer is None else QueueTracing(tracer, self.name)
        self._made: tuple[int, NativeQueue] | None = None
        self._made_waits: tuple[int, NativeWaits] | None = None
        self._on_progress: Callable[[JobFields[Any, Any], Any], None] | None = None

    def _native(self) -> NativeQueue:
        pid = os.getpid()
        # A forked child must not use its parent's connection.
        if self._made is None or self._made[0] != pid:
            connection = self._connection._native()
            writer = "" if self._skips_metas_update else f"toromq:{version}"
            length = None if self._skips_metas_update else self._max_events
            made = make(NativeQueue, connection, self.prefix, self.name, writer, length)
            self._made = (pid, made)
        return self._made[1]

    def _traced(
        self,
        operation: str,
        attributes: Attributes | None = None,
        kind: SpanKind = "internal",
        destination: str | None = None,
    ) -> AbstractContextManager[Span | None]:
        """A span around an operation, where the queue is traced."""
        return NO_SPAN if self._tracing is None else self._tracing.span(operation, attributes, kind, destination)

    def _waits(self) -> NativeWaits:
        pid = os.getpid()
        if self._made_waits is None or self._made_waits[0] != pid:
            self._made_waits = (pid, make(NativeWaits, self._connection._native(), self.prefix, self.name))
        return self._made_waits[1]

    def _end_waits(self) -> None:
        """Tell those who wait for jobs that the queue is closed."""
        if self._made_waits is not None:
            self._made_waits[1].close()
            self._made_waits = None

    def _result_of(self, job_id: str, timeout: int | None, ended: tuple[str, Any]) -> Any:
        """What a job that was waited for returned, or why it returned nothing."""
        how, value = ended
        which = f"job {job_id} of queue {self.name!r}"
        if how == "completed":
            return None if value in (None, b"null") else self._result_type.decode(value, f"the result of {which}")
        if how == "failed":
            raise JobFailedError(f"{which} failed: {value}", job_id, value, self.name)
        if how == "timed out":
            how = f"did not end within {timeout} ms" if timeout else "has not ended"
            raise JobTimeoutError(f"{which} {how}; it goes on", job_id, self.name)
        if how == "removed":
            raise JobNotFoundError(f"{which} was removed while it was waited for", -1, job_id)
        raise JobNotFoundError(
            f"there is no {which}; where finished jobs are removed at once, wait before they finish", -1, job_id
        )

    def _progressed(self, job: JobFields[Any, Any], progress: Any) -> None:
        if self._on_progress is not None:
            self._on_progress(job, progress)
        else:
            self._tell("progress", job.id, progress)

    @property
    def qualified_name(self) -> str:
        """Prefix and name, as other queues' jobs refer to it."""
        return f"{self.prefix}:{self.name}"

    def to_key(self, suffix: str) -> str:
        """The full name of one of its keys, such as `to_key("wait")`, or of a job's hash."""
        return f"{self.qualified_name}:{text('suffix', suffix)}"

    def __repr__(self) -> str:
        """Its name."""
        return f"<{type(self).__name__} {self.name!r}>"
