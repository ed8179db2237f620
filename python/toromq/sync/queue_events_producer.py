# Made from ../queue_events_producer.py by tools/make_sync.py; change that one.
"""Publishing events of your own among those of a queue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from toromq._bridge import NativeQueue, make, to_json
from toromq._bridge import blocking_port as port
from toromq._guards import is_mapping
from toromq.connection import Connection, connection_of
from toromq.errors import ConfigurationError
from toromq.events import EVENT_NAMES
from toromq.options import check_prefix, check_queue_name, text, whole, with_hints

# What one entry may hold; more of it belongs into a job.
_MOST_FIELDS = 1000


class QueueEventsProducer:
    """Publishes events of your own on a queue, for who listens with QueueEvents, also in programs of other languages.

    Making one has no side effect; the first event connects.

    Args:
        queue_name: the queue.
        connection: as for Queue.
        prefix: as for Queue.

    Raises:
        ConfigurationError: an option is not allowed.

    Example:
        >>> with QueueEventsProducer("orders") as producer:
        ...     producer.publish_event("packed", {"boxes": 2}, job_id="order-7")
    """

    @with_hints
    def __init__(
        self, queue_name: str, /, *, connection: Connection | str | None = None, prefix: str = "bull"
    ) -> None:
        """See the class."""
        self.queue_name = check_queue_name(queue_name)
        self.prefix = check_prefix(prefix)
        self._connection = connection_of(connection)
        self._owns_connection = self._connection is not connection
        self._made: tuple[int, NativeQueue] | None = None

    def __enter__(self) -> Self:
        """Give the producer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def publish_event(
        self,
        event_name: str,
        fields: Mapping[str, str | float] | None = None,
        /,
        *,
        job_id: str | None = None,
        max_events: int | None = None,
    ) -> str:
        """Publish an event; gives the id of its entry.

        Args:
            event_name: any but "error" and `toromq.events.EventName`, which queues and workers make themselves.
            fields: what it says. Stored is text: numbers as JSON writes them, True as "true". Put anything else into a
                text of your own.
            job_id: the job it is about, the field `jobId`; then those who listen for this job get it too.
            max_events: about how many events of all kinds the queue keeps from now on; default: what the queue keeps
                anyway. BullMQ's default of 1000 would drop most events of the others.

        Raises:
            ConfigurationError: the name, a field or an option is not allowed.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`, or the answer was lost: then
                the event may have been published, and is not published again.
        """
        length = None if max_events is None else whole("max_events", max_events, 0)
        name, pairs = _check_name(event_name), _pairs_of(fields, job_id)
        return str(port().call(self._native().publish_event, name, pairs, length))

    def close(self) -> None:
        """Close its connection, unless it was given one that others may share. Closing twice is harmless."""
        self._made = None
        if self._owns_connection:
            self._connection.close()

    def disconnect(self) -> None:
        """The same as `close`: nothing is waited for in either."""
        self.close()

    def wait_until_ready(self) -> None:
        """Return once Redis answers.

        Raises:
            RedisConnectionError: it did not for the connection's `command_timeout`.
        """
        port().call(self._native().wait_until_ready)

    def _native(self) -> NativeQueue:
        pid = os.getpid()
        # A forked child must not use its parent's connection.
        if self._made is None or self._made[0] != pid:
            # Without a version nothing is written to the queue's settings.
            made = make(NativeQueue, self._connection._native(), self.prefix, self.queue_name, "", None)
            self._made = (pid, made)
        return self._made[1]

    def __repr__(self) -> str:
        """Its queue."""
        return f"<{type(self).__name__} of {self.queue_name!r}>"


def _check_name(given: object) -> str:
    name = text("event_name", given)
    # "completed:7" is the channel of a job, by which others learn what it returned.
    word = name.partition(":")[0]
    if not name:
        raise ConfigurationError("event_name: got ''; allowed is a text that is not empty")
    if word in EVENT_NAMES or word == "error":
        raise ConfigurationError(f"event_name: got {name!r}; {word!r} is an event of queues themselves, choose another")
    return name


def _pairs_of(fields: Any, job_id: str | None) -> list[tuple[str, str]]:
    said: Any = {} if fields is None else fields
    if not is_mapping(said):
        raise ConfigurationError(f"fields: got {fields!r}; allowed is a dict of texts and numbers")
    pairs: list[tuple[str, str]] = [] if job_id is None else [("jobId", text("job_id", job_id))]
    for field, value in said.items():
        if not text("fields", field) or field == "event":
            raise ConfigurationError(f"fields: got one named {field!r}; allowed is a text, not empty and not 'event'")
        if field == "jobId" and job_id is not None:
            raise ConfigurationError("job_id: given as an option and among the fields; give it once")
        pairs.append((field, _text_of(f"fields[{field!r}]", value)))
    if len(pairs) > _MOST_FIELDS:
        raise ConfigurationError(f"fields: got {len(pairs)}; allowed are {_MOST_FIELDS}")
    return pairs


def _text_of(place: str, value: object) -> str:
    if isinstance(value, bool | int | float):
        return to_json(value, place).decode()
    if not isinstance(value, str):
        raise ConfigurationError(f"{place}: got {type(value).__name__}; allowed is a text or a number; see json.dumps")
    return text(place, value)
