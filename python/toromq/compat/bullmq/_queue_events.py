"""bullmq's QueueEvents and QueueEventsProducer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import toromq
from toromq.compat.bullmq._adapter import EventEmitter
from toromq.compat.bullmq._keys import Keys
from toromq.compat.bullmq._options import Opts, events_options
from toromq.events import CompletedEvent, CustomEvent, DrainedEvent, ProgressEvent

# By the names they have on the wire; of those that are text there, as text.
_FIELDS: Final[Mapping[str, str]] = {
    "job_id": "jobId", "name": "name", "delay": "delay", "prev": "prev", "failed_reason": "failedReason",
    "attempts_made": "attemptsMade", "deduplication_id": "deduplicationId",
    "deduplicated_job_id": "deduplicatedJobId", "count": "count",
}  # fmt: skip


class QueueEvents(EventEmitter):
    """Tells what happens to a queue, whoever does it. Made in a running event loop, it starts by itself.

    Options: autorun, blockingTimeout, connection, lastEventId, prefix.

    Events are those of the queue, `<event>:<job id>` for those of one job, and those that programs publish themselves.
    Listeners get what the event says and its id; of drained only the id; of error the exception.

    Attributes:
        toromq: the toromq.QueueEvents behind it, which has loops over events and typed events.
    """

    def __init__(self, name: str, opts: Opts = None) -> None:
        super().__init__()
        options = events_options(opts)
        self.name = name
        self.opts: dict[str, Any] = dict(opts or {})
        autorun = options.pop("autorun", True)
        self.toromq: toromq.QueueEvents[Any] = toromq.QueueEvents(name, **options)
        self.prefix = self.toromq.prefix
        self.qualifiedName = f"{self.prefix}:{name}"
        self.keys = Keys(lambda suffix: f"{self.qualifiedName}:{suffix}")
        self.closing = False
        self.closed = False
        self._task: asyncio.Task[None] | None = None
        if autorun:
            self._start()

    def _start(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a QueueEvents starts when it is made, which needs a running event loop: make it inside a coroutine, "
                "or give it {'autorun': False} and call `await queue_events.run()`"
            ) from None
        self._task = loop.create_task(self.run())

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.toromq.is_running()

    def on(self, event_name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Call a function at an event."""

        def listener(event: Any) -> Any:
            return function(*_told(event))

        chosen = function if event_name == "error" else listener
        self.toromq.on(event_name, chosen)
        self._callbacks.setdefault(event_name, []).append((function, chosen))
        return function

    def off(self, event_name: str, function: Callable[..., Any]) -> None:
        """Stop calling a function."""
        for entry in self._callbacks.get(event_name, []):
            if entry[0] == function:
                self._callbacks[event_name].remove(entry)
                self.toromq.off(event_name, entry[1])
                return

    async def run(self) -> None:
        """Start, unless that was done, and return when closed."""
        if not self.closing:
            await self.toromq.run()

    async def close(self) -> None:
        """Read no more."""
        self.closing = True
        await self.toromq.close()
        if self._task is not None:
            await self._task
        self.closed = True


def _told(event: Any) -> tuple[Any, ...]:
    """What a listener gets of an event."""
    if isinstance(event, DrainedEvent):
        return (event.id,)
    if isinstance(event, CustomEvent):
        return dict(event.fields), event.id
    said = {name: getattr(event, ours, None) for ours, name in _FIELDS.items()}
    fields: dict[str, Any] = {name: str(value) for name, value in said.items() if value is not None}
    if type(event) is CompletedEvent:
        fields["returnvalue"] = event.returnvalue
    elif type(event) is ProgressEvent:
        fields["data"] = event.data
    return fields, event.id


class QueueEventsProducer:
    """Publishes events of a program's own among those of a queue.

    Options: connection, prefix.

    Attributes:
        toromq: the toromq.QueueEventsProducer behind it, which keeps as many events as the queue does.
    """

    def __init__(self, name: str, opts: Opts = None) -> None:
        options = {key: value for key, value in events_options(opts).items() if key in ("connection", "prefix")}
        self.name = name
        self.opts: dict[str, Any] = dict(opts or {})
        self.toromq = toromq.QueueEventsProducer(name, **options)
        self.prefix = self.toromq.prefix
        self.qualifiedName = f"{self.prefix}:{name}"
        self.keys = Keys(lambda suffix: f"{self.qualifiedName}:{suffix}")
        self.closing = False

    async def publishEvent(self, args: dict[str, Any], maxEvents: int = 1000) -> None:
        """Publish an event named `eventName`, with all else that `args` holds; the queue then keeps `maxEvents`."""
        fields = dict(args)
        if not fields.get("eventName"):
            raise ValueError("publishEvent: 'eventName' is missing")
        await self.toromq.publish_event(fields.pop("eventName"), fields, max_events=maxEvents)

    async def close(self) -> None:
        """Close its connection."""
        self.closing = True
        await self.toromq.close()
