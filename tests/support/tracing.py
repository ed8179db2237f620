"""A tracer of OpenTelemetry that keeps its spans and metrics, for tests to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.eventually import aeventually
from toromq.telemetry import OpenTelemetry


class Recorder:
    """What was traced, in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry("test", "1", self._provider, self._meters)
        self.tracer = self._provider.get_tracer("program")

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """All that have ended, or those of one name, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in self.spans()]

    def span(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        found = self.spans(name)
        assert len(found) == 1, self.names()
        return found[0]

    async def ended(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Those of one name, once so many have ended."""

        def enough() -> list[ReadableSpan]:
            found = self.spans(name)
            assert len(found) == count, self.names()
            return found

        return await aeventually(enough)

    def measured(self) -> dict[str, dict[frozenset[Any], Any]]:
        """Metrics by name: the value of a counter or a gauge, how often a histogram was told, by attributes."""
        found: dict[str, dict[frozenset[Any], Any]] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        value = point.value if hasattr(point, "value") else point.count
                        points[frozenset((point.attributes or {}).items())] = value
        return found

    def close(self) -> None:
        """Let go of what the SDK holds."""
        self._provider.shutdown()
        self._meters.shutdown()


def header(span: Any) -> str:
    """The W3C header of a span, as an object of either the SDK's kinds."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is a child of another."""
    above, own = span.parent, parent.context
    return above is not None and own is not None and (above.trace_id, above.span_id) == (own.trace_id, own.span_id)


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """What is told of a span."""
    return span.attributes or {}
