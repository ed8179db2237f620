"""A tracer that stands in no job's way: what it raises is logged, and the work goes on without the span."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from toromq._listeners import log

if TYPE_CHECKING:
    from types import TracebackType

    from toromq.telemetry import Attributes, Span, SpanKind, Telemetry

T = TypeVar("T")

# Seconds for which a method that goes on raising is logged once.
_LOG_PAUSE: Final = 10.0


class Guard:
    """A tracer as queues and workers use it: the user's own, of which no method raises."""

    def __init__(self, tracer: Telemetry) -> None:
        """For the tracer of a user."""
        self._tracer = tracer
        self._logged: dict[str, float] = {}

    def start_span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        parent: Span | str | None = None,
        started: int | None = None,
    ) -> Span:
        """Begin a span; one that is nothing, where that fails."""
        own = parent.own if isinstance(parent, _GuardedSpan) else parent
        # Below a span that could not be made there is no telling which trace it is.
        above = "" if isinstance(parent, _GuardedSpan) and own is None else own
        start = self._tracer.start_span
        span = self.tried("start_span", lambda: start(name, kind, attributes, parent=above, started=started))
        return _GuardedSpan(self, span)

    def count(self, name: str, attributes: Attributes) -> None:
        """Add one to a counter."""
        self.tried("count", lambda: self._tracer.count(name, attributes))

    def duration(self, name: str, milliseconds: float, attributes: Attributes) -> None:
        """Take a measurement into a histogram."""
        self.tried("duration", lambda: self._tracer.duration(name, milliseconds, attributes))

    def gauge(self, name: str, value: int, attributes: Attributes) -> None:
        """Say how much there is now."""
        self.tried("gauge", lambda: self._tracer.gauge(name, value, attributes))

    def tried(self, what: str, ask: Callable[[], T]) -> T | None:
        """What the tracer answers; None where it raises."""
        try:
            return ask()
        except Exception:
            now = time.monotonic()
            if now - self._logged.get(what, -_LOG_PAUSE) >= _LOG_PAUSE:
                self._logged[what] = now
                log.exception("telemetry: %s of %r raised; the work goes on untraced", what, self._tracer)
            return None


class _GuardedSpan:
    """A span of the user's tracer, or none."""

    def __init__(self, guard: Guard, own: Span | None) -> None:
        self._guard = guard
        self.own = own

    def _tried(self, what: str, *arguments: Any) -> Any:
        own = self.own
        return None if own is None else self._guard.tried(what, lambda: getattr(own, what)(*arguments))

    def context(self) -> str | None:
        found = self._tried("context")
        return found if isinstance(found, str) else None

    def current(self) -> AbstractContextManager[object]:
        return _Current(self._guard, self._tried("current"))

    def set_attributes(self, attributes: Attributes) -> None:
        self._tried("set_attributes", attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        self._tried("add_event", name, attributes)

    def fail(self, error: BaseException) -> None:
        self._tried("fail", error)

    def end(self) -> None:
        self._tried("end")


class _Current(AbstractContextManager[object]):
    """A block with a current span, which neither swallows nor changes what is raised in it."""

    def __init__(self, guard: Guard, around: AbstractContextManager[object] | None) -> None:
        self._guard = guard
        self._around = around

    def __enter__(self) -> object:
        around = self._around
        if around is not None:

            def enter() -> bool:
                around.__enter__()
                return True

            if not self._guard.tried("current", enter):
                self._around = None
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        around = self._around
        if around is None:
            return

        def leave() -> None:
            try:
                around.__exit__(kind, error, trace)
            except BaseException as raised:
                if raised is not error:
                    raise

        self._guard.tried("current", leave)
