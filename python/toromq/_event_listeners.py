"""What type checkers know of `on` and `once` of QueueEvents: the class of event that a listener gets, by its name.

Checkers complain that a name of your own may be one of the others, for which another overload holds: so it is meant.
A job's own channel is typed with `job_id=`; for the text "completed:<job id>" checkers only see a name of your own.
"""

# mypy: disable-error-code="overload-overlap"
# pyright: reportOverlappingOverload=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from toromq._job_fields import ResultT
from toromq._listeners import Listeners
from toromq.events import (
    ActiveEvent,
    AddedEvent,
    CleanedEvent,
    CompletedEvent,
    CustomEvent,
    DeduplicatedEvent,
    DelayedEvent,
    DrainedEvent,
    DuplicatedEvent,
    FailedEvent,
    PausedEvent,
    ProgressEvent,
    RemovedEvent,
    ResumedEvent,
    RetriesExhaustedEvent,
    StalledEvent,
    WaitingChildrenEvent,
    WaitingEvent,
)

_AnswerT = TypeVar("_AnswerT")
_GivenT = TypeVar("_GivenT")


class _Decorator(Protocol[_GivenT]):
    """What `on` gives without a listener."""

    def __call__(self, listener: Callable[[_GivenT], _AnswerT], /) -> Callable[[_GivenT], _AnswerT]: ...


class EventListeners(Generic[ResultT]):
    """The methods that give a listener to a reader of events."""

    @overload
    def on(
        self, event: Literal["active"], listener: Callable[[ActiveEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[ActiveEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["active"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[ActiveEvent]: ...
    @overload
    def on(
        self, event: Literal["added"], listener: Callable[[AddedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[AddedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["added"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[AddedEvent]: ...
    @overload
    def on(
        self, event: Literal["cleaned"], listener: Callable[[CleanedEvent], _AnswerT]
    ) -> Callable[[CleanedEvent], _AnswerT]: ...
    @overload
    def on(self, event: Literal["cleaned"], listener: None = None) -> _Decorator[CleanedEvent]: ...
    @overload
    def on(
        self,
        event: Literal["completed"],
        listener: Callable[[CompletedEvent[ResultT]], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[CompletedEvent[ResultT]], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["completed"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[CompletedEvent[ResultT]]: ...
    @overload
    def on(
        self,
        event: Literal["deduplicated"],
        listener: Callable[[DeduplicatedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[DeduplicatedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["deduplicated"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[DeduplicatedEvent]: ...
    @overload
    def on(
        self, event: Literal["delayed"], listener: Callable[[DelayedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[DelayedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["delayed"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[DelayedEvent]: ...
    @overload
    def on(
        self, event: Literal["drained"], listener: Callable[[DrainedEvent], _AnswerT]
    ) -> Callable[[DrainedEvent], _AnswerT]: ...
    @overload
    def on(self, event: Literal["drained"], listener: None = None) -> _Decorator[DrainedEvent]: ...
    @overload
    def on(
        self,
        event: Literal["duplicated"],
        listener: Callable[[DuplicatedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[DuplicatedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["duplicated"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[DuplicatedEvent]: ...
    @overload
    def on(
        self, event: Literal["failed"], listener: Callable[[FailedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[FailedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["failed"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[FailedEvent]: ...
    @overload
    def on(
        self, event: Literal["paused"], listener: Callable[[PausedEvent], _AnswerT]
    ) -> Callable[[PausedEvent], _AnswerT]: ...
    @overload
    def on(self, event: Literal["paused"], listener: None = None) -> _Decorator[PausedEvent]: ...
    @overload
    def on(
        self, event: Literal["progress"], listener: Callable[[ProgressEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[ProgressEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["progress"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[ProgressEvent]: ...
    @overload
    def on(
        self, event: Literal["removed"], listener: Callable[[RemovedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[RemovedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["removed"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[RemovedEvent]: ...
    @overload
    def on(
        self, event: Literal["resumed"], listener: Callable[[ResumedEvent], _AnswerT]
    ) -> Callable[[ResumedEvent], _AnswerT]: ...
    @overload
    def on(self, event: Literal["resumed"], listener: None = None) -> _Decorator[ResumedEvent]: ...
    @overload
    def on(
        self,
        event: Literal["retries-exhausted"],
        listener: Callable[[RetriesExhaustedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[RetriesExhaustedEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["retries-exhausted"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[RetriesExhaustedEvent]: ...
    @overload
    def on(
        self, event: Literal["stalled"], listener: Callable[[StalledEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[StalledEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["stalled"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[StalledEvent]: ...
    @overload
    def on(
        self, event: Literal["waiting"], listener: Callable[[WaitingEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[WaitingEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["waiting"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[WaitingEvent]: ...
    @overload
    def on(
        self,
        event: Literal["waiting-children"],
        listener: Callable[[WaitingChildrenEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[WaitingChildrenEvent], _AnswerT]: ...
    @overload
    def on(
        self, event: Literal["waiting-children"], listener: None = None, *, job_id: str | None = None
    ) -> _Decorator[WaitingChildrenEvent]: ...
    @overload
    def on(
        self, event: Literal["error"], listener: Callable[[Exception], _AnswerT]
    ) -> Callable[[Exception], _AnswerT]: ...
    @overload
    def on(self, event: Literal["error"], listener: None = None) -> _Decorator[Exception]: ...
    @overload
    def on(
        self, event: str, listener: Callable[[CustomEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[CustomEvent], _AnswerT]: ...
    @overload
    def on(self, event: str, listener: None = None, *, job_id: str | None = None) -> _Decorator[CustomEvent]: ...
    def on(self, event: str, listener: Any = None, *, job_id: str | None = None) -> Any:
        """Call `listener` at an event, with the event; without one, a decorator.

        Args:
            event: one of the names of `toromq.events.EventName`, "error", or one of your own.
            listener: gets one event, for "error" the exception.
            job_id: only for events of this job. "completed:<job id>" as a name means the same.

        Raises:
            ConfigurationError: the name is not allowed, or tells of no job though `job_id` is given, or the
                listener can't be called here.
        """
        return self._add_listener(Listeners.on, self._channel(event, job_id), listener)

    @overload
    def once(
        self, event: Literal["active"], listener: Callable[[ActiveEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[ActiveEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["added"], listener: Callable[[AddedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[AddedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["cleaned"], listener: Callable[[CleanedEvent], _AnswerT]
    ) -> Callable[[CleanedEvent], _AnswerT]: ...
    @overload
    def once(
        self,
        event: Literal["completed"],
        listener: Callable[[CompletedEvent[ResultT]], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[CompletedEvent[ResultT]], _AnswerT]: ...
    @overload
    def once(
        self,
        event: Literal["deduplicated"],
        listener: Callable[[DeduplicatedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[DeduplicatedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["delayed"], listener: Callable[[DelayedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[DelayedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["drained"], listener: Callable[[DrainedEvent], _AnswerT]
    ) -> Callable[[DrainedEvent], _AnswerT]: ...
    @overload
    def once(
        self,
        event: Literal["duplicated"],
        listener: Callable[[DuplicatedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[DuplicatedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["failed"], listener: Callable[[FailedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[FailedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["paused"], listener: Callable[[PausedEvent], _AnswerT]
    ) -> Callable[[PausedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["progress"], listener: Callable[[ProgressEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[ProgressEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["removed"], listener: Callable[[RemovedEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[RemovedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["resumed"], listener: Callable[[ResumedEvent], _AnswerT]
    ) -> Callable[[ResumedEvent], _AnswerT]: ...
    @overload
    def once(
        self,
        event: Literal["retries-exhausted"],
        listener: Callable[[RetriesExhaustedEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[RetriesExhaustedEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["stalled"], listener: Callable[[StalledEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[StalledEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["waiting"], listener: Callable[[WaitingEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[WaitingEvent], _AnswerT]: ...
    @overload
    def once(
        self,
        event: Literal["waiting-children"],
        listener: Callable[[WaitingChildrenEvent], _AnswerT],
        *,
        job_id: str | None = None,
    ) -> Callable[[WaitingChildrenEvent], _AnswerT]: ...
    @overload
    def once(
        self, event: Literal["error"], listener: Callable[[Exception], _AnswerT]
    ) -> Callable[[Exception], _AnswerT]: ...
    @overload
    def once(
        self, event: str, listener: Callable[[CustomEvent], _AnswerT], *, job_id: str | None = None
    ) -> Callable[[CustomEvent], _AnswerT]: ...
    def once(self, event: str, listener: Any, *, job_id: str | None = None) -> Any:
        """Call `listener` at the next such event only."""
        return self._add_listener(Listeners.once, self._channel(event, job_id), listener)


    def off(self, event: str, listener: Any, *, job_id: str | None = None) -> None:
        """Stop calling a listener, whether it was given to `on` or `once`."""
        self._add_listener(Listeners.off, event if job_id is None else f"{event}:{job_id}", listener)

    def _channel(self, event: str, job_id: str | None) -> str:
        raise NotImplementedError

    def _add_listener(self, how: Callable[..., Any], channel: str, listener: Any) -> Any:
        raise NotImplementedError
