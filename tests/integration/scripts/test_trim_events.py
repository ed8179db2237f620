"""``trim_events``: old events go, in whole blocks."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NewJob, Queue, Trimmed


def test_no_events_at_all(mail: Queue) -> None:
    assert mail.call("trim_events", max_length=0) == (0, {})


def test_all_of_them(mail: Queue) -> None:
    mail.add(NewJob(), NewJob())
    assert mail.call("trim_events", max_length=0) == (4, {"events": Trimmed([])})


# A block holds 100 entries as servers come.
@pytest.mark.parametrize(("max_length", "gone"), [(1, 300), (30, 300), (31, 200), (130, 200), (329, 0), (1000, 0)])
def test_whole_blocks(mail: Queue, max_length: int, gone: int) -> None:
    for number in range(330):
        mail.redis.xadd(mail.key("events"), {"event": "x", "number": str(number)})
    reply, changed = mail.call("trim_events", max_length=max_length)
    assert reply == gone
    kept = [{"event": "x", "number": str(number)} for number in range(gone, 330)]
    assert changed == ({"events": Trimmed(kept)} if gone else {})
