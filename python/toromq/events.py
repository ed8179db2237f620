"""What happens to a queue: one class for each event, and for those that programs publish themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeAlias

from toromq._job_fields import ResultT


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """What every event has.

    Attributes:
        id: of the entry in the queue's stream of events; later ones are greater. For `last_event_id`.
    """

    id: str

    @property
    def timestamp(self) -> int:
        """When it happened by the server's clock, in milliseconds since 1970."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class AddedEvent(StreamEvent):
    """A job was stored; `name` is the job's."""

    event: ClassVar[Literal["added"]] = "added"
    job_id: str
    name: str


@dataclass(frozen=True, slots=True)
class WaitingEvent(StreamEvent):
    """A job can run now; `prev` is the state it came from, None for one that was just added."""

    event: ClassVar[Literal["waiting"]] = "waiting"
    job_id: str
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class DelayedEvent(StreamEvent):
    """A job waits for its time; `delay` is when that is, in milliseconds since 1970."""

    event: ClassVar[Literal["delayed"]] = "delayed"
    job_id: str
    delay: float


@dataclass(frozen=True, slots=True)
class ActiveEvent(StreamEvent):
    """A worker took a job; `prev` is always "waiting", whatever the job's state was."""

    event: ClassVar[Literal["active"]] = "active"
    job_id: str
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class WaitingChildrenEvent(StreamEvent):
    """A job waits for its children; `prev` is "active" for one that ran before, else None."""

    event: ClassVar[Literal["waiting-children"]] = "waiting-children"
    job_id: str
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class ProgressEvent(StreamEvent):
    """A job told its progress; `data` is what it told."""

    event: ClassVar[Literal["progress"]] = "progress"
    job_id: str
    data: Any


# Without slots: Python notes the type on what is made by `CompletedEvent[int](...)`.
@dataclass(frozen=True)
class CompletedEvent(StreamEvent, Generic[ResultT]):
    """A job returned `returnvalue`."""

    event: ClassVar[Literal["completed"]] = "completed"
    job_id: str
    returnvalue: ResultT
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class FailedEvent(StreamEvent):
    """A job failed for good; `failed_reason` says why."""

    event: ClassVar[Literal["failed"]] = "failed"
    job_id: str
    failed_reason: str
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class RetriesExhaustedEvent(StreamEvent):
    """A job failed and has no attempts left."""

    event: ClassVar[Literal["retries-exhausted"]] = "retries-exhausted"
    job_id: str
    attempts_made: int


@dataclass(frozen=True, slots=True)
class StalledEvent(StreamEvent):
    """A job lost its worker."""

    event: ClassVar[Literal["stalled"]] = "stalled"
    job_id: str


@dataclass(frozen=True, slots=True)
class RemovedEvent(StreamEvent):
    """A job was removed; `prev` is where it was, by the name of the key, or "unknown"."""

    event: ClassVar[Literal["removed"]] = "removed"
    job_id: str
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class DuplicatedEvent(StreamEvent):
    """A job was not added because its id is taken."""

    event: ClassVar[Literal["duplicated"]] = "duplicated"
    job_id: str


@dataclass(frozen=True, slots=True)
class DeduplicatedEvent(StreamEvent):
    """A job was turned away: `job_id` owns the deduplication id, `deduplicated_job_id` is that of the other one."""

    event: ClassVar[Literal["deduplicated"]] = "deduplicated"
    job_id: str
    deduplication_id: str
    deduplicated_job_id: str


@dataclass(frozen=True, slots=True)
class DrainedEvent(StreamEvent):
    """No job waits any more."""

    event: ClassVar[Literal["drained"]] = "drained"


@dataclass(frozen=True, slots=True)
class CleanedEvent(StreamEvent):
    """Old jobs were removed, `count` of them."""

    event: ClassVar[Literal["cleaned"]] = "cleaned"
    count: int


@dataclass(frozen=True, slots=True)
class PausedEvent(StreamEvent):
    """The queue was paused."""

    event: ClassVar[Literal["paused"]] = "paused"


@dataclass(frozen=True, slots=True)
class ResumedEvent(StreamEvent):
    """The queue was resumed."""

    event: ClassVar[Literal["resumed"]] = "resumed"


@dataclass(frozen=True, slots=True)
class CustomEvent(StreamEvent):
    """An event that a program published itself; `fields` is all it said, as text."""

    name: str
    fields: Mapping[str, str]

    @property
    def event(self) -> str:
        """Its name."""
        return self.name

    @property
    def job_id(self) -> str | None:
        """The job it is about, where it says so."""
        return self.fields.get("jobId")


if TYPE_CHECKING:
    QueueEvent: TypeAlias = (
        AddedEvent | WaitingEvent | DelayedEvent | ActiveEvent | WaitingChildrenEvent | ProgressEvent
        | CompletedEvent[ResultT] | FailedEvent | RetriesExhaustedEvent | StalledEvent | RemovedEvent | DuplicatedEvent
        | DeduplicatedEvent | DrainedEvent | CleanedEvent | PausedEvent | ResumedEvent | CustomEvent
    )  # fmt: skip
else:

    class _AnyEvent(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, StreamEvent)

    class QueueEvent(metaclass=_AnyEvent):
        """Every event there can be, for annotations, `isinstance` and pattern matching."""

        # A union could be one of the two: subscripted, or asked whether something is one of its members.
        __class_getitem__ = classmethod(GenericAlias)


EventName: TypeAlias = Literal[
    "active", "added", "cleaned", "completed", "deduplicated", "delayed", "drained", "duplicated", "failed", "paused",
    "progress", "removed", "resumed", "retries-exhausted", "stalled", "waiting", "waiting-children",
]  # fmt: skip
"""The events that queues and workers make themselves."""

EVENT_NAMES: Final = frozenset(EventName.__args__)  # type: ignore[attr-defined]
