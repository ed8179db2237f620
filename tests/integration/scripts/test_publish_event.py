"""``publish_event``: an event of a program's own among those of the queue."""

from __future__ import annotations

from tests.integration.scripts.commands import Queue, Trimmed, event


def test_an_event_goes_to_the_end_of_the_stream(mail: Queue) -> None:
    reply, changed = mail.call("publish_event", [("jobId", "7"), ("boxes", "2")], length="", event_name="packed")
    assert changed == {"events": [event("packed", "7", boxes="2")], "meta": {"opts.maxLenEvents": "10000"}}
    ((entry, _),) = mail.redis.xrange(mail.key("events"))
    assert reply == entry


def test_an_event_may_say_nothing(mail: Queue) -> None:
    mail.put("meta", {"opts.maxLenEvents": "5"})
    assert mail.call("publish_event", length="", event_name="å b").changed == {"events": [event("å b")]}


def test_as_many_are_kept_as_the_queue_wants(mail: Queue) -> None:
    for _ in range(300):
        mail.redis.xadd(mail.key("events"), {"event": "x"})
    assert mail.call("publish_event", length="", event_name="y").changed["events"] == [event("y")]
    mail.put("meta", {"opts.maxLenEvents": "0"})
    kept = mail.call("publish_event", length="", event_name="z").changed["events"]
    assert isinstance(kept, Trimmed)
    assert len(kept.entries) < 300


def test_or_as_many_as_its_caller_wants(mail: Queue) -> None:
    mail.put("meta", {"opts.maxLenEvents": "5000"})
    for _ in range(300):
        mail.redis.xadd(mail.key("events"), {"event": "x"})
    changed = mail.call("publish_event", length="0", event_name="y").changed
    assert isinstance(changed["events"], Trimmed)
    assert "meta" not in changed
