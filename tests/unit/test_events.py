"""Entries of the events stream, each as the event that it is."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from toromq import events
from toromq._event_parsing import event_of
from toromq._payload import ANY_JSON
from toromq.errors import EventError
from toromq.events import EVENT_NAMES, CompletedEvent, QueueEvent, StreamEvent

ID = "1700000000123-4"
EVENTS: list[tuple[str, dict[str, str], Any]] = [
    ("added", {"jobId": "7", "name": "n"}, events.AddedEvent(ID, "7", "n")),
    ("waiting", {"jobId": "7"}, events.WaitingEvent(ID, "7", None)),
    ("waiting", {"jobId": "7", "prev": "active"}, events.WaitingEvent(ID, "7", "active")),
    ("delayed", {"jobId": "7", "delay": "1700000005123"}, events.DelayedEvent(ID, "7", 1_700_000_005_123)),
    ("delayed", {"jobId": "7", "delay": "1700000005123.5"}, events.DelayedEvent(ID, "7", 1_700_000_005_123.5)),
    ("active", {"jobId": "7", "prev": "waiting"}, events.ActiveEvent(ID, "7", "waiting")),
    ("waiting-children", {"jobId": "7"}, events.WaitingChildrenEvent(ID, "7", None)),
    ("waiting-children", {"jobId": "7", "prev": "active"}, events.WaitingChildrenEvent(ID, "7", "active")),
    ("progress", {"jobId": "7", "data": '{"a":[1]}'}, events.ProgressEvent(ID, "7", {"a": [1]})),
    ("progress", {"jobId": "7", "data": "50"}, events.ProgressEvent(ID, "7", 50)),
    ("completed", {"jobId": "7", "returnvalue": '"x"'}, events.CompletedEvent(ID, "7", "x", None)),
    ("completed", {"jobId": "7", "returnvalue": "0", "prev": "active"}, events.CompletedEvent(ID, "7", 0, "active")),
    ("failed", {"jobId": "7", "failedReason": "", "prev": "active"}, events.FailedEvent(ID, "7", "", "active")),
    ("retries-exhausted", {"jobId": "7", "attemptsMade": "3"}, events.RetriesExhaustedEvent(ID, "7", 3)),
    ("stalled", {"jobId": "7"}, events.StalledEvent(ID, "7")),
    ("removed", {"jobId": "7", "prev": "wait"}, events.RemovedEvent(ID, "7", "wait")),
    ("duplicated", {"jobId": "7"}, events.DuplicatedEvent(ID, "7")),
    (
        "deduplicated",
        {"jobId": "7", "deduplicationId": "d", "deduplicatedJobId": "8"},
        events.DeduplicatedEvent(ID, "7", "d", "8"),
    ),
    ("drained", {}, events.DrainedEvent(ID)),
    ("cleaned", {"count": "12"}, events.CleanedEvent(ID, 12)),
    ("paused", {}, events.PausedEvent(ID)),
    ("resumed", {}, events.ResumedEvent(ID)),
    ("my event", {"count": "12"}, events.CustomEvent(ID, "my event", {"count": "12"})),
]


def made(name: str, fields: dict[str, str]) -> Any:
    return event_of((ID, name, {key: value.encode() for key, value in fields.items()}), "mail", ANY_JSON)


@pytest.mark.parametrize(("name", "fields", "event"), EVENTS)
def test_an_entry_becomes_its_event(name: str, fields: dict[str, str], event: Any) -> None:
    assert made(name, fields) == event
    assert type(made(name, fields)) is type(event)
    assert (event.event, event.id, event.timestamp) == (name, ID, 1_700_000_000_123)
    assert isinstance(event, QueueEvent)
    with pytest.raises((FrozenInstanceError, TypeError)):
        event.id = "x"


def test_every_event_is_in_the_table() -> None:
    assert {name for name, _, _ in EVENTS if name != "my event"} == EVENT_NAMES
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, StreamEvent)}
    assert {type(event) for _, _, event in EVENTS} == kinds - {StreamEvent}
    assert len(EVENT_NAMES) == 17


@pytest.mark.parametrize(("name", "fields", "event"), [row for row in EVENTS if row[0] in EVENT_NAMES and row[1]])
def test_what_is_needed_is_missed(name: str, fields: dict[str, str], event: Any) -> None:
    for field in fields.keys() - {"prev", "returnvalue"}:
        with pytest.raises(EventError, match=f"{ID}.*'mail'.*{name}: it has no {field}") as caught:
            made(name, {key: value for key, value in fields.items() if key != field})
        assert (caught.value.event_id, caught.value.event) == (ID, name)


def test_a_whole_delay_is_a_whole_number() -> None:
    assert isinstance(made("delayed", {"jobId": "7", "delay": "5"}).delay, int)


@pytest.mark.parametrize("delay", ["", "soon", "inf", "nan"])
def test_a_delay_that_is_none(delay: str) -> None:
    with pytest.raises(EventError):
        made("delayed", {"jobId": "7", "delay": delay})


def test_a_job_of_an_event_of_ones_own() -> None:
    assert made("x", {"jobId": "7"}).job_id == "7"
    assert made("x", {}).job_id is None


def test_every_event_has_one_name_for_annotations_and_for_questions() -> None:
    assert str(QueueEvent[int]).endswith("QueueEvent[int]")
    assert isinstance(None, QueueEvent | None)
    assert not isinstance("completed", QueueEvent)
    assert CompletedEvent[int](ID, "7", 5) == CompletedEvent(ID, "7", 5)
    match made("drained", {}):
        case QueueEvent(id=id):
            assert id == ID
        case _:
            raise AssertionError
