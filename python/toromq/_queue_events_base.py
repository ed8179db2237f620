"""What a reader of a queue's events is in both faces: its options, its listeners, and those who iterate over it."""

from __future__ import annotations

import functools
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from toromq import _bridge
from toromq._event_listeners import EventListeners
from toromq._event_parsing import Entry, event_of
from toromq._job_fields import ResultT
from toromq._listeners import Listeners
from toromq._payload import payload_type
from toromq.connection import Connection, connection_of
from toromq.errors import ConfigurationError, EventError, EventsLostError, ToroError
from toromq.events import EVENT_NAMES, CustomEvent, QueueEvent
from toromq.options import check_prefix, check_queue_name, some_milliseconds, text, with_hints

if TYPE_CHECKING:
    from toromq.types import Adapter

Place = tuple[str, int | None]
"""How far a stream was read: the id of an entry, and how many entries had been added by then, where that is known."""

# How many events wait for who iterates, before what follows is left to the stream.
UNTAKEN = 1000


def order(id: str) -> tuple[int, int]:
    """By what ids of entries are ordered."""
    ms, _, number = id.partition("-")
    return int(ms), int(number or 0)


class Follower(Protocol):
    """Who iterates over events."""

    def takes(self) -> bool:
        """Whether it takes what all get now."""
        ...

    def offer(self, made: list[Any], place: Place) -> None:
        """Take events, or leave them to the stream."""
        ...

    def end(self) -> None:
        """There will be no more."""
        ...

    def is_driving(self) -> bool:
        """Whether its program goes on with it after the main thread has ended."""
        ...


# Events that would never come for one job only.
_OF_NO_JOB: Final = frozenset(("cleaned", "drained", "error", "paused", "resumed"))


# Its listeners get events of a class for each name, so they are typed by the name.
class QueueEventsBase(EventListeners[ResultT], Listeners):  # type: ignore[misc]
    """The part of a reader of events that waits for nothing."""

    EVENTS = EVENT_NAMES | {"error"}

    @with_hints
    def __init__(
        self,
        queue_name: str,
        /,
        *,
        connection: Connection | str | None = None,
        prefix: str = "bull",
        last_event_id: str = "$",
        blocking_timeout: int | timedelta = 10_000,
        result_type: type[ResultT] | Adapter | None = None,
    ) -> None:
        """See QueueEvents."""
        self.queue_name = check_queue_name(queue_name)
        super().__init__(f"events of {self.queue_name}")
        self.prefix = check_prefix(prefix)
        self._after = place_of("last_event_id", last_event_id)
        self._block = some_milliseconds("blocking_timeout", blocking_timeout)
        self._result_type = payload_type("result_type", result_type)
        self._connection = connection_of(connection)
        self._owns_connection = self._connection is not connection
        self._feed: _bridge.NativeFeed | None = None
        self._ticket = 0
        self._pid = 0
        self._is_closed = False
        self._has_channels = False
        # In the blocking face events arrive in another thread than that of who iterates over them.
        self._lock = threading.RLock()
        # Up to where all were told; None before anything was.
        self._place: Place | None = None
        self._told_bad: deque[str] = deque(maxlen=1000)
        self._told_lost: deque[str] = deque(maxlen=100)
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    def _add_listener(self, how: Callable[..., Any], channel: str, listener: Any) -> Any:
        return how(self, channel, listener)

    def _channel(self, event: str, job_id: str | None) -> str:
        self._check_event(event)
        if job_id is not None and event in _OF_NO_JOB:
            raise ConfigurationError(f"job_id: got {job_id!r}; {event!r} tells of no job, so leave it out")
        channel = event if job_id is None else f"{event}:{text('job_id', job_id)}"
        self._has_channels = self._has_channels or ":" in channel
        return channel

    def _check_event(self, event: str) -> None:
        name = text("event", event)
        if not name:
            raise ConfigurationError("event: got ''; allowed is the name of an event")
        if (meant := name.replace("_", "-")) != name and meant in EVENT_NAMES:
            raise ConfigurationError(f"event: got {name!r}; did you mean {meant!r}?")

    def _is_ours(self) -> bool:
        """False in a forked child: it reads in its parent."""
        return self._pid in (0, os.getpid())

    def _start(self, port: Any) -> None:
        # Held until there is a feed: in the blocking face its thread may be told of events before.
        with self._lock:
            self._pid = os.getpid()
            self._ticket, self._feed = port.attach(
                self._receive,
                functools.partial(_bridge.make, _bridge.NativeFeed),
                self._connection._native(),
                self.prefix,
                self.queue_name,
                None if self._after is None else self._after[0],
                self._block,
            )
            _bridge.live_workers.add(self)

    # --- what the engine says ---------------------------------------------------------------------------------------

    def _receive(self, message: tuple[str, Any]) -> None:
        what, value = message
        if what == "events":
            self._take(*value)
        elif what == "connected":
            with self._lock:
                if self._place is self._after is None:
                    self._place = value
            self._connected()
        elif what == "lost":
            self._tell_lost(value)
        elif what == "error":
            self._tell("error", value)
        elif what == "closed":
            self._over()

    def _tell_lost(self, last_event_id: str) -> None:
        # Who fell behind may have missed the same.
        if last_event_id in self._told_lost:
            return
        self._told_lost.append(last_event_id)
        words = (
            f"events of queue {self.queue_name!r} after {last_event_id} went unread: they were trimmed, or the stream "
            f"was deleted; a greater max_len_events keeps more of them"
        )
        self._tell("error", EventsLostError(words, last_event_id))

    def _take(self, entries: list[Entry], place: Place) -> None:
        with self._lock:
            # Who is behind reads for itself.
            wants_all = self._has_channels or any(follower.takes() for follower in self._followers)
            wanted = entries if wants_all else [entry for entry in entries if entry[1] in self._listeners]
            made, bad = self._made(wanted)
            self._place = place
            for follower in self._followers:
                follower.offer(made, place)
        try:
            self._tell_of_bad(bad)
            for event in made:
                if self._is_closed:
                    return
                self._tell_of(event)
        finally:
            # Also where a listener ends the program.
            self._go_on()

    def _made(self, entries: Iterable[Entry]) -> tuple[list[QueueEvent[Any]], list[EventError]]:
        """The events of entries, and what was wrong with those that are none."""
        made: list[QueueEvent[Any]] = []
        bad: list[EventError] = []
        for entry in entries:
            try:
                made.append(event_of(entry, self.queue_name, self._result_type))
            except EventError as error:
                bad.append(error)
        return made, bad

    def _tell_of_bad(self, bad: list[EventError]) -> None:
        for error in bad:
            # Who fell behind reads it again.
            if error.event_id not in self._told_bad:
                self._told_bad.append(error.event_id)
                self._tell("error", error)

    def _tell_of(self, event: QueueEvent[Any]) -> None:
        name = event.event
        if name == "error":
            # Its listeners get exceptions.
            assert isinstance(event, CustomEvent)
            words = ", ".join(f"{key}: {value}" for key, value in event.fields.items())
            self._tell(
                "error",
                EventError(
                    f"the events of queue {self.queue_name!r} hold one named error ({words})", event.id, name
                ),
            )
        elif name in self._listeners:
            self._tell(name, event)
        if self._has_channels and (job_id := getattr(event, "job_id", None)) is not None:
            channel = f"{name}:{job_id}"
            if channel in self._listeners:
                self._tell(channel, event)

    def _go_on(self) -> None:
        """There is room for more."""
        if self._feed is not None:
            self._feed.go_on()

    def _over(self) -> None:
        """Nothing more comes from the engine."""
        with self._lock:
            followers = list(self._followers)
        for follower in followers:
            follower.end()
        self._ended_for_all()

    def _connected(self) -> None:
        """From here on nothing is missed."""
        raise NotImplementedError

    def _ended_for_all(self) -> None:
        """Let those go on who wait for the end."""
        raise NotImplementedError

    # --- the end of the program -------------------------------------------------------------------------------------

    def _is_driven(self) -> bool:
        """Whether something follows that goes on after the main thread has ended."""
        raise NotImplementedError

    def _program_ends(self) -> None:
        self._program_has_ended = True
        self._end_if_undriven()

    _program_has_ended = False

    def _end_if_undriven(self) -> None:
        """At the program's end, when nobody is left who follows: let the thread go that is told of events."""
        if not self._program_has_ended or not self._is_ours() or self._feed is None or self._is_driven():
            return
        self._is_closed = True
        self._feed.close()
        if (told := _bridge.received(self._ticket)) is not None:
            told.end()
            self._over()

    def _check_start(self) -> None:
        if not self._is_ours():
            raise ToroError(
                f"the reader of the events of {self.queue_name} was started in the parent process; make a new one"
            )
        if self._is_closed:
            raise ToroError(f"the reader of the events of {self.queue_name} was closed; make a new one")

    @property
    def last_event_id(self) -> str | None:
        """The last entry that was read; None where nothing was read and it begins with what happens from then on."""
        place = self._place or self._after
        return None if place is None else place[0]

    def __repr__(self) -> str:
        """Its queue."""
        return f"<{type(self).__name__} of {self.queue_name!r}>"


def place_of(name: str, event_id: Any) -> Place | None:
    """Where to begin; None for now."""
    given = text(name, event_id)
    if given == "$":
        return None
    if not re.fullmatch(r"\d{1,19}(-\d{1,19})?", given):
        raise ConfigurationError(
            f"{name}: got {given!r}; allowed is the id of an event, such as '1700000000000-0', '0' for the "
            f"oldest there is, or '$' for what happens from now on"
        )
    return f"{order(given)[0]}-{order(given)[1]}", None
