"""Entries of the events stream as events, each of its own class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from toromq import events
from toromq._bridge import from_json
from toromq._payload import PayloadType
from toromq.errors import EventError, SerializationError

Fields = Mapping[str, bytes]
Entry = tuple[str, str, Fields]
"""The id of an entry, the name of its event, and what else it says."""

_Make = Callable[[str, Fields], "events.QueueEvent[Any]"]


class _Missing(ValueError):
    """An entry lacks a field, or what should be in it."""


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise _Missing(f"it has no {name}")
    return value.decode(errors="replace")


def _prev(fields: Fields) -> str | None:
    value = fields.get("prev")
    return None if value is None else value.decode(errors="replace")


def _number(fields: Fields, name: str) -> float:
    value = float(_text(fields, name))
    if not math.isfinite(value):
        raise _Missing(f"its {name} is no number")
    return int(value) if value.is_integer() else value


def _data(fields: Fields) -> Any:
    value = fields.get("data")
    if value is None:
        raise _Missing("it has no data")
    return from_json(value)


_MAKE: Final[Mapping[str, _Make]] = {
    "added": lambda id, fields: events.AddedEvent(id, _text(fields, "jobId"), _text(fields, "name")),
    "waiting": lambda id, fields: events.WaitingEvent(id, _text(fields, "jobId"), _prev(fields)),
    "delayed": lambda id, fields: events.DelayedEvent(id, _text(fields, "jobId"), _number(fields, "delay")),
    "active": lambda id, fields: events.ActiveEvent(id, _text(fields, "jobId"), _prev(fields)),
    "waiting-children": lambda id, fields: events.WaitingChildrenEvent(id, _text(fields, "jobId"), _prev(fields)),
    "progress": lambda id, fields: events.ProgressEvent(id, _text(fields, "jobId"), _data(fields)),
    "failed": lambda id, fields: events.FailedEvent(
        id, _text(fields, "jobId"), _text(fields, "failedReason"), _prev(fields)
    ),
    "retries-exhausted": lambda id, fields: events.RetriesExhaustedEvent(
        id, _text(fields, "jobId"), int(_text(fields, "attemptsMade"))
    ),
    "stalled": lambda id, fields: events.StalledEvent(id, _text(fields, "jobId")),
    "removed": lambda id, fields: events.RemovedEvent(id, _text(fields, "jobId"), _prev(fields)),
    "duplicated": lambda id, fields: events.DuplicatedEvent(id, _text(fields, "jobId")),
    "deduplicated": lambda id, fields: events.DeduplicatedEvent(
        id, _text(fields, "jobId"), _text(fields, "deduplicationId"), _text(fields, "deduplicatedJobId")
    ),
    "drained": lambda id, fields: events.DrainedEvent(id),
    "cleaned": lambda id, fields: events.CleanedEvent(id, int(_text(fields, "count"))),
    "paused": lambda id, fields: events.PausedEvent(id),
    "resumed": lambda id, fields: events.ResumedEvent(id),
}


def _completed(id: str, fields: Fields, result_type: PayloadType) -> events.CompletedEvent[Any]:
    stored = fields.get("returnvalue")
    # As where a job's stored result is read: what is not there is no result.
    value = None if stored is None or stored == b"null" else result_type.decode(stored, "returnvalue")
    return events.CompletedEvent(id, _text(fields, "jobId"), value, _prev(fields))


def event_of(entry: Entry, queue: str, result_type: PayloadType) -> events.QueueEvent[Any]:
    """The event of an entry.

    Raises:
        EventError: it is not what an event of its name is.
    """
    id, name, fields = entry
    try:
        if name == "completed":
            return _completed(id, fields, result_type)
        make = _MAKE.get(name)
        if make is not None:
            return make(id, fields)
    except Exception as error:
        # Also whatever a user's result type raises: what follows is to be read all the same.
        known = isinstance(error, SerializationError | ValueError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        raise EventError(
            f"entry {id} of the events of queue {queue!r} is passed over: {name}: {why}", id, name
        ) from error
    return events.CustomEvent(id, name, {key: value.decode(errors="replace") for key, value in fields.items()})
