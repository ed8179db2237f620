"""Tracing: what queues and workers ask of a tracer, and OpenTelemetry as one.

The names of spans, attributes and metrics are those of BullMQ, and a job carries its trace where BullMQ looks for it:
a trace goes on across both, in either direction.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

from toromq._failure import failure_of
from toromq._guards import is_mapping
from toromq.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import TracerProvider

SpanKind: TypeAlias = Literal["producer", "consumer", "internal"]
"""Whether a span adds jobs, runs one, or neither."""
Attributes: TypeAlias = Mapping[str, str | int | float | bool | Sequence[str]]
"""What is told of a span, an event or a measurement."""

# Unit and description of each metric.
_METRICS: Final = {
    "bullmq.queue.jobs": ("{jobs}", "Number of jobs in the queue by state"),
    "bullmq.jobs.completed": ("1", "Number of jobs completed"),
    "bullmq.jobs.failed": ("1", "Number of jobs failed"),
    "bullmq.jobs.delayed": ("1", "Number of jobs delayed"),
    "bullmq.jobs.retried": ("1", "Number of jobs retried"),
    "bullmq.jobs.waiting": ("1", "Number of jobs waiting"),
    "bullmq.jobs.waiting_children": ("1", "Number of jobs waiting-children"),
    "bullmq.job.duration": ("ms", "Job processing duration"),
}


class Span(Protocol):
    """A piece of work that is being traced. Any thread may call its methods; what one raises is logged, no more."""

    def context(self) -> str | None:
        """What a job carries, so that the span of whoever runs it becomes a child of this one; None for nothing.

        For others to understand it, a JSON object of the headers of W3C Trace Context.
        """
        ...

    def current(self) -> AbstractContextManager[object]:
        """Let this be the span that others become children of, in this task or thread, while the block lasts."""
        ...

    def set_attributes(self, attributes: Attributes) -> None:
        """Tell more of it."""
        ...

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Note that something happened now."""
        ...

    def fail(self, error: BaseException) -> None:
        """Note that it failed, and why."""
        ...

    def end(self) -> None:
        """The work is done; called once, last but for `context`."""
        ...


@runtime_checkable
class Telemetry(Protocol):
    """What the option `telemetry` of a queue or worker takes.

    Any thread may call its methods. What one raises is logged, and the work goes on without a span.
    A tracer without metrics does nothing in the last three.
    """

    def start_span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        parent: Span | str | None = None,
        started: int | None = None,
    ) -> Span:
        """Begin a span.

        Args:
            name: what is done, and to which queue: "add mail.welcome", "process mail".
            kind: as it says.
            attributes: as they are known now.
            parent: a span of this tracer, or what a job carries; an empty text, or one that it can't read, for none;
                None for the span that is current.
            started: when the work began, in nanoseconds since the epoch, if not now.
        """
        ...

    def count(self, name: str, attributes: Attributes) -> None:
        """Add one to a counter."""
        ...

    def duration(self, name: str, milliseconds: float, attributes: Attributes) -> None:
        """Take a measurement into a histogram."""
        ...

    def gauge(self, name: str, value: int, attributes: Attributes) -> None:
        """Say how much there is now."""
        ...


class OpenTelemetry:
    """Spans and metrics by way of OpenTelemetry: `pip install toromq[otel]`.

    What becomes of them is up to the program's OpenTelemetry SDK; without one nothing is recorded, and jobs carry
    nothing.

    Args:
        tracer_name: the name of the tracer and the meter.
        version: their version.
        tracer_provider: default: the global one, whenever it is set.
        meter_provider: likewise.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.

    Example:
        >>> queue = Queue("mail", telemetry=OpenTelemetry())
    """

    def __init__(
        self,
        tracer_name: str = "toromq",
        version: str | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """See the class."""
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ConfigurationError(
                "OpenTelemetry: the package opentelemetry-api is not installed; pip install toromq[otel]"
            ) from error
        self._tracer = trace.get_tracer(tracer_name, version, tracer_provider)
        self._meter = metrics.get_meter(tracer_name, version or "", meter_provider)
        self._instruments: dict[str, Any] = {}
        self._kinds = {
            "producer": trace.SpanKind.PRODUCER,
            "consumer": trace.SpanKind.CONSUMER,
            "internal": trace.SpanKind.INTERNAL,
        }

    def start_span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        parent: Span | str | None = None,
        started: int | None = None,
    ) -> Span:
        """Begin a span."""
        made = self._tracer.start_span(
            name, _context_of(parent), self._kinds[kind], dict(attributes), start_time=started
        )
        return _OtelSpan(made)

    def count(self, name: str, attributes: Attributes) -> None:
        """Add one to a counter."""
        self._instrument("counter", name).add(1, attributes)

    def duration(self, name: str, milliseconds: float, attributes: Attributes) -> None:
        """Take a measurement into a histogram."""
        self._instrument("histogram", name).record(milliseconds, attributes)

    def gauge(self, name: str, value: int, attributes: Attributes) -> None:
        """Say how much there is now."""
        self._instrument("gauge", name).set(value, attributes)

    def _instrument(self, kind: str, name: str) -> Any:
        made = self._instruments.get(name)
        if made is None:
            unit, description = _METRICS.get(name, ("1", ""))
            # Made twice where two threads come at once, which is harmless: both are the same instrument.
            made = getattr(self._meter, f"create_{kind}")(name, unit=unit, description=description)
            self._instruments[name] = made
        return made


class _OtelSpan:
    """A span of OpenTelemetry."""

    def __init__(self, span: OtelSpan) -> None:
        self.span = span

    def context(self) -> str | None:
        from opentelemetry import propagate, trace

        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(self.span))
        return json.dumps(headers, separators=(",", ":")) if headers else None

    def current(self) -> AbstractContextManager[object]:
        from opentelemetry import trace

        return trace.use_span(self.span, record_exception=False, set_status_on_exception=False)

    def set_attributes(self, attributes: Attributes) -> None:
        self.span.set_attributes(dict(attributes))

    def add_event(self, name: str, attributes: Attributes) -> None:
        self.span.add_event(name, dict(attributes))

    def fail(self, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        self.span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {failure_of(error).reason}"))
        # It asks the exception for its message, which may raise.
        with contextlib.suppress(Exception):
            self.span.record_exception(error)

    def end(self) -> None:
        self.span.end()


def _context_of(parent: Span | str | None) -> Context | None:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context

    if parent is None:
        return None
    if isinstance(parent, _OtelSpan):
        return trace.set_span_in_context(parent.span, Context())
    # Whoever added the job wrote it.
    try:
        headers = json.loads(parent) if isinstance(parent, str) and parent else None
    except ValueError:
        headers = None
    if not is_mapping(headers):
        return Context()
    return propagate.extract({name: text for name, text in headers.items() if isinstance(text, str)}, Context())


def enter(carried: str) -> None:
    """Let spans of OpenTelemetry become children of what a job carries, for as long as this context lasts."""
    with contextlib.suppress(ImportError):
        from opentelemetry import context

        context.attach(_context_of(carried) or context.Context())
