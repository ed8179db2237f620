# Made from ../queue_events.py by tools/make_sync.py; change that one.
"""The events of a queue, for listeners and for loops."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Self

from toromq._bridge import blocking_port as port
from toromq._bridge import is_receiving
from toromq._job_fields import ResultT
from toromq._listeners import Listeners
from toromq._queue_events_base import UNTAKEN, Place, QueueEventsBase, order, place_of
from toromq.errors import ConfigurationError, ToroError
from toromq.events import QueueEvent


class EventIterator(Iterator["QueueEvent[ResultT]"], Generic[ResultT]):
    """Events one after the other; what `for event in events` goes over."""

    def __init__(self, events: QueueEvents[ResultT], after: Place | None = None) -> None:
        """See QueueEvents."""
        self._events = events
        self._untaken: deque[QueueEvent[ResultT]] = deque()
        self._arrived = threading.Event()
        self._thread = threading.current_thread()
        # Up to where it was read already when it comes to what all get.
        self._skips: tuple[int, int] | None = None
        with events._lock:
            self._ended = not events.is_running()
            begins = after or events._after
            self._place: Place | None = begins or events._place
            # What the others had before it came, or will not have.
            self._is_behind = begins is not None and (events._place is not None or begins != events._after)
            events._followers.add(self)

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> QueueEvent[ResultT]:
        """The next event."""
        while not self._untaken:
            if self._ended:
                raise StopIteration
            self._thread = threading.current_thread()
            if not self._events._is_ours():
                self._events._check_start()
            if self._is_behind:
                self._catch_up()
                continue
            self._arrived.clear()
            # Something may have come just before that.
            if not (self._untaken or self._ended or self._is_behind):
                self._arrived.wait()
        return self._untaken.popleft()

    def takes(self) -> bool:
        """Whether it takes what all get now."""
        return not (self._is_behind or self._ended)

    def offer(self, made: list[Any], place: Place) -> None:
        """Take what all get, unless too much is untaken: that is read again from the stream when its turn comes."""
        if not self.takes():
            return
        if len(self._untaken) >= UNTAKEN:
            self._is_behind = True
            return
        if self._skips is not None:
            made = [event for event in made if order(event.id) > self._skips]
            if order(place[0]) >= self._skips:
                self._skips = None
        self._untaken.extend(made)
        self._place = place
        if made:
            self._arrived.set()

    def _catch_up(self) -> None:
        events = self._events
        if events._place is events._after is None:
            # Nobody knows yet with which event the others begin.
            assert events._ready is not None
            events._ready.wait()
        assert events._feed is not None
        assert self._place is not None
        entries, place, lost, _ = port().call(events._feed.catch_up, self._place)
        made, bad = events._made(entries)
        if lost:
            events._tell_lost(self._place[0])
        events._tell_of_bad(bad)
        with events._lock:
            self._untaken.extend(made)
            self._place = place
            others = events._place or events._after
            if others is not None and order(place[0]) >= order(others[0]):
                self._is_behind = False
                self._skips = order(place[0])

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._arrived.set()

    def is_driving(self) -> bool:
        """Whether a thread goes over it that outlives the main one."""
        thread = self._thread
        return (
            not self._ended and thread is not threading.main_thread() and thread.is_alive() and not thread.daemon
        )

    def __del__(self) -> None:
        """Maybe it was the last thing that kept the reader."""
        self._ended = True
        self._events._end_if_undriven()


# Beyond so many listeners that wait for something, nothing more is read.


class QueueEvents(QueueEventsBase[ResultT], Listeners):  # type: ignore[misc]  # as its base says
    """Tells what happens to a queue, whoever does it and in whichever program: to listeners, and in loops.

    Every event arrives once and in order; what happened while Redis was away arrives when it is back. Where events were
    trimmed unread, an `error` says so (EventsLostError). An entry that is not what an event of its name is, such as a
    `completed` whose result is no JSON, is passed over with an `error` (EventError), and what follows arrives.

    Who takes events more slowly than they come misses none that the stream still holds: for a loop that is behind,
    events are read again from the stream, and it holds up nobody else. Listeners that are slow hold up one another,
    and the reading.

    Constructing one has no side effect: `with events`, `events.run()` or a loop over it starts it. It then
    has a connection of its own, which other programs see as a reader of the queue's events.

    Args:
        queue_name: the queue.
        connection: as for Queue.
        prefix: as for Queue.
        last_event_id: begin after this event; "0" for the oldest there is, "$" for what happens from the start on.
        blocking_timeout: milliseconds of silence after which it is looked whether the stream is still the same.
        result_type: what jobs return, as for Queue; for `returnvalue` of `completed`.

    Events, for `on`: all of `toromq.events.EventName`, names of your own, and error. Listeners get the event, for error
    the exception; for events of one job only, give `job_id=`.

    Raises:
        ConfigurationError: an option is not allowed.

    Example:
        >>> with QueueEvents("emails") as events:
        ...     @events.on("completed")
        ...     def done(event): print(event.job_id, event.returnvalue)
        ...     for event in events:
        ...         match event:
        ...             case FailedEvent(job_id=job_id, failed_reason=reason): print(job_id, reason)
    """

    _ready: threading.Event | None = None
    _ended: threading.Event | None = None
    _has_answered = False
    _runs = 0

    def __enter__(self) -> Self:
        """Start, and wait until it listens; if Redis is away, no longer than the connection's `command_timeout`."""
        self._begin()
        assert self._ready is not None
        patience = self._connection._options["command_timeout"] / 1000
        if not is_receiving():
            with contextlib.suppress(TimeoutError):
                self._ready.wait(patience)
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def run(self) -> None:
        """Start, unless that was done, and return when closed."""
        self._begin()
        assert self._ended is not None
        self._count_run(1)
        try:
            self._ended.wait()
        finally:
            self._count_run(-1)

    def wait_until_ready(self) -> None:
        """Start, unless that was done, and return once it listens, however long Redis is away.

        Raises:
            ToroError: it was closed before.
        """
        self._begin()
        assert self._ready is not None
        # A listener can't wait for what is told to its own thread.
        if is_receiving():
            return
        self._ready.wait()
        if not self._has_answered:
            raise ToroError(f"the reader of the events of {self.queue_name} was closed before Redis answered")

    def close(self) -> None:
        """Read no more, for good. Loops end when they have had what was read for them. Closing twice is harmless."""
        # Whoever is about to start it has done so by then, or will not.
        with self._lock:
            self._is_closed = True
        if self._feed is None or not self._is_ours():
            return
        self._feed.close()
        # A listener can't wait for what is told to its own thread.
        if not is_receiving():
            assert self._ended is not None
            self._ended.wait()
        if self._owns_connection:
            self._connection.close()

    def disconnect(self) -> None:
        """The same as `close`."""
        self.close()

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._ended is not None and not self._ended.is_set() and self._is_ours()

    def __iter__(self) -> EventIterator[ResultT]:
        """Every event after `last_event_id`; without one, what happens from now on. Many can iterate at once."""
        if not self._is_closed:
            self._begin()
        return EventIterator(self)

    def after(self, event_id: str, /) -> EventIterator[ResultT]:
        """The same for what happened after another event, on the same connection: for who went away and is back.

        Raises:
            ConfigurationError: `event_id` is no id of an event, nor "0" for the oldest there is.

        Example:
            >>> for event in events.after(last_seen.id): ...
        """
        place = place_of("event_id", event_id)
        if place is None:
            raise ConfigurationError("event_id: got '$'; a loop over the reader itself begins with what happens next")
        if not self._is_closed:
            self._begin()
        return EventIterator(self, place)

    def _begin(self) -> None:
        with self._lock:
            self._check_start()
            if self._feed is None:
                self._ready, self._ended = threading.Event(), threading.Event()
                self._start(port())

    def _connected(self) -> None:
        self._has_answered = True
        assert self._ready is not None
        self._ready.set()

    def _ended_for_all(self) -> None:
        port().detach(self._ticket)
        assert self._ended is not None
        assert self._ready is not None
        self._ended.set()
        self._ready.set()

    def _count_run(self, change: int) -> None:
        # A daemon thread keeps no program.
        if not threading.current_thread().daemon:
            with self._lock:
                self._runs += change
            self._end_if_undriven()

    def _is_driven(self) -> bool:
        with self._lock:
            return self._runs > 0 or any(follower.is_driving() for follower in self._followers)
